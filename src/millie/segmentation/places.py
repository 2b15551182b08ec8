"""Places on a plane that come and go, and which of them lie near one another.

Owns the grid that finds neighbours without looking at every pair: a large field has thousands of
pieces of nuclei, of which each has a few neighbours.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Places:
    """Named places; neighbours are those nearer than ``reach``."""

    def __init__(self, reach: float) -> None:
        """Begin without any."""
        self._reach = reach
        self._where: dict[int, tuple[float, float]] = {}
        self._grid: defaultdict[tuple[int, int], set[int]] = defaultdict(set)

    def put(self, name: int, x: float, y: float) -> None:
        """Add a place, or move it."""
        self.remove(name)
        self._where[name] = (x, y)
        self._grid[self._square(x, y)].add(name)

    def remove(self, name: int) -> None:
        """Forget a place, if it is known."""
        if name in self._where:
            self._grid[self._square(*self._where.pop(name))].discard(name)

    def near(self, name: int) -> list[int]:
        """The other places nearer than the reach, in the order of their names."""
        here = self._where[name]
        return sorted(
            other
            for other in self._around(here)
            if other != name and math.dist(here, self._where[other]) < self._reach
        )

    def _around(self, place: tuple[float, float]) -> Iterator[int]:
        column, row = self._square(*place)
        for square in ((column + i, row + k) for i in (-1, 0, 1) for k in (-1, 0, 1)):
            if square in self._grid:
                yield from self._grid[square]

    def _square(self, x: float, y: float) -> tuple[int, int]:
        return math.floor(x / self._reach), math.floor(y / self._reach)
