"""Saving what a person decided about cells: all of one act or nothing, and never over another's.

A decision is a new row, with the version that it makes; the cell itself only says which one holds
now. Who writes states the version that was on the screen: if another person has decided in the
meantime, nothing is written and the other's decision is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from millie.errors import ConfigError
from millie.review.cell_kinds import BY_CODE
from millie.review.cells.blind import is_blind, seen_by
from millie.review.models import Cell, CellDecision, Sample
from millie.review.records.audit import record
from millie.review.records.reopening import reopen

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from millie.review.models import Analysis

TAKEN_BACK = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to hold for a cell.

    Attributes:
        cell: index in the analysis.
        seen: version of the cell that the person saw.
        code: a kind of cell, or :data:`TAKEN_BACK`.
    """

    cell: int
    seen: int
    code: str


class StaleError(Exception):
    """Another person has decided since: ``cells`` are the ones concerned, as they stand now."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        super().__init__(f"{len(cells)} cells were decided by another person in the meantime")
        self.cells = cells


class ReplacedError(Exception):
    """The sample has been analysed again: decisions belong to its latest analysis."""


def decide(analysis: Analysis, wishes: Sequence[Wish], user: User) -> list[Cell]:
    """Keep decisions, and the audit event that tells of them.

    Args:
        analysis: whose cells.
        wishes: each cell at most once.
        user: who decides.

    Returns:
        the cells as they stand now, in the order of their indices.

    Raises:
        ConfigError: no such kind or cell, or a cell twice.
        StaleError: nothing was kept.
        ReplacedError: nothing was kept.
    """
    wanted = {wish.cell: wish for wish in wishes}
    if not wishes or len(wanted) != len(wishes):
        raise ConfigError("decisions on no cell, or on one cell twice: expected each cell once")
    if unknown := sorted({w.code for w in wishes} - {*BY_CODE, TAKEN_BACK}):
        raise ConfigError(f"no kind of cell '{unknown[0]}': expected one of {', '.join(BY_CODE)}")
    with transaction.atomic():
        sample = Sample.objects.select_for_update().get(pk=analysis.sample_id)
        if sample.analysis_id != analysis.pk:
            raise ReplacedError
        cells = list(analysis.cells.filter(index__in=wanted).order_by("index"))
        if len(cells) != len(wanted):
            lost = sorted(wanted.keys() - {cell.index for cell in cells})
            raise ConfigError(f"no cell {lost[0]} in this analysis")
        new = [cell for cell in cells if cell.version == wanted[cell.index].seen]
        stale = [c for c in cells if c not in new and not _repeated(c, wanted[c.index], user)]
        if stale:
            raise StaleError(stale)
        if new:
            _keep(analysis, sample, new, wanted, user)
    return cells


def _repeated(cell: Cell, wish: Wish, user: User) -> bool:
    """Whether a decision is already kept, and only the answer was lost on its way."""
    if (cell.version, cell.decision) != (wish.seen + 1, wish.code):
        return False
    return cell.decisions.filter(version=cell.version, user=user).exists()


def _keep(
    analysis: Analysis, sample: Sample, cells: list[Cell], wanted: dict[int, Wish], user: User
) -> None:
    _write(analysis, cells, wanted, user)
    if sample.reviewer_id is None:
        sample.reviewer = user
        sample.save(update_fields=["reviewer"])
    record(
        user.get_username(), "cell.decided", sample.pseudonym, analysis=analysis.number,
        cells=[[cell.index, cell.version, cell.decision] for cell in cells],
    )  # fmt: skip
    reopen(sample, "decided")


def _write(analysis: Analysis, cells: list[Cell], wanted: dict[int, Wish], user: User) -> None:
    blind = is_blind(user)
    seen = seen_by(user, analysis) if blind else set()
    now = timezone.now()
    decisions = []
    for cell in cells:
        cell.version += 1
        cell.decision = wanted[cell.index].code
        decision = CellDecision(
            cell=cell, version=cell.version, code=cell.decision, suggestion=cell.suggestion,
            blind=blind and cell.index not in seen, user=user, at=now,
        )  # fmt: skip
        decisions.append(decision)
    CellDecision.objects.bulk_create(decisions)
    Cell.objects.bulk_update(cells, ["version", "decision"], batch_size=200)
