"""The audit trail: events to be searched, checked and taken along."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render

from millie.review.models import AuditEvent
from millie.review.records.audit import verify
from millie.review.roles import Act, requires

_A_PAGE = 100
_COLUMNS = ("number", "at", "actor", "action", "subject", "details", "previous", "digest")


class _Echo:
    """A file that gives back what is written to it."""

    def write(self, line: str) -> str:
        return line


@requires(Act.AUDIT)
def audit(request: HttpRequest) -> HttpResponse:
    """The latest events, of one subject or actor where asked; checked where asked."""
    wanted = request.GET.get("q", "").strip()
    page = Paginator(_found(wanted), _A_PAGE).get_page(request.GET.get("page"))
    verdict = verify(request.GET.get("noted", "").strip()) if "verify" in request.GET else None
    context = {"page": page, "wanted": wanted, "verdict": verdict}
    return render(request, "review/audit.html", context)


@requires(Act.AUDIT)
def audit_csv(request: HttpRequest) -> StreamingHttpResponse:
    """All events as CSV, with what is needed to check the chain elsewhere."""
    response = StreamingHttpResponse(
        _lines(_found(request.GET.get("q", "").strip())), content_type="text/csv; charset=utf-8"
    )
    response["Content-Disposition"] = 'attachment; filename="audit.csv"'
    return response


def _found(wanted: str) -> QuerySet[AuditEvent]:
    events = AuditEvent.objects.order_by("-number")
    return events.filter(subject=wanted) | events.filter(actor=wanted) if wanted else events


def _lines(events: QuerySet[AuditEvent]) -> Iterator[str]:
    writer = csv.writer(_Echo())
    yield str(writer.writerow(_COLUMNS))
    for event in events.values_list(*_COLUMNS).iterator(chunk_size=2000):
        yield str(writer.writerow(event))
