"""How much of each whole slide has been read, when that is enough, and what to tell of it.

Owns the rule for ending the search of a slide; which fields are cut, and in what order, is
``readers.slides``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from millie.readers.content import note
from millie.types import Finding, Problem

if TYPE_CHECKING:
    from millie.config import ReadingConfig
    from millie.types import Field

_HOPELESS = 24
"""So many fields in a row, from all over a slide, that could not be searched: it is no blood film,
or out of focus throughout."""


@dataclass(slots=True)
class _Taken:
    """Of one slide."""

    planned: int
    drawn: bool = False
    fields: int = 0
    cells: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class SlideTally:
    """Counts cells and fields of slides; images that are no part of a slide are never enough.

    Args:
        config: ``slide_cells``.
    """

    def __init__(self, config: ReadingConfig) -> None:
        self._most_cells = config.slide_cells
        self._taken: dict[str, _Taken] = {}

    def enough(self, one: Field) -> bool:
        """Whether the slide of a field needs no more of them: enough cells, or hopeless.

        Cells that were drawn are all wanted.
        """
        taken = self._taken.get(one.source.name)
        if one.place is None or taken is None or taken.drawn:
            return False
        refused = taken.refused.total()
        return taken.cells >= self._most_cells or _HOPELESS <= refused == taken.fields

    def add(self, one: Field, n_cells: int) -> None:
        """Count a field and its cells."""
        if taken := self._of(one):
            taken.fields += 1
            taken.cells += n_cells

    def refuse(self, one: Field, why: str) -> None:
        """Say that a field, which is counted all the same, could not be searched."""
        if taken := self._of(one):
            taken.refused[why] += 1

    def steps(self) -> tuple[int, int]:
        """Fields done and planned of all slides; of one that has enough cells those done."""
        done = sum(taken.fields for taken in self._taken.values())
        left = sum(
            taken.planned - taken.fields
            for taken in self._taken.values()
            if taken.drawn or taken.cells < self._most_cells
        )
        return done, done + left

    def _of(self, one: Field) -> _Taken | None:
        if one.place is None:
            return None
        return self._taken.setdefault(
            one.source.name, _Taken(one.place.n_fields, bool(one.source.outlines))
        )

    def problems(self, patient: str) -> list[Problem]:
        """One for each slide: a note, or a failure where not one field could be searched."""
        return [self._problem(patient, name, taken) for name, taken in self._taken.items()]

    def _problem(self, patient: str, name: str, taken: _Taken) -> Problem:
        refused = taken.refused.total()
        if refused == taken.fields:
            (why, _), *_ = taken.refused.most_common(1)
            text = (
                f"{name}: none of {taken.fields} fields from all over the slide could be searched "
                f"for cells ({why}); leave it out if it is no stained blood film"
            )
            return Problem(patient, name, Finding.REFUSED, text)
        text = f"whole slide: {taken.cells:,} cells drawn elsewhere, in {taken.fields:,} fields"
        if not taken.drawn:
            text = (
                f"whole slide: {taken.cells:,} cells in {taken.fields:,} of {taken.planned:,} "
                f"fields planned in its monolayer (reading.slide_cells={self._most_cells:,})"
            )
        if refused:
            (why, n), *_ = taken.refused.most_common(1)
            text += f"; {refused} could not be searched ({n}: {why})"
        return note(patient, name, text, Finding.SLIDE)
