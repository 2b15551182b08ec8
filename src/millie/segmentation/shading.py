"""Shading: the fall-off of the light towards the corners of a field.

Owns its measurement from the empty background and its removal; knows nothing of cells.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from millie.segmentation.quick import picked, quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TILES = 6
_LEAST = 0.06  # summed density of a fall-off worth removing
_MOST = 2.0
_OUTLIER = 0.12  # a tile so much darker than the surface holds no background
_GRID = 32


def fall_off(
    density: NDArray[np.float32], valid: NDArray[np.bool_], background: NDArray[np.float32]
) -> NDArray[np.float64] | None:
    """Quadratic surface of the background's density over the field.

    Args:
        density: float32 (H, W, 3), a thinned image is enough.
        valid: bool (H, W).
        background: float32 (3,), the field's typical background.

    Returns:
        float64 (6, 3): coefficients over x, y in -1 to 1, without a constant shift at the place
        where the background was measured; None where the light is even or cannot be measured.
    """
    height, width = valid.shape
    if min(height, width) < 8 * _TILES:
        return None
    total = density[:, :, 0] + density[:, :, 1] + density[:, :, 2]
    places, values = [], []
    for top, bottom in _parts(height):
        for left, right in _parts(width):
            window = np.s_[top:bottom, left:right]
            inside = valid[window]
            totals = picked(total[window], inside)
            if len(totals) < 0.5 * inside.size:
                continue
            near = np.abs(totals - quantile(totals, 0.08)) < 0.08
            if not near.any():
                continue
            values.append(picked(picked(density[window], inside), near).mean(axis=0) - background)
            places.append(((left + right - 1) / width - 1, (top + bottom - 1) / height - 1))
    return _fit(np.array(places), np.array(values)) if len(values) >= 20 else None


def _parts(length: int) -> list[tuple[int, int]]:
    """Ends of so many almost equal parts of a side."""
    return [(int(part[0]), int(part[-1]) + 1) for part in np.array_split(np.arange(length), _TILES)]


def spread(coefficients: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The surface as float32 (H, W, 3)."""
    surface = (_grid() @ coefficients).astype(np.float32)
    grid = surface.reshape(_GRID, _GRID, 3)
    size = (shape[1], shape[0])
    return np.asarray(cv2.resize(grid, size, interpolation=cv2.INTER_LINEAR), dtype=np.float32)


@cache
def _grid() -> NDArray[np.float64]:
    line = (np.arange(_GRID) + 0.5) / _GRID * 2 - 1
    x, y = np.meshgrid(line, line)
    return _design(np.column_stack([x.ravel(), y.ravel()]))


def _fit(places: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64] | None:
    design = _design(places)
    keep = np.ones(len(values), np.bool_)
    coefficients: NDArray[Any] = np.zeros((6, 3))
    for _ in range(5):
        coefficients, *_ = np.linalg.lstsq(design[keep], values[keep], rcond=None)
        residual = (values - design @ coefficients).sum(axis=1)
        keep = residual < _OUTLIER
        if keep.sum() < 14:
            return None
    height = (design @ coefficients).sum(axis=1)
    if not _LEAST < float(np.ptp(height)) < _MOST:
        return None
    return np.asarray(coefficients)


def _design(places: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = places.T
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
