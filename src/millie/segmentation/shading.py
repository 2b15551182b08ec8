"""Shading: the fall-off of the light towards the corners of a field.

Owns its measurement from the empty background and its removal; knows nothing of cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from millie.segmentation.quick import quantile

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
    places, values = [], []
    for rows in np.array_split(np.arange(height), _TILES):
        for columns in np.array_split(np.arange(width), _TILES):
            window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            pixels = density[window][valid[window]]
            if len(pixels) < 0.5 * len(rows) * len(columns):
                continue
            total = pixels[:, 0] + pixels[:, 1] + pixels[:, 2]
            low = quantile(total, 0.08)
            near = np.abs(total - low) < 0.08
            if not near.any():
                continue
            values.append(pixels[near].mean(axis=0) - background)
            places.append((columns.mean() / width * 2 - 1, rows.mean() / height * 2 - 1))
    return _fit(np.array(places), np.array(values)) if len(values) >= 20 else None


def spread(coefficients: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The surface as float32 (H, W, 3)."""
    line = (np.arange(_GRID) + 0.5) / _GRID * 2 - 1
    x, y = np.meshgrid(line, line)
    surface = (_design(np.column_stack([x.ravel(), y.ravel()])) @ coefficients).astype(np.float32)
    grid = surface.reshape(_GRID, _GRID, 3)
    size = (shape[1], shape[0])
    return np.asarray(cv2.resize(grid, size, interpolation=cv2.INTER_LINEAR), dtype=np.float32)


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
