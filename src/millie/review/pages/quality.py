"""The quality dashboard: each chart beside the table of the same numbers."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from millie.review.cells.blind import is_blind
from millie.review.pages.lookup import person
from millie.review.pages.worklist import STATES
from millie.review.records.quality import STYLES, Week, measure_quality
from millie.review.roles import Act, requires

_HEIGHT = 120.0


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a column of the chart, in its units."""

    style: str
    top: float
    height: float


@requires(Act.LOOK)
def quality(request: HttpRequest) -> HttpResponse:
    """The page; who works blind-first would learn calls from it."""
    if is_blind(person(request)):
        return render(request, "review/quality.html", {"blind": True})
    found = measure_quality()
    most = max((week.total for week in found.weeks), default=0)
    return render(request, "review/quality.html", {
        "quality": found,
        "columns": [(week, _blocks(week, max(1, most))) for week in found.weeks],
        "styles": [(style, STATES[style][0]) for style in STYLES],
        "most": most,
        "total": sum(week.total for week in found.weeks),
    })  # fmt: skip


def _blocks(week: Week, most: int) -> list[Block]:
    """One above the other, the most urgent on top."""
    blocks, top = [], _HEIGHT * (1 - week.total / most)
    for style in STYLES:
        height = _HEIGHT * week.counts[style] / most
        if height:
            blocks.append(Block(style, top, height))
        top += height
    return blocks
