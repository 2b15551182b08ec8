"""Rules that tell a process out of control from chance. Numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

WARNING = "1-2s"


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that does not hold at a point.

    Attributes:
        index: of the point that completes the pattern.
        rule: its name.
    """

    index: int
    rule: str

    @property
    def rejects(self) -> bool:
        """Whether the point is out of control, not only to be looked at."""
        return self.rule != WARNING


RULES: dict[str, str] = {
    "1-2s": "one point beyond 2 standard deviations: a warning, no rejection",
    "1-3s": "one point beyond 3 standard deviations",
    "2-2s": "two points in a row beyond 2 standard deviations on the same side",
    "R-4s": "two points in a row more than 4 standard deviations apart, across the mean",
    "4-1s": "four points in a row beyond 1 standard deviation on the same side",
    "10-x": "ten points in a row on the same side of the mean",
}
"""The rules and what breaks them."""


def westgard(z: Sequence[float]) -> list[Broken]:
    """Every rule that is broken, by the point at which it is.

    Args:
        z: points in the order of time, as (value - mean) / standard deviation.

    Source: Westgard, Barry, Hunt and Groth, Clinical Chemistry 27:493 (1981). Levey and Jennings,
    American Journal of Clinical Pathology 20:1059 (1950), for the chart.
    """
    return [
        Broken(i, rule)
        for i in range(len(z))
        for rule, breaks in _BREAKS.items()
        if breaks(z[: i + 1])
    ]


def _in_a_row(number: int, beyond: float) -> Callable[[Sequence[float]], bool]:
    def breaks(z: Sequence[float]) -> bool:
        last = z[-number:]
        above, below = (all(side * x > beyond for x in last) for side in (1, -1))
        return len(last) == number and (above or below)

    return breaks


def _range(z: Sequence[float]) -> bool:
    last = z[-2:]
    return len(last) == 2 and max(last) > 2 and min(last) < -2


_BREAKS: dict[str, Callable[[Sequence[float]], bool]] = {
    "1-2s": _in_a_row(1, 2),
    "1-3s": _in_a_row(1, 3),
    "2-2s": _in_a_row(2, 2),
    "R-4s": _range,
    "4-1s": _in_a_row(4, 1),
    "10-x": _in_a_row(10, 0),
}
