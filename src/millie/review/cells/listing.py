"""All cells of an analysis in one compact answer, as the gallery and the field viewer take them.

Five thousand cells must be on the screen within two seconds, so a cell is an array and not an
object; :data:`COLUMNS` names its places.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from millie.outputs.patient.evidence import weigh
from millie.outputs.patient.states import FAILED
from millie.review.cell_kinds import BY_CODE
from millie.review.cells.blind import call_hidden, is_blind, second_for, seen_by
from millie.statistics.metrics import likeliest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.contrib.auth.models import User

    from millie.outputs.patient.records import ModelFacts, PatientResult
    from millie.review.models import Analysis, Cell

COLUMNS = (
    "index", "image", "left", "top", "width", "height", "remarks", "decision", "version",
    "suggestion", "label", "certainty", "uncertainty", "strength", "flagged", "mark",
)  # fmt: skip
_STORED = (
    "index", "image", "left_px", "top_px", "width_px", "height_px", "remarks", "decision",
    "version", "suggestion", "certainty", "probabilities", "strength", "flagged",
)  # fmt: skip
_N_OPEN = COLUMNS.index("suggestion")
"""Columns before it say nothing of what the model thinks."""
_HIDDEN = (None,) * (len(COLUMNS) - _N_OPEN)


def listing(
    analysis: Analysis, model: ModelFacts, result: PatientResult, user: User,
    image: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The answer, JSON-able; what a blind-first reader must not see yet is not in it.

    Args:
        analysis: whose cells.
        model: its card.
        result: of the sample.
        user: who asks.
        image: only the cells of one image.
    """
    hidden = result.state == FAILED or call_hidden(user, analysis.sample)
    marks = {} if hidden else _marks(result, model)
    cells = analysis.cells.all() if image is None else analysis.cells.filter(image=image)
    blind = is_blind(user) or analysis.sample_id in second_for(user)
    shown = seen_by(user, analysis) if blind else None
    rows = []
    for stored in cells.values_list(*_STORED):
        *head, suggestion, certainty, probabilities, strength, flagged = stored
        if shown is not None and head[0] not in shown:
            rows.append([*head, *_HIDDEN])
            continue
        doubt = round(entropy(probabilities), 4)
        mark = marks.get(head[0], "")
        label = likeliest(probabilities, model.labels)
        numbers = round(certainty, 4), doubt, round(strength, 5)
        rows.append([*head, suggestion, label, *numbers, flagged, mark])
    return {
        "columns": COLUMNS,
        "rows": rows,
        "blind": shown is not None,
        "most": result.supported,
    }


def _marks(result: PatientResult, model: ModelFacts) -> dict[int, str]:
    return {cell: mark.text for cell, mark in weigh(result, model).marks.items()}


def entropy(probabilities: Sequence[float]) -> float:
    """How unsure the model is of a cell: 0 sure, 1 all classes and none alike (Shannon).

    None of the classes has what their probabilities lack to 1.
    """
    shares = [*probabilities, 1 - sum(probabilities)]
    return -sum(p * math.log(p) for p in shares if p > 0) / math.log(len(shares))


def state_of(cell: Cell, labels: Sequence[str] = ()) -> dict[str, Any]:
    """One cell after a decision; with the labels of its model also what the model thinks of it."""
    found = {"cell": cell.index, "version": cell.version, "code": cell.decision}
    if labels:
        found |= {
            "suggestion": cell.suggestion,
            "label": likeliest(cell.probabilities, labels),
            "certainty": round(cell.certainty, 4),
            "uncertainty": round(entropy(cell.probabilities), 4),
        }
    return found


def title_of(code: str) -> str:
    """A decision in words."""
    return BY_CODE[code].title if code in BY_CODE else "no decision"
