"""The count of the kinds that people confirmed, with the interval of each share.

The interval is the exact binomial one (Clopper and Pearson, Biometrika 26:404, 1934), which is what
Rümke's table for differential counts holds (Blood Cells 11:137, 1985).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db.models import Count

from millie.review.cell_kinds import ARTEFACT, KINDS
from millie.statistics.intervals import clopper_pearson

if TYPE_CHECKING:
    from millie.review.models import Analysis

ERYTHROBLAST = "erythroblast"


@dataclass(frozen=True, slots=True)
class CountedKind:
    """One line of the count.

    Attributes:
        title: of the kind.
        n: cells.
        share: of the leukocytes, 0 to 1; None where they are counted beside them.
        low: lower end of the 95 % interval; also ``high``.
    """

    title: str
    n: int
    share: float | None = None
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True, slots=True)
class Differential:
    """All confirmed kinds.

    Attributes:
        rows: kinds that occur, in the order of their keys.
        n_leukocytes: confirmed cells but artefacts and erythroblasts: what shares refer to.
        n_decided: confirmed cells of any kind.
        n_cells: cells of the analysis.
    """

    rows: tuple[CountedKind, ...]
    n_leukocytes: int
    n_decided: int
    n_cells: int


def count_kinds(analysis: Analysis) -> Differential:
    """Count the decisions that hold now."""
    tally = dict(
        analysis.cells.exclude(decision="")
        .order_by()
        .values_list("decision")
        .annotate(n=Count("pk"))
    )
    leukocytes = sum(n for code, n in tally.items() if code not in {ARTEFACT, ERYTHROBLAST})
    rows = []
    for kind in KINDS:
        n = tally.get(kind.code, 0)
        if n and kind.code in {ARTEFACT, ERYTHROBLAST}:
            rows.append(CountedKind(kind.title, n))
        elif n:
            share = clopper_pearson(n, leukocytes)
            rows.append(CountedKind(kind.title, n, share.value, share.low, share.high))
    return Differential(tuple(rows), leukocytes, sum(tally.values()), analysis.n_cells)
