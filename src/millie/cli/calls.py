"""The table of calls on a terminal: a line per patient, reasons and remedies beside it or below.

Owns what is given up where the width is small: first the reasons move below their patient, then
the classes shrink to the most likely one, then a long name gets a line of its own. The state and
the reasons are never cut. Why a patient has no result is told with the other problems.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from millie.cli.lines import Line, printable, wrapped
from millie.statistics.conformal import in_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from millie.outputs.patient.records import PatientResult

_GAP = "  "
_NAME = 12
"""Columns that a patient's name gets before classes are dropped for it."""


@dataclass(frozen=True, slots=True)
class _Column:
    """Cells under a heading; numbers stand to the right."""

    heading: str
    cells: tuple[str, ...]
    number: bool = False

    @property
    def width(self) -> int:
        return max(map(cell_len, (self.heading, *self.cells)))


def call_lines(
    results: Sequence[PatientResult],
    truth: Mapping[str, str] | None,
    width: int,
    remarks: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """The table as lines of at most ``width`` columns.

    Args:
        results: of one model.
        truth: what is known of each patient; None: nothing.
        width: of the screen.
        remarks: what to check of a patient.
    """
    if not results:
        return ["No patient could be called."]
    names = [printable(p.patient) for p in results]
    longest = max(map(cell_len, ["patient", *names]))
    columns = _columns(results, truth, _all_classes(results))
    if width - _width_of(columns) < min(longest, _NAME):
        columns = _columns(results, truth, [_most_likely(results)])
    name_width = min(longest, max(width - _width_of(columns), len("patient")))
    checks = [[f"check: {text}" for text in (remarks or {}).get(p.patient, ())] for p in results]
    reasons = [
        " ".join(
            [*(printable(f"{r.text}. {r.remedy}") for r in p.reasons), *(f"{c}." for c in own)]
        )
        for p, own in zip(results, checks, strict=True)
    ]
    room = width - name_width - _width_of(columns) - len(_GAP)
    beside = any(reasons) and max(map(cell_len, reasons)) <= room
    lines = [_row("patient", [c.heading for c in columns], columns, name_width)]
    lines[0] += _GAP + "reason" if beside else ""
    for i, one in enumerate(results):
        fits = cell_len(names[i]) <= name_width
        lines += [] if fits else [names[i]]
        row = _row(names[i] if fits else "", [c.cells[i] for c in columns], columns, name_width)
        lines.append(f"{row}{_GAP}{reasons[i]}".rstrip() if beside else row)
        if not beside:
            below = [*_below(one), *(Line(text, 1) for text in checks[i])]
            lines += [line for told in below for line in wrapped(told, width)]
    return lines


def _below(result: PatientResult) -> list[Line]:
    """Each reason, and under it what would resolve it; said once for neighbours that share it."""
    lines = []
    for one, following in zip_longest(result.reasons, result.reasons[1:]):
        lines.append(Line(one.text, 1))
        if following is None or following.remedy != one.remedy:
            lines.append(Line(one.remedy, 2))
    return lines


def _columns(
    results: Sequence[PatientResult], truth: Mapping[str, str] | None, classes: list[_Column]
) -> list[_Column]:
    known = [_Column("truth", tuple(truth.get(p.patient, "") for p in results))] if truth else []
    states = _Column("state", tuple(p.state for p in results))
    counts = tuple("" if p.failed else f"{p.n_cells:,}" for p in results)
    cells = _Column("cells", counts, number=True)
    return [*known, states, *classes, cells]


def _all_classes(results: Sequence[PatientResult]) -> list[_Column]:
    labels = dict.fromkeys(label for p in results for label in p.probabilities)
    return [
        _Column(label, tuple(_told(p, label) for p in results), number=True) for label in labels
    ]


def _most_likely(results: Sequence[PatientResult]) -> _Column:
    cells = tuple(f"{p.label} {_told(p, p.label)}".strip() for p in results)
    return _Column("most likely", cells)


def _told(result: PatientResult, label: str) -> str:
    value = result.probabilities.get(label)
    return "" if value is None else in_words(value, result.supported)


def _width_of(columns: Sequence[_Column]) -> int:
    return sum(len(_GAP) + column.width for column in columns)


def _row(name: str, cells: Sequence[str], columns: Sequence[_Column], name_width: int) -> str:
    shown = [set_cell_size(name, name_width)]
    for text, column in zip(cells, columns, strict=True):
        left = " " * (column.width - cell_len(text)) if column.number else ""
        shown.append(left + text if column.number else set_cell_size(text, column.width))
    return _GAP.join(shown).rstrip()
