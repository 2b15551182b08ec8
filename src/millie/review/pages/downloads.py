"""Tables and documents to take along: decisions and the audit trail."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from millie.files import Value, write_csv
from millie.review.records import decisions
from millie.review.roles import Act, requires


@requires(Act.LOOK)
def conclusions_csv(_: HttpRequest) -> HttpResponseBase:
    """Every signature, one row each."""
    return csv_file("conclusions.csv", decisions.CONCLUSIONS, decisions.conclusions())


@requires(Act.LOOK)
def cells_csv(_: HttpRequest) -> HttpResponseBase:
    """Every decision about a cell, one row each."""
    return csv_file("cells.csv", decisions.CELLS, decisions.cells())


@requires(Act.LOOK)
def decisions_json(_: HttpRequest) -> HttpResponseBase:
    """Both in one document."""
    response = HttpResponse(decisions.as_json(), content_type="application/json")
    response["Content-Disposition"] = 'attachment; filename="decisions.json"'
    return response


def csv_file(name: str, columns: Sequence[str], rows: Iterable[Sequence[Value]]) -> HttpResponse:
    """A table as a download, written as all of millie's tables are."""
    with tempfile.TemporaryDirectory(dir=settings.FILE_UPLOAD_TEMP_DIR) as folder:
        content = write_csv(Path(folder) / name, columns, rows).read_bytes()
    response = HttpResponse(content, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
