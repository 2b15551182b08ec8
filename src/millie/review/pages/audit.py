"""The audit trail: events to be searched, checked and taken along."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render

from millie.review.models import AuditEvent
from millie.review.pages.downloads import csv_file
from millie.review.records.audit import verify
from millie.review.roles import Act, requires

_A_PAGE = 100
_COLUMNS = ("number", "at", "actor", "action", "subject", "details", "previous", "digest")


@requires(Act.AUDIT)
def audit(request: HttpRequest) -> HttpResponse:
    """The latest events, of one subject or actor where asked; checked where asked."""
    wanted = request.GET.get("q", "").strip()
    page = Paginator(_found(wanted), _A_PAGE).get_page(request.GET.get("page"))
    verdict = verify(request.GET.get("noted", "").strip()) if "verify" in request.GET else None
    context = {"page": page, "wanted": wanted, "verdict": verdict}
    return render(request, "review/audit.html", context)


@requires(Act.AUDIT)
def audit_csv(request: HttpRequest) -> HttpResponseBase:
    """All events as CSV, with what is needed to check the chain elsewhere."""
    events = _found(request.GET.get("q", "").strip()).order_by("number")
    return csv_file("audit.csv", _COLUMNS, events.values_list(*_COLUMNS).iterator(chunk_size=2000))


def _found(wanted: str) -> QuerySet[AuditEvent]:
    events = AuditEvent.objects.order_by("-number")
    return events.filter(subject=wanted) | events.filter(actor=wanted) if wanted else events
