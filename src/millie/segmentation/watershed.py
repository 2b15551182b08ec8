"""Watershed: a mask divided between seeds along the valleys of its distance map.

OpenCV's and SciPy's own watersheds follow differences between neighbours instead of levels and
leave straight artefacts on smooth maps; this one floods level by level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WINDOW = np.ones((3, 3), np.uint8)


def flood(
    seeds: NDArray[np.int32], distance: NDArray[np.float32], mask: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Grow seeds over a mask, from the highest level of the distance map down.

    Args:
        seeds: int32 (H, W), 0 is none.
        distance: float32 (H, W), higher inside objects; levels are whole numbers.
        mask: bool (H, W); parts of it that hold no seed stay 0.

    Returns:
        int32 (H, W): the seed that each pixel of the mask belongs to.

    Source:
        Beucher and Meyer 1993, watershed by immersion.
    """
    narrow = np.uint8 if seeds.max(initial=0) <= np.iinfo(np.uint8).max else np.uint16
    labels = np.where(mask, seeds, 0).astype(narrow)  # both are types that dilate takes
    free = (mask & (labels == 0)).astype(narrow)
    for level in range(int(distance.max(initial=0)), 0, -1):
        open_now = free * (distance >= level)
        for _ in range(2):
            if not open_now.any():
                break
            _grow(labels, open_now)
        free *= labels == 0
    while free.any() and _grow(labels, free):
        pass
    return labels.astype(np.int32)


def _grow(labels: NDArray[Any], free: NDArray[Any]) -> bool:
    """Grow labels by one pixel over free places (1; else 0), both in place; whether any did."""
    grown = cv2.dilate(labels, _WINDOW)
    grown *= free
    labels |= grown
    free *= grown == 0
    return bool(grown.any())
