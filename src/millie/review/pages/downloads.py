"""Tables and documents to take along: decisions and the audit trail."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from millie.files import Value, write_csv
from millie.review.cells.blind import is_blind, second_for
from millie.review.pages.lookup import person
from millie.review.records import decisions
from millie.review.roles import Act, requires


@requires(Act.LOOK)
def conclusions_csv(request: HttpRequest) -> HttpResponseBase:
    """Every signature, one row each."""
    _check_not_blind(request)
    return csv_file("conclusions.csv", decisions.CONCLUSIONS, decisions.conclusions())


@requires(Act.LOOK)
def cells_csv(request: HttpRequest) -> HttpResponseBase:
    """Every decision about a cell, one row each."""
    _check_not_blind(request)
    return csv_file("cells.csv", decisions.CELLS, decisions.cells())


@requires(Act.LOOK)
def decisions_json(request: HttpRequest) -> HttpResponseBase:
    """Both in one document."""
    _check_not_blind(request)
    response = HttpResponse(decisions.as_json(), content_type="application/json")
    response["Content-Disposition"] = 'attachment; filename="decisions.json"'
    return response


def _check_not_blind(request: HttpRequest) -> None:
    """Refuse who must not know others' conclusions yet.

    Raises:
        PermissionDenied: the person works blind-first, or a second review waits for them.
    """
    user = person(request)
    if is_blind(user) or second_for(user):
        raise PermissionDenied("you work blind-first, or a second review waits for you")


def csv_file(name: str, columns: Sequence[str], rows: Iterable[Sequence[Value]]) -> HttpResponse:
    """A table as a download, written as all of millie's tables are."""
    with tempfile.TemporaryDirectory(dir=settings.FILE_UPLOAD_TEMP_DIR) as folder:
        content = write_csv(Path(folder) / name, columns, rows).read_bytes()
    response = HttpResponse(content, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
