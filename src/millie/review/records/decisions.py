"""What people decided, as data: for evaluation, never silently for training.

Two tables: conclusions, one row a signature, and cells, one row a decision. Each row says which
version it is; the last version holds. No name of a patient is in either.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from millie.review.models import CellDecision, Signature
from millie.types import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from millie.files import Value

CONCLUSIONS = (
    "sample", "version", "holds", "diagnosis", "state", "analysis", "model", "model_sha256",
    "comment", "reason", "signed_by", "signed_at", "record_sha256", "second_diagnosis", "second_by",
)  # fmt: skip
CELLS = (
    "sample", "analysis", "cell", "image", "left_px", "top_px", "width_px", "height_px", "version",
    "holds", "suggestion", "decision", "blind", "decided_by", "decided_at",
)  # fmt: skip


def conclusions() -> Iterator[list[Value]]:
    """Rows of :data:`CONCLUSIONS`, in the order of signing."""
    rows = Signature.objects.select_related("sample", "analysis", "user").prefetch_related(
        "second_reviews__user"
    )
    last = {one.sample_id: one.version for one in Signature.objects.order_by("version")}
    for one in rows.order_by("at"):
        second = next((r for r in one.second_reviews.all() if r.user is not None), None)
        yield [
            one.sample.pseudonym,
            one.version,
            one.version == last[one.sample_id] and one.sample.signed_at is not None,
            one.diagnosis,
            one.analysis.state,
            one.analysis.number,
            one.analysis.model_name,
            one.analysis.model_sha256,
            one.comment,
            one.reason,
            one.user.username,
            one.at.isoformat(),
            one.record_sha256,
            second.diagnosis if second else "",
            second.user.username if second and second.user else "",
        ]


def cells() -> Iterator[list[Value]]:
    """Rows of :data:`CELLS`, in the order of deciding; an empty decision took one back."""
    rows = CellDecision.objects.select_related("cell__analysis__sample", "user").order_by("pk")
    for one in rows.iterator(chunk_size=2000):
        cell = one.cell
        yield [
            cell.analysis.sample.pseudonym,
            cell.analysis.number,
            cell.index,
            cell.image,
            cell.left_px,
            cell.top_px,
            cell.width_px,
            cell.height_px,
            one.version,
            one.version == cell.version,
            one.suggestion,
            one.code,
            one.blind,
            one.user.username,
            one.at.isoformat(),
        ]


def as_json() -> str:
    """Both tables in one document."""
    content = {
        "schema": 1,
        "note": RESEARCH_USE_ONLY,
        "conclusions": [dict(zip(CONCLUSIONS, row, strict=True)) for row in conclusions()],
        "cells": [dict(zip(CELLS, row, strict=True)) for row in cells()],
    }
    return json.dumps(content, indent=1, ensure_ascii=False)
