"""Shapes and textures in micrometres: signed distances on a grid, filtered noise.

Owns geometry that knows neither dyes nor kinds of cells. A signed distance is negative inside a
shape and given in um; :func:`coverage` turns it into an anti-aliased mask.

Source: signed distances and the polynomial smooth minimum after J. C. Hart, Sphere tracing, The
Visual Computer 12 (1996) 527, and I. Quilez, Smooth minimum (2013).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Plane = NDArray[np.float32]
    Point = tuple[float, float]

NOISE_TILE_PX = 448
"""Side of a noise tile: larger than the patch of the largest cell at the drawing scale."""


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Coordinates of a square patch, origin in its centre.

    Attributes:
        x: float32 (H, W), um to the right.
        y: float32 (H, W), um downwards.
        um_px: um per pixel of the patch.
    """

    x: Plane
    y: Plane
    um_px: float

    def warped(self, dx: Plane, dy: Plane) -> Grid:
        """Grid with displaced coordinates (um): shapes on it come out organic."""
        return Grid(self.x + dx, self.y + dy, self.um_px)


def square_grid(side_px: int, um_px: float) -> Grid:
    """Grid of side_px x side_px pixels."""
    axis = (np.arange(side_px, dtype=np.float32) - np.float32((side_px - 1) / 2)) * np.float32(
        um_px
    )
    x, y = np.meshgrid(axis, axis)
    return Grid(x, y, um_px)


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """Tiles of smooth noise, mean 0 and standard deviation 1, by the size of their grain.

    Attributes:
        broad: grain of about 5 um (outlines, mottling).
        coarse: about 1.4 um (clumps of ripe chromatin).
        fine: about 0.5 um (chromatin of blasts, granular cytoplasm).
    """

    broad: Plane
    coarse: Plane
    fine: Plane

    def take(self, tile: Plane, grid: Grid, rng: np.random.Generator) -> Plane:
        """A random window of a tile, of the grid's shape, randomly turned and mirrored."""
        side = grid.x.shape[0]
        top, left = (int(v) for v in rng.integers(0, tile.shape[0] - side + 1, 2))
        window = tile[top : top + side, left : left + side]
        window = np.rot90(window, int(rng.integers(4)))
        return window[::-1] if rng.random() < 0.5 else window


def draw_noise(um_px: float, rng: np.random.Generator) -> Noise:
    """Filtered noise for patches of ``um_px`` um per pixel."""
    return Noise(*(_tile(sigma_um / um_px, rng) for sigma_um in (1.6, 0.42, 0.15)))


def _tile(sigma_px: float, rng: np.random.Generator) -> Plane:
    white = rng.standard_normal((NOISE_TILE_PX, NOISE_TILE_PX), dtype=np.float32)
    smooth = np.asarray(cv2.GaussianBlur(white, (0, 0), sigma_px), dtype=np.float32)
    return np.asarray((smooth - smooth.mean()) / smooth.std(), dtype=np.float32)


