"""Where on a whole slide red cells lie side by side: the places at which fields are cut.

Owns the grid of places, the order in which they are visited, and the judgement of a place by the
share of it that is stained: nearly nothing is empty glass or the feathered edge, nearly everything
the thick part of the film, or tissue. It reads nothing itself and knows no single cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

LOOK_UM_PX = 1.0
"""A red cell is 7 px wide: its outline and its pale middle can still be told apart."""
MOST_LOOKS = 4096
"""Places looked at; on a slide with more, an even part of them. Bounds the time of a search."""

_STAINED = 0.9  # of the glass's green light: what lets less through is stained
_MONOLAYER = (0.15, 0.85)
"""Stained share. Fields that people photographed have 0.14 to 0.88 (168 of seven public sets)."""
_EVEN = 0.4
"""Largest difference between quarters. Fields of 0.18 x 0.24 mm (ALL-IDB1) have up to 0.23, tissue
has more."""
_STRUCTURED = 12  # grey levels between the darkest tenth and the glass of a place that is not empty
_BRIGHT = 95  # percentile that stands for glass where a twentieth of a place is glass
_GLASS = 90  # percentile over places: a tenth of the places with cells shows glass between them


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found on a slide.

    Attributes:
        places: index of each place of the monolayer, in the order in which to visit them.
        looked: places looked at.
        thin: of them, empty or nearly so in a quarter.
        thick: of them, without room between cells in a quarter, or uneven, as tissue is.
    """

    places: tuple[int, ...]
    looked: int
    thin: int
    thick: int


def edges(start_px: int, length_px: int, side_px: float) -> list[int]:
    """Edges that divide a length into parts of about equal size near ``side_px``."""
    parts = max(1, round(length_px / side_px))
    return [start_px + round(length_px * i / parts) for i in range(parts + 1)]


def spread(columns: int, rows: int) -> NDArray[np.int64]:
    """Indices (row * columns + column) of a grid, ordered so that every beginning is spread evenly.

    The order of a dither matrix (Bayer 1973) of the next power of two, cut to the grid.
    """
    row, column = (axis.ravel() for axis in np.mgrid[:rows, :columns])
    key = np.zeros(len(row), dtype=np.int64)
    for bit in range(max(columns, rows).bit_length()):
        y, x = row >> bit & 1, column >> bit & 1
        key = key << 2 | (x ^ y) << 1 | y
    return np.argsort(key, kind="stable")


def survey(order: Sequence[int], look: Callable[[int], NDArray[np.uint8]]) -> Survey:
    """Look at places, at most :data:`MOST_LOOKS`, and keep those that all lie in the monolayer.

    Args:
        order: places, in the order in which to look at them.
        look: a place, uint8 RGB (H, W, 3) at about :data:`LOOK_UM_PX`; each of its quarters counts.
    """
    seen = list(order[:MOST_LOOKS])
    quarters = np.concatenate([_green_levels(look(place)) for place in seen])
    share = _stained_share(quarters).reshape(len(seen), 4)
    low, high = _MONOLAYER
    thick = (share > high).any(axis=1) | (np.ptp(share, axis=1) > _EVEN)
    thin = (share < low).any(axis=1) & ~thick
    good = np.flatnonzero(~thick & ~thin)
    return Survey(
        places=tuple(seen[i] for i in good.tolist()),
        looked=len(seen),
        thin=int(thin.sum()),
        thick=int(thick.sum()),
    )


def _green_levels(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Share of pixels at each level of green, by quarter (4, 256).

    Red cells and nuclei both absorb green.
    """
    height, width = (max(1, side // 2) for side in image.shape[:2])
    green = image[..., 1]
    quarters = (green[:height], green[-height:])
    parts = [part for half in quarters for part in (half[:, :width], half[:, -width:])]
    counts = np.stack([np.bincount(part.ravel(), minlength=256) for part in parts])
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _stained_share(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each place (n,) that is darker than the slide's glass; 0 if no place shows cells.

    Glass is the brightest that is frequent between cells, over all places that show any: a thick
    place has none of its own, and what the scanner left out is pure white.
    """
    upto = levels.cumsum(axis=1)
    bright = (upto < _BRIGHT / 100).sum(axis=1)
    dark = (upto < 0.1).sum(axis=1)
    structured = bright - dark >= _STRUCTURED
    if not structured.any():
        return np.zeros(len(levels))
    glass = np.percentile(bright[structured], _GLASS)
    limit = max(0, int(_STAINED * glass) - 1)
    return np.asarray(upto[:, limit])
