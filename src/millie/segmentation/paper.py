"""The two published segmentations, kept for reproduction: the paper's text and its released code.

Source: Manescu et al., Scientific Reports 13:2562 (2023), Methods "Cell segmentation": HSV, Otsu
threshold on saturation, binary opening, watershed, removal of small blobs. The text leaves sizes
open; the values taken here stand below with their reason. Both work in native pixels, know no
scale and find red cells as readily as leukocytes: use the default method for anything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from millie.segmentation.watershed import flood
from millie.types import Cell, CellRegion, Detection

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from millie.config import SegmentationConfig
    from millie.types import PixelSize

# Open in the text: the small blobs and the opening of the released code are taken for both.
_SMALL_BLOB_PX = 2500
_OPENING_PX = 9
_SEED_WINDOW_PX = 41  # open: two nuclei nearer than 20 px are one
_FIXED_THRESHOLD = 127  # released code, instead of Otsu
_H_MAXIMA_PX = 5.0  # released code: depth below which two maxima are one


def segment_paper(
    image: NDArray[np.uint8], pixel_size: PixelSize | None, config: SegmentationConfig
) -> Detection:
    """Segment as the paper's text states.

    Args:
        image: uint8 RGB (H, W, 3).
        pixel_size: only used to give areas in um2.
        config: ``drop_border`` is used.

    Returns:
        Cells whose nucleus and cell masks are the same blob.
    """
    saturation = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[:, :, 1]
    level, mask = cv2.threshold(saturation, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    mask = _opened(np.asarray(mask, dtype=np.uint8))
    distance = np.asarray(cv2.distanceTransform(mask, cv2.DIST_L2, 3), dtype=np.float32)
    window = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_SEED_WINDOW_PX, _SEED_WINDOW_PX))
    peaks = (cv2.dilate(distance, window) == distance) & (mask > 0)
    labels = _without_small(_watershed(mask, peaks, distance), _SMALL_BLOB_PX)
    return _detection(image, labels, pixel_size, config, {"threshold": float(level)})


def segment_released_code(
    image: NDArray[np.uint8], pixel_size: PixelSize | None, config: SegmentationConfig
) -> Detection:
    """Segment as the published code does, its cropped background component left out.

    It differs from the text: a fixed threshold of 127, small blobs removed before the opening
    instead of at the end, seeds from h-maxima.
    """
    saturation = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[:, :, 1]
    mask = (saturation > _FIXED_THRESHOLD).astype(np.uint8)
    parts = np.asarray(cv2.connectedComponents(mask, connectivity=4)[1], dtype=np.int32)
    mask = (_without_small(parts, _SMALL_BLOB_PX) > 0).astype(np.uint8)
    mask = _opened(mask)
    distance = np.asarray(cv2.distanceTransform(mask, cv2.DIST_L2, 3), dtype=np.float32)
    peaks = (distance - _reconstruction(distance - _H_MAXIMA_PX, distance)) > 0
    labels = _watershed(mask, peaks, distance)
    return _detection(image, labels, pixel_size, config, {"threshold": float(_FIXED_THRESHOLD)})


def _opened(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_OPENING_PX, _OPENING_PX))
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, disc), dtype=np.uint8)


def _reconstruction(seed: NDArray[np.float32], under: NDArray[np.float32]) -> NDArray[np.float32]:
    """Grey-level reconstruction by dilation (Vincent 1993), iterated until nothing changes."""
    current = np.maximum(seed, 0)
    window = np.ones((3, 3), np.uint8)
    while True:
        grown = np.minimum(cv2.dilate(current, window), under)
        if np.array_equal(grown, current):
            return current
        current = grown


def _watershed(
    mask: NDArray[np.uint8], peaks: NDArray[np.bool_], distance: NDArray[np.float32]
) -> NDArray[np.int32]:
    """Flood the distance map from the peaks; 0 is background."""
    _, seeds = cv2.connectedComponents(peaks.astype(np.uint8), connectivity=8)
    return flood(seeds.astype(np.int32), distance, mask > 0)


def _without_small(labels: NDArray[np.int32], least_px: int) -> NDArray[np.int32]:
    areas = np.bincount(labels.ravel())
    lookup = np.where(areas >= least_px, np.arange(len(areas)), 0).astype(np.int32)
    lookup[0] = 0
    return np.asarray(lookup[labels], dtype=np.int32)


def _detection(
    image: NDArray[np.uint8],
    labels: NDArray[np.int32],
    pixel_size: PixelSize | None,
    config: SegmentationConfig,
    diagnostics: dict[str, float],
) -> Detection:
    regions = [
        region
        for region in _regions(labels, pixel_size)
        if not (config.drop_border and region.cell.at_border)
    ]
    regions.sort(key=lambda r: (r.cell.top_px, r.cell.left_px))
    empty = image[labels == 0]
    colour = np.median(empty if len(empty) else image.reshape(-1, 3), axis=0)
    red, green, blue = (int(v) for v in colour)
    facts = {**diagnostics, "scale_source": "given" if pixel_size else "not used"}
    return Detection(tuple(regions), pixel_size, (red, green, blue), facts)


def _regions(labels: NDArray[np.int32], pixel_size: PixelSize | None) -> list[CellRegion]:
    height, width = labels.shape
    n_labels = int(labels.max(initial=0))
    found = []
    for label, box in enumerate(_boxes(labels, n_labels), start=1):
        if box is None:
            continue
        top, bottom, left, right = box
        mask = labels[top:bottom, left:right] == label
        rows, columns = np.nonzero(mask)
        area = float(len(rows))
        cell = Cell(
            source=0,
            x_px=left + float(columns.mean()),
            y_px=top + float(rows.mean()),
            left_px=left,
            top_px=top,
            width_px=right - left,
            height_px=bottom - top,
            area_px=area,
            area_um2=area * pixel_size.um_px**2 if pixel_size else None,
            at_border=top == 0 or left == 0 or bottom == height or right == width,
        )
        found.append(CellRegion(cell, mask, mask.copy()))
    return found


def _boxes(labels: NDArray[np.int32], n_labels: int) -> list[tuple[int, int, int, int] | None]:
    """(top, bottom, left, right) of each label from 1, None for labels that do not occur."""
    rows, columns = np.nonzero(labels)
    values = labels[rows, columns]
    low = np.full((n_labels + 1, 2), np.iinfo(np.int64).max)
    high = np.full((n_labels + 1, 2), -1)
    for axis, positions in enumerate((rows, columns)):
        np.minimum.at(low[:, axis], values, positions)
        np.maximum.at(high[:, axis], values, positions)
    return [
        (int(low[k, 0]), int(high[k, 0]) + 1, int(low[k, 1]), int(high[k, 1]) + 1)
        if high[k, 0] >= 0
        else None
        for k in range(1, n_labels + 1)
    ]
