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
    narrow = np.uint8 if seeds.max(initial=0) <= np.iinfo(np.uint8).max else np.float32
    labels: NDArray[Any] = np.where(mask, seeds, 0).astype(narrow)  # types that dilate takes
    free = mask & (labels == 0)
    for level in range(int(distance.max(initial=0)), 0, -1):
        open_now = free & (distance >= level)
        for _ in range(2):
            if not _grow(labels, open_now):
                break
        free &= labels == 0
    while _grow(labels, free):
        pass
    return labels.astype(np.int32)


def _grow(labels: NDArray[Any], free: NDArray[np.bool_]) -> bool:
    """Grow labels by one pixel over free places, both in place; whether any did."""
    if not free.any():
        return False
    grown = cv2.dilate(labels, _WINDOW)
    new = free & (grown > 0)
    np.copyto(labels, grown, where=new)
    np.logical_xor(free, new, out=free)
    return bool(new.any())
