"""Statistics and label maps without passes over pixels that hold nothing.

Owns what NumPy and SciPy do as well but many times slower on the sizes met here: one quantile of
a few thousand numbers, and the pixels of each label of a map that is mostly 0; and which parts of
such a map are worth a look.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MANY = 2000  # boxes beyond which comparing each with each takes more than it saves


def quantile(values: NDArray[Any], share: float) -> float:
    """The same as ``numpy.quantile`` of a one-dimensional array, interpolated linearly.

    Args:
        values: not empty.
        share: 0 to 1.
    """
    place = share * (len(values) - 1)
    low = int(place)
    if low + 1 >= len(values):
        return float(values.max())
    if values.dtype == np.uint8:
        upto = np.bincount(values, minlength=256).cumsum()
        below, above = (float(k) for k in np.searchsorted(upto, (low, low + 1), side="right"))
        return below + (place - low) * (above - below)
    parted = np.partition(values, low)  # two places at once take ten times as long
    below, above = float(parted[low]), float(parted[low + 1 :].min())
    return below + (place - low) * (above - below)


def picked(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """The same as ``values[mask]`` for a mask of as many dimensions, or of all but the last.

    NumPy's own takes several times as long where the mask is finely mottled.
    """
    flat = values.reshape(mask.size, *values.shape[mask.ndim :])
    return flat if mask.all() else flat.compress(mask.ravel(), axis=0)


@dataclass(frozen=True, slots=True, eq=False)
class LabelPixels:
    """The pixels of a label map, sorted by label.

    Attributes:
        labels: int64 (n,), those that occur, rising.
        starts: int64 (n + 1,), where each label's pixels begin, and the end.
        rows: int64 (pixels,).
        columns: int64 (pixels,).
    """

    labels: NDArray[np.int64]
    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    def boxes(self) -> NDArray[np.int64]:
        """int64 (n, 4): top, bottom, left, right of each label, ends exclusive."""
        first = self.starts[:-1]
        if len(first) == 0:
            return np.zeros((0, 4), np.int64)
        edges = [
            np.minimum.reduceat(self.rows, first),
            np.maximum.reduceat(self.rows, first) + 1,
            np.minimum.reduceat(self.columns, first),
            np.maximum.reduceat(self.columns, first) + 1,
        ]
        return np.stack(edges, axis=1)


def pixels_by_label(labels: NDArray[np.int32]) -> LabelPixels:
    """Sort the pixels of a map that are not 0 by their label."""
    places = np.flatnonzero(labels > 0)
    values = labels.ravel()[places]
    if len(values) and values.max() <= np.iinfo(np.uint16).max:
        order = np.argsort(values.astype(np.uint16), kind="stable")  # a radix sort
    else:
        order = np.argsort(values, kind="stable")
    places, values = places[order], values[order]
    rows, columns = np.divmod(places, labels.shape[1])
    starts = np.flatnonzero(np.diff(values, prepend=0) > 0)
    ends = np.append(starts, len(values))
    return LabelPixels(values[starts].astype(np.int64), ends, rows, columns)


def crowded(
    boxes: NDArray[np.int64], reach_px: float, margin_px: float, shape: tuple[int, ...]
) -> list[tuple[slice, slice]]:
    """The parts of a map where boxes lie near others, as few pixels as that takes.

    Args:
        boxes: int64 (n, 4): top, bottom, left, right of each, ends exclusive.
        reach_px: gap along rows and along columns below which two are near.
        margin_px: around them.
        shape: (H, W) of the map.

    Returns:
        Slices (rows, columns); they may overlap, but no two boxes in different parts are near.
    """
    if len(boxes) < 2:
        return []
    if len(boxes) > _MANY:
        return [_window(boxes, math.ceil(margin_px), shape)]
    gaps = [boxes[:, None, k] - boxes[None, :, k + 1] for k in (0, 2)]
    apart = np.maximum(np.maximum(gaps[0], gaps[0].T), np.maximum(gaps[1], gaps[1].T))
    _, crowd_of = connected_components(apart < reach_px, directed=False)
    crowds = [np.flatnonzero(crowd_of == k) for k in np.flatnonzero(np.bincount(crowd_of) > 1)]
    margin = math.ceil(margin_px)
    windows = [_window(boxes[crowd], margin, shape) for crowd in crowds]
    if len(windows) < 2:
        return windows
    whole = _window(boxes[np.concatenate(crowds)], margin, shape)
    return windows if sum(map(_size, windows)) < _size(whole) else [whole]


def _window(boxes: NDArray[np.int64], margin: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The part of a map that holds boxes and a margin."""
    (top, left), (bottom, right) = boxes[:, ::2].min(axis=0), boxes[:, 1::2].max(axis=0)
    return (
        slice(max(int(top) - margin, 0), min(int(bottom) + margin, shape[0])),
        slice(max(int(left) - margin, 0), min(int(right) + margin, shape[1])),
    )


def _size(window: tuple[slice, slice]) -> int:
    rows, columns = window
    return int((rows.stop - rows.start) * (columns.stop - columns.start))
