"""Criteria against figures: met, not met, not tested.

Owns what makes a criterion met; the figures are made by the sections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from millie.outputs.validation.cases import Figure

Outcome = Literal["met", "not met", "not tested"]


@dataclass(frozen=True, slots=True)
class Criterion:
    """One line of the verdict.

    Attributes:
        section: of the plan; ``key``: in it.
        what: the figure in words.
        required: the limit in words.
        observed: the figure, its interval and its number, in words; empty: there is none.
        outcome: whether it is met.
        note: why it is not tested, or why it cannot be met.
    """

    section: str
    key: str
    what: str
    required: str
    observed: str
    outcome: Outcome
    note: str = ""

    def row(self) -> dict[str, Any]:
        """As a row of ``verdict.csv``."""
        return asdict(self)


def figure_words(figure: Figure | None) -> str:
    """A figure for people: ``0.95 (0.83 to 0.99; 38/40)``."""
    if figure is None or figure.value is None:
        return ""
    form = ".3f" if figure.unit == "share" else ".3g"
    text = f"{figure.value:{form}}"
    unit = "" if figure.unit in {"", "share"} else f" {figure.unit}"
    inside = []
    if figure.low is not None or figure.high is not None:
        ends = ("–" if end is None else f"{end:{form}}" for end in (figure.low, figure.high))
        inside.append(" to ".join(ends))
    if figure.successes is not None:
        inside.append(f"{figure.successes}/{figure.n}")
    elif figure.n:
        inside.append(f"n = {figure.n}")
    return f"{text}{unit} ({'; '.join(inside)})" if inside else f"{text}{unit}"


def judge(
    key: str,
    what: str,
    figure: Figure | None,
    limit: float | None,
    judged_by: str,
    *,
    section: str,
    missing: str = "no data were given",
) -> list[Criterion]:
    """The line of a criterion; none where the plan sets no limit.

    Args:
        key: of the plan; ``min_`` in front: the figure must reach the limit, else it must not
            exceed it.
        what: the figure in words.
        figure: None, or one without a value: it was not tested.
        limit: of the plan.
        judged_by: ``interval``: by its less favourable end; ``estimate``: by the figure.
        section: of the plan.
        missing: why there is no figure.
    """
    if limit is None:
        return []
    least = key.startswith("min_")
    sign = "at least" if least else "at most"
    required = f"{sign} {limit:g}"
    if figure is None or figure.value is None:
        return [Criterion(section, key, what, required, "", "not tested", missing)]
    value = figure.value
    if judged_by == "interval" and figure.method:
        end = figure.low if least else figure.high
        if end is None:
            note = "so few results leave the end of the interval open"
            seen = figure_words(figure)
            return [Criterion(section, key, what, required, seen, "not met", note)]
        value = end
    met = value >= limit if least else value <= limit
    outcome: Outcome = "met" if met else "not met"
    return [Criterion(section, key, what, required, figure_words(figure), outcome)]


def tally(criteria: Sequence[Criterion]) -> dict[Outcome, int]:
    """How many are met, not met and not tested."""
    counts: dict[Outcome, int] = {"met": 0, "not met": 0, "not tested": 0}
    for one in criteria:
        counts[one.outcome] += 1
    return counts
