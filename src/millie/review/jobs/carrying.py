"""People's decisions on cells, taken over where the same cells are called again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millie.errors import DataError
from millie.review.models import Cell, CellDecision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from millie.review.models import Analysis


def carry_decisions(old: Analysis, excluded: Sequence[int], new: Analysis) -> int:
    """Repeat the decisions that hold on the kept cells of an analysis, each beside its origin.

    Args:
        old: the analysis that was made again.
        excluded: indices of its cells that were left out; the others keep their order.
        new: the analysis without them; its cells have no decisions yet.

    Returns:
        How many were carried over.

    Raises:
        DataError: the new analysis has another number of cells than were kept.
    """
    out = set(excluded)
    kept = [cell for cell in old.cells.all() if cell.index not in out]
    cells = list(new.cells.all())
    if len(kept) != len(cells):
        raise DataError(
            f"{new.sample.pseudonym}: {len(cells)} cells were called again, {len(kept)} were kept; "
            "analyse the sample anew from its images"
        )
    last = {
        decision.cell_id: decision
        for decision in CellDecision.objects.filter(cell__analysis=old).order_by("version")
    }
    pairs = [(before, cell) for before, cell in zip(kept, cells, strict=True) if before.decision]
    for before, cell in pairs:
        origin = last[before.pk]
        cell.decision, cell.version = before.decision, 1
        CellDecision.objects.create(
            cell=cell, version=1, code=origin.code, suggestion=origin.suggestion,
            blind=origin.blind, user=origin.user, carried_from=origin, at=origin.at,
        )  # fmt: skip
    Cell.objects.bulk_update([cell for _, cell in pairs], ["decision", "version"])
    return len(pairs)
