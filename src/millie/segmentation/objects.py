"""Objects: is it a leukocyte, a platelet or debris, an intact cell or a smudge.

Owns the description of an object by size, contrast, texture, edge and surroundings, relative to its
own contrast or to red cells so that stain and exposure cancel, the verdict of the boosted trees
over it (``object_model``), and a logistic model for smudges. Both were trained by
``benchmarks/train_objects.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from millie.segmentation import object_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from millie.segmentation.stain import StainMap

FEATURES = (
    "log_nucleus_um2",
    "log_contrast",
    "texture",
    "edge",
    "solidity",
    "roundness",
    "surround",
    "fine_texture",
    "over_red_cells",
    "tint",
    "outskirts",
)
_RING_UM = 0.75
_LARGE_UM2 = 45.0  # a nucleus beyond it is no platelet, however it looks
_LARGE_GAIN = 8.0  # log odds for each natural unit of area beyond it
_NO_RED_CELLS = 0.9  # logarithm of a nucleus' density over red cells' where none are seen: typical
_OF_SMUDGES = slice(1, 8)  # features that a smudge is judged by: no size, nothing of red cells
_SMUDGE_WEIGHTS = np.array([-4.031, 0.635, -3.381, 9.653, -12.699, -6.957, -59.484])
_SMUDGE_BIAS = 9.686
_STRICTNESS = 1.90  # log odds that leave 2 % of the intact cells it learnt from flagged


def describe(
    window: tuple[slice, slice],
    nucleus: NDArray[np.bool_],
    stain: StainMap,
    work_um: float,
) -> NDArray[np.float64]:
    """Values of :data:`FEATURES` for one object.

    Args:
        window: where the object lies in the stain map.
        nucleus: bool, inside the window.
        stain: at the working resolution.
        work_um: um per pixel of that resolution.
    """
    side = 2 * max(1, round(_RING_UM / work_um)) + 1
    window, inner = _around(window, nucleus, side)
    nucleus = nucleus[inner]
    score, density = stain.score[window], stain.density[window]
    mask = nucleus.astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    core = cv2.erode(mask, disc, borderType=cv2.BORDER_REPLICATE) > 0
    core = core if np.count_nonzero(core) > 8 else nucleus
    ring = (cv2.dilate(mask, disc) > 0) & ~nucleus
    inside = score[core]
    level = max(float(inside.mean()), 1e-3)
    outside = float(score[ring].mean()) if ring.any() else 0.0
    around = float(density[ring].mean()) if ring.any() else 0.0
    smooth = cv2.blur(score, (3, 3))
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = np.concatenate(contours)
    hull = cv2.convexHull(outline)
    _, radius = cv2.minEnclosingCircle(hull)
    hull_area = cv2.contourArea(hull) + 0.5 * cv2.arcLength(hull, closed=True) + 1
    area = float(np.count_nonzero(nucleus))
    dense = max(float(density[core].mean()), 1e-3)
    wide = cv2.dilate(cv2.dilate(mask, disc), disc) > 0
    beyond = wide & ~nucleus & ~ring
    return np.array([
        np.log(area * work_um**2),
        np.log(level / stain.threshold),
        float(inside.std()) / level,
        (level - outside) / level,
        area / hull_area,
        area / (np.pi * (radius + 0.5) ** 2),
        around / dense,
        float(np.abs(score - smooth)[core].mean()) / level,
        np.log(dense / stain.red_cell_density) if stain.red_cell_density > 0 else _NO_RED_CELLS,
        level / dense,
        float(density[beyond].mean()) / dense if beyond.any() else 0.0,
    ])  # fmt: skip


def _around(
    window: tuple[slice, slice], nucleus: NDArray[np.bool_], margin: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of a window that holds the nucleus and a margin: in the map, in the window."""
    x, y, width, height = cv2.boundingRect(nucleus.view(np.uint8))
    parts = []
    for part, start, size in zip(window, (y, x), (height, width), strict=True):
        low, high = max(start - margin, 0), min(start + size + margin, part.stop - part.start)
        parts.append((slice(part.start + low, part.start + high), slice(low, high)))
    (rows, own_rows), (columns, own_columns) = parts
    return (rows, columns), (own_rows, own_columns)


def leukocyte_odds(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log odds that each object is a leukocyte, against platelets and debris.

    A large nucleus is kept, however it looks: a blast lost costs more than a platelet kept.

    Args:
        features: float64 (N, F), from :func:`describe`.

    Returns:
        float64 (N,).
    """
    large = np.maximum(features[:, 0] - np.log(_LARGE_UM2), 0.0)
    return np.asarray(object_model.evidence(features) + _LARGE_GAIN * large)


def smudge_odds(features: NDArray[np.float64]) -> float:
    """Log odds that a leukocyte is a smudge cell, moved towards intact by :data:`_STRICTNESS`.

    It was learnt from smudges marked in five fields and is a hint for a reader, not a count.
    """
    return float(features[_OF_SMUDGES] @ _SMUDGE_WEIGHTS + _SMUDGE_BIAS - _STRICTNESS)
