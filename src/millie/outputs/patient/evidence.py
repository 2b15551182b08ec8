"""Which cells are shown for and against a call, and the marks they carry everywhere.

Owns the choice of the class in focus and the numbering: a cell has the same mark in the evidence
strip, in the gallery and on the field. The contributions themselves come from the prediction.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

from millie.outputs.overlays import Mark
from millie.outputs.patient.records import ModelFacts, PatientResult
from millie.outputs.patient.states import is_urgent
from millie.types import ACUTE_LEUKAEMIAS, Winner

_OF_FUSIONS = {
    "ghost_vlad": "This model compares each cell with cells of the same kind in other patients, so "
    "mature cells can contribute as much evidence as blasts.",
    "type_shares": "This model counts types of cells, and compares immature cells with this "
    "patient’s own mature ones: those are its reference, so a mature cell counts where the "
    "reference depends on it.",
}
_ALONE = " Scored alone, a cell counts for an acute leukaemia as far as it looks immature."


@dataclass(frozen=True, slots=True)
class Evidence:
    """The two sides of a call.

    Attributes:
        focus: the class the report argues about.
        contrast: the strongest other class, or None where there is only one.
        cells_for: winners of the focus, strongest first; numbered from 1.
        cells_against: winners of the contrast, strongest first; lettered from A.
        marks: the mark of each of these cells, by index in the bag.
    """

    focus: str
    contrast: str | None
    cells_for: tuple[Winner, ...]
    cells_against: tuple[Winner, ...]
    marks: dict[int, Mark]


def fusion_note(model: ModelFacts) -> str:
    """What a reader must know of the model's fusion to understand its evidence; may be empty."""
    fusion = str(model.more.get("fusion"))
    return _OF_FUSIONS.get(fusion, "") + (_ALONE if _weighs_cells(model) else "")


def _weighs_cells(model: ModelFacts) -> bool:
    """Whether :func:`millie.inference.alone.cells_alone` changes what is said of a cell."""
    told = bool(model.cell_types) and model.more.get("fusion") == "type_shares"
    return told and not set(ACUTE_LEUKAEMIAS).isdisjoint(model.labels)


def weigh(result: PatientResult, model: ModelFacts) -> Evidence:
    """Choose focus and contrast of a result and number their cells.

    The focus is the class with the highest probability; where the state is urgent it is the class
    that must not be missed, for that is the question the reader is called for.
    """
    focus = result.label
    if is_urgent(result.state) and model.urgent in result.probabilities:
        focus = str(model.urgent)
    others = [label for label in result.probabilities if label != focus]
    contrast = max(others, key=lambda label: result.probabilities[label], default=None)
    cells_for = _strongest(result.winners.get(focus, ()))
    cells_against = _strongest(result.winners.get(contrast, ())) if contrast else ()
    texts: dict[int, list[str]] = {}
    for number, winner in enumerate(cells_for, start=1):
        texts.setdefault(winner.cell, []).append(str(number))
    for position, winner in enumerate(cells_against):
        texts.setdefault(winner.cell, []).append(letters(position))
    supporting = {winner.cell for winner in cells_for}
    marks = {cell: Mark(" ".join(text), cell in supporting) for cell, text in texts.items()}
    return Evidence(focus, contrast, cells_for, cells_against, marks)


def letters(position: int) -> str:
    """A, B, ... Z, AA, AB ...: spreadsheet-like names of the counter-evidence, from 0."""
    name = ""
    position += 1
    while position:
        position, rest = divmod(position - 1, 26)
        name = string.ascii_uppercase[rest] + name
    return name


def _strongest(winners: tuple[Winner, ...]) -> tuple[Winner, ...]:
    moved = [winner for winner in winners if winner.contribution > 0]
    return tuple(sorted(moved, key=lambda w: (-w.contribution, w.cell)))
