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
    framed = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2), narrow)
    labels = framed[1:-1, 1:-1]
    np.copyto(labels, seeds, where=mask, casting="unsafe")
    free = _all_bits(mask & (labels == 0), narrow)
    heights = distance.astype(np.uint16)
    for level in range(int(heights.max(initial=0)), 0, -1):
        open_now = free & _all_bits(heights >= level, narrow)
        for _ in range(2):
            if not cv2.countNonZero(open_now):
                break
            _grow(framed, open_now)
        free &= _all_bits(labels == 0, narrow)
    while cv2.countNonZero(free) and _grow(framed, free):
        pass
    return labels.astype(np.int32)


def _all_bits(mask: NDArray[np.bool_], kind: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
    """All bits where a mask holds, else 0."""
    return np.negative(mask.view(np.uint8).astype(kind, copy=False))


def _grow(framed: NDArray[Any], free: NDArray[Any]) -> bool:
    """Grow labels by one pixel over free places, both in place; whether any did.

    Maxima of shifted maps take a quarter of the time of OpenCV's dilation at these sizes.

    Args:
        framed: (H + 2, W + 2), labels in a frame of 0; 0 as well where ``free`` is not.
        free: (H, W), all bits are set where it is free, else none.
    """
    wide = np.maximum(framed[:, :-2], framed[:, 2:])
    np.maximum(wide, framed[:, 1:-1], out=wide)
    grown = np.maximum(wide[:-2], wide[2:])
    np.maximum(grown, wide[1:-1], out=grown)
    grown &= free
    framed[1:-1, 1:-1] |= grown
    free &= _all_bits(grown == 0, free.dtype.type)
    return cv2.countNonZero(grown) > 0
