"""What a section of the report holds, whatever it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millie.outputs.validation.cases import Figure
from millie.outputs.validation.verdict import Criterion


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text; the first cell is the row's heading.

    Attributes:
        title: above it, or empty.
        columns: headings.
        rows: each as long as the headings.
        folded: whether it is long and shown on request.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as a data URI, with its words for those who cannot see it."""

    uri: str
    alt: str
    width_px: int = 420


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the report.

    Attributes:
        key: of the plan.
        title: heading.
        lead: what was done, and what it is modelled on.
        figures: numbers, in the order of the page.
        listed: names of those that the page lists; None: all.
        criteria: lines of the verdict.
        tables: below the numbers.
        pictures: beside them.
        notes: what a reader must know to judge the numbers.
        why_not: why nothing could be tested; empty: it was.
    """

    key: str
    title: str
    lead: str
    figures: tuple[Figure, ...] = ()
    criteria: tuple[Criterion, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()
    why_not: str = ""
    listed: frozenset[str] | None = None
