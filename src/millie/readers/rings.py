"""Rings of GeoJSON: polygons in pixels of the full-resolution image, and their masks.

Owns the rules of a ring (closed, within its image), the pixels that a polygon covers (those whose
centre lies inside) and which cells touch each other. Source: RFC 7946 (GeoJSON), 3.1.6.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from millie.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from millie.types import CellRegion

_FARTHEST_PX = 100.0  # beyond the image's edge: a hand slips, another scale goes much farther
_MOST_POINTS = 1_000_000  # looked at together: 20 MB, where an outline may be as large as its image

Polygon = list[NDArray[np.float64]]
"""Outer ring and holes, each (n, 2): x, y in px."""


def polygons(geometry: Any, where: str, shape: tuple[int, int] | None) -> list[Polygon]:
    """The polygons of a geometry.

    Args:
        geometry: of a feature, as it stands in the file.
        where: for messages.
        shape: (H, W) of the image that they must lie in, px; None: that was checked before.

    Raises:
        DataError: no polygon, an open ring, or one that lies outside the image.
    """
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        raise DataError(f"{where}: geometry {kind!r}, expected Polygon or MultiPolygon")
    coordinates = geometry.get("coordinates")
    several = [coordinates] if kind == "Polygon" else coordinates
    if not isinstance(several, list) or not several:
        raise DataError(f"{where}: no coordinates; export the file again")
    return [_polygon(one, where, shape) for one in several]


def _polygon(rings: Any, where: str, shape: tuple[int, int] | None) -> Polygon:
    if not isinstance(rings, list) or not rings:
        raise DataError(f"{where}: a polygon without a ring; export the file again")
    return [_ring(ring, where, shape) for ring in rings]


def _ring(points: Any, where: str, shape: tuple[int, int] | None) -> NDArray[np.float64]:
    try:
        ring = np.array([(float(point[0]), float(point[1])) for point in points], np.float64)
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        raise DataError(f"{where}: a ring that is no list of x, y; export it again") from error
    if len(ring) < 4 or not np.array_equal(ring[0], ring[-1]):
        raise DataError(
            f"{where}: the ring is open (its last point is not its first), so it outlines nothing; "
            "draw polygons, not lines, and export the file again"
        )
    if shape is None:
        return ring
    height, width = shape
    low, high = ring.min(), (ring - (width, height)).max()
    if not (math.isfinite(ring.sum()) and low >= -_FARTHEST_PX and high <= _FARTHEST_PX):
        raise DataError(
            f"{where}: lies outside the image of {width} x {height} px; outlines must be in pixels "
            "of the full-resolution image, and of this one"
        )
    return ring


def mask_of(polygon: Polygon, shape: tuple[int, int]) -> tuple[tuple[int, int], NDArray[np.bool_]]:
    """Top and left, and which pixel centres within the image lie inside a polygon."""
    outer, *holes = polygon
    left, top = (max(0, math.floor(value)) for value in outer.min(axis=0))
    right, bottom = (
        max(start, min(size, math.ceil(value)))
        for start, size, value in zip(
            (left, top), (shape[1], shape[0]), outer.max(axis=0), strict=True
        )
    )
    mask = np.zeros((bottom - top, right - left), np.bool_)
    band = max(1, _MOST_POINTS // max(1, right - left))
    for start in range(top, bottom, band):
        rows = np.arange(start, min(start + band, bottom))
        x, y = np.meshgrid(np.arange(left, right) + 0.5, rows + 0.5)
        centres = np.column_stack([x.ravel(), y.ravel()])
        own = inside(outer, centres)
        for hole in holes:
            own &= ~inside(hole, centres)
        mask[rows - top] = own.reshape(x.shape)
    return (top, left), mask


def inside(ring: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points (n, 2) lie inside a ring."""
    if not len(centres):
        return np.zeros(0, np.bool_)
    from matplotlib.path import Path as Curve  # noqa: PLC0415 - slow to load

    return np.asarray(Curve(ring, closed=True).contains_points(centres), np.bool_)


def paste(
    onto: NDArray[np.bool_], top: int, left: int, place: tuple[int, int], mask: NDArray[np.bool_]
) -> None:
    """Add a mask at a place of the image to one whose corner is (top, left)."""
    rows, columns = np.nonzero(mask)
    rows, columns = rows + place[0] - top, columns + place[1] - left
    kept = (rows >= 0) & (rows < onto.shape[0]) & (columns >= 0) & (columns < onto.shape[1])
    onto[rows[kept], columns[kept]] = True


def with_clumps(regions: Sequence[CellRegion], shape: tuple[int, int]) -> tuple[CellRegion, ...]:
    """The cells, those flagged that share a pixel or a border with another one."""
    covered = np.zeros((shape[0] + 2, shape[1] + 2), np.uint8)  # a rim of one pixel all round
    for region in regions:
        window = covered[_window(region)]
        np.add(window, 1, out=window, where=_dilated(region.cell_mask) & (window < 255))
    return tuple(
        replace(region, cell=replace(region.cell, in_clump=True))
        if (covered[_window(region)][1:-1, 1:-1][region.cell_mask] > 1).any()
        else region
        for region in regions
    )


def _window(region: CellRegion) -> tuple[slice, slice]:
    cell = region.cell
    return (
        slice(cell.top_px, cell.top_px + cell.height_px + 2),
        slice(cell.left_px, cell.left_px + cell.width_px + 2),
    )


def _dilated(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask with a rim of one pixel, its four neighbours added."""
    wide = np.pad(mask, 1)
    grown = wide.copy()
    grown[1:] |= wide[:-1]
    grown[:-1] |= wide[1:]
    grown[:, 1:] |= wide[:, :-1]
    grown[:, :-1] |= wide[:, 1:]
    return grown