def coverage(distance: Plane, edge_um: float) -> Plane:
    """Mask 0 to 1 of a signed distance, with a smooth edge ``edge_um`` wide."""
    t = np.clip(np.float32(0.5) - distance / np.float32(edge_um), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def ellipse(grid: Grid, centre: Point, axes_um: Point, angle: float = 0.0) -> Plane:
    """Distance to an ellipse with half axes ``axes_um`` turned by ``angle`` radians.

    Exact on the outline, approximate away from it.
    """
    a, b = axes_um
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = grid.x - np.float32(centre[0]), grid.y - np.float32(centre[1])
    along, across = (c * dx + s * dy) / np.float32(a), (c * dy - s * dx) / np.float32(b)
    reach = np.sqrt(along * along + across * across)
    return np.asarray((reach - 1) * np.float32(np.sqrt(a * b)), dtype=np.float32)


def capsule(grid: Grid, start: Point, end: Point, radius_um: float) -> Plane:
    """Distance to a rod with round ends."""
    dx, dy = grid.x - np.float32(start[0]), grid.y - np.float32(start[1])
    ex, ey = end[0] - start[0], end[1] - start[1]
    length2 = max(ex * ex + ey * ey, 1e-9)
    t = np.clip((dx * np.float32(ex) + dy * np.float32(ey)) / np.float32(length2), 0, 1)
    rx, ry = dx - t * np.float32(ex), dy - t * np.float32(ey)
    away = np.sqrt(rx * rx + ry * ry) - np.float32(radius_um)
    return np.asarray(away, dtype=np.float32)


def polyline(grid: Grid, points: Sequence[Point], radius_um: float) -> Plane:
    """Distance to a thick line through the points."""
    result = capsule(grid, points[0], points[1], radius_um)
    for start, end in pairwise(points[1:]):
        result = np.minimum(result, capsule(grid, start, end, radius_um))
    return result


def join(first: Plane, second: Plane, blend_um: float) -> Plane:
    """Union of two shapes whose meeting edge is rounded over ``blend_um``."""
    k = np.float32(max(blend_um, 1e-3))
    h = np.clip(k - np.abs(first - second), 0, None) / k
    joined = np.minimum(first, second) - h * h * k * np.float32(0.25)
    return np.asarray(joined, dtype=np.float32)


def cut(shape: Plane, tool: Plane, blend_um: float) -> Plane:
    """``shape`` without ``tool``, the edge rounded over ``blend_um``."""
    return -join(-shape, tool, blend_um)


def specks(
    grid: Grid, points: NDArray[np.float64], weights: NDArray[np.float64], sigma_um: float
) -> Plane:
    """Sum of Gaussian spots of standard deviation ``sigma_um`` whose peaks are the weights.

    Args:
        grid: the patch.
        points: (n, 2) x, y in um.
        weights: (n,) peak heights.
        sigma_um: never narrower than 0.45 px in the result, total amount kept.
    """
    side = grid.x.shape[0]
    sigma_px = max(sigma_um / grid.um_px, 0.45)
    peak = weights * 2 * np.pi * (sigma_um / grid.um_px) ** 2
    place = points / grid.um_px + (side - 1) / 2
    corner = np.floor(place).astype(np.int64)
    part = place - corner
    impulses = np.zeros((side + 2, side + 2), dtype=np.float32)
    corner = np.clip(corner, -1, side) + 1
    for ox, oy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        share = np.abs(1 - ox - part[:, 0]) * np.abs(1 - oy - part[:, 1])
        column, row = np.minimum(corner + np.array([ox, oy]), side + 1).T
        np.add.at(impulses, (row, column), peak * share)
    blurred = cv2.GaussianBlur(impulses, (0, 0), sigma_px)[1:-1, 1:-1]
    return np.asarray(blurred, dtype=np.float32)


def scatter(mask: Plane, grid: Grid, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """``n`` random points (n, 2), um, where ``mask`` exceeds one half; none if that is nowhere."""
    inside = np.flatnonzero(mask > 0.5)
    if n < 1 or inside.size == 0:
        return np.zeros((0, 2))
    rows, columns = np.divmod(rng.choice(inside, n), mask.shape[1])
    offsets = rng.uniform(-0.5, 0.5, (n, 2)) * grid.um_px
    return np.stack([grid.x[rows, columns], grid.y[rows, columns]], axis=1) + offsets


def pack(mask: Plane, grid: Grid, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """About ``n`` points (k, 2), um, side by side where ``mask`` exceeds one half."""
    area_um2 = float(np.count_nonzero(mask > 0.5)) * grid.um_px**2
    if n < 1 or area_um2 == 0:
        return np.zeros((0, 2))
    step = float(np.sqrt(area_um2 / n * 2 / np.sqrt(3)))
    half = mask.shape[0] * grid.um_px / 2
    x, y = np.meshgrid(np.arange(-half, half, step), np.arange(-half, half, step * np.sqrt(3) / 2))
    x[1::2] += step / 2
    points = np.stack([x.ravel(), y.ravel()], axis=1) + rng.normal(0, 0.16 * step, (x.size, 2))
    cells = np.floor((points + half) / grid.um_px).astype(np.int64)
    inside = np.all((cells >= 0) & (cells < mask.shape[0]), axis=1)
    points, cells = points[inside], cells[inside]
    return np.asarray(points[mask[cells[:, 1], cells[:, 0]] > 0.5])
