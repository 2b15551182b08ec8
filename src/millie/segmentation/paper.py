"""The two published segmentations, kept for reproduction: the paper's text and its released code.

The text is Manescu et al., Scientific Reports 13:2562 (2023), Methods "Cell segmentation": HSV,
Otsu threshold on saturation, binary opening, watershed, removal of small blobs. It leaves every
size open. The code is ``code/segment_wbcs.py`` of github.com/UCL/FASt-MAL-MOFF, which fixes them
for ALL-IDB1 at its native 1712 to 2592 px. Both work in native pixels, know no scale and find red
cells as readily as leukocytes: use the default method for anything else.

Left out as errors of the code: the background is cropped as a "cell"; where nothing passes the
threshold the whole image is one, because every pixel of an empty distance map is its maximum.
Kept, though they look unintended: the "sure background" is eroded where it should be dilated, so
that a cell loses a rim of 4 px or more, and one nucleus is cut into as many cells as it has seeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy.ndimage import find_objects

from millie.types import Cell, CellRegion, Detection

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from millie.config import SegmentationConfig
    from millie.types import PixelSize

_FIXED_THRESHOLD = 127  # of the inverted saturation, 0 to 255
_SMALL_BLOB_PX = 2500  # before the opening
_SMALL_CELL_PX = 1000  # after the watershed; in the code the step is there but switched off
_H_MAXIMA_PX = 1.0  # depth below which two maxima are one
_ROUNDING = 1e-5  # of float32 differences between distances
_TWICE, _THREE_TIMES = np.ones((9, 9), np.uint8), np.ones((13, 13), np.uint8)
"""Squares that do at once what the code's 5 x 5 does in two and three steps."""


def segment_paper(
    image: NDArray[np.uint8], pixel_size: PixelSize | None, config: SegmentationConfig
) -> Detection:
    """Segment as the paper's text states; sizes, which it leaves open, are those of the code.

    Args:
        image: uint8 RGB (H, W, 3).
        pixel_size: only used to give areas in um2.
        config: ``drop_border`` is used.

    Returns:
        Cells whose nucleus and cell masks are the same blob.
    """
    saturation = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[:, :, 1]
    level, mask = cv2.threshold(saturation, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    labels = _divided(image, np.asarray(mask, dtype=np.uint8))
    return _detection(
        image, _without_small(labels, _SMALL_CELL_PX), pixel_size, config, float(level)
    )


def segment_released_code(
    image: NDArray[np.uint8], pixel_size: PixelSize | None, config: SegmentationConfig
) -> Detection:
    """Segment as the published code does, the errors named above left out.

    It differs from the text: the saturation is blurred, the threshold is fixed, and small blobs
    are removed before the opening instead of at the end. Arguments and result are those of
    :func:`segment_paper`.
    """
    inverted = cv2.bitwise_not(cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[:, :, 1])
    stained = cv2.GaussianBlur(inverted, (5, 5), 0) <= _FIXED_THRESHOLD
    _, blobs = cv2.connectedComponents(stained.astype(np.uint8), connectivity=8)
    mask = (_without_small(np.asarray(blobs, dtype=np.int32), _SMALL_BLOB_PX) > 0).astype(np.uint8)
    return _detection(image, _divided(image, mask), pixel_size, config, float(_FIXED_THRESHOLD))


def _divided(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Open a mask and flood its distance map's maxima over the image; 0 is background."""
    opened = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, _TWICE), dtype=np.uint8)
    distance = np.asarray(cv2.distanceTransform(opened, cv2.DIST_L2, 5), dtype=np.float32)
    maxima = h_maxima(distance, _H_MAXIMA_PX).astype(np.uint8)
    seeds = np.asarray(cv2.dilate(maxima, _THREE_TIMES), dtype=np.uint8)
    markers = np.asarray(cv2.connectedComponents(seeds)[1], dtype=np.int32) + 1
    markers[(cv2.erode(opened, _TWICE) > 0) & (seeds == 0)] = 0
    found = cv2.watershed(image[:, :, ::-1].copy(), markers) > 1
    _, labels = cv2.connectedComponents(found.astype(np.uint8), connectivity=8)
    return np.asarray(labels, dtype=np.int32)


def h_maxima(heights: NDArray[np.float32], depth: float) -> NDArray[np.bool_]:
    """Maxima that no path reaches from a higher place without going down by ``depth`` or more.

    Args:
        heights: float32 (H, W), not negative; 0 is ground, which parts what stands on it.
        depth: greater than 0; a maximum of less than that is none.

    Returns:
        bool (H, W): the highest pixels of each.

    Source:
        Vincent 1993, grey-level reconstruction by dilation.
    """
    ground = (heights > 0).astype(np.uint8)
    n, labels, stats, _ = cv2.connectedComponentsWithStats(ground, connectivity=8)
    found = np.zeros(heights.shape, np.bool_)
    for label in range(1, n):
        left, top, width, height = (int(v) for v in stats[label, :4])
        window = np.s_[top : top + height, left : left + width]
        own = np.where(labels[window] == label, heights[window], 0).astype(np.float32)
        flooded = _reconstruction(own - np.float32(depth), own)
        found[window] |= (own > 0) & (own - flooded >= depth - _ROUNDING)
    return found


def _reconstruction(seed: NDArray[np.float32], under: NDArray[np.float32]) -> NDArray[np.float32]:
    current = np.maximum(seed, 0)
    window = np.ones((3, 3), np.uint8)
    while True:
        grown = np.minimum(cv2.dilate(current, window), under)
        if np.array_equal(grown, current):
            return current
        current = np.asarray(grown, dtype=np.float32)


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
    threshold: float,
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
    facts = {"threshold": threshold, "scale_source": "given" if pixel_size else "not used"}
    return Detection(tuple(regions), pixel_size, (red, green, blue), facts)


def _regions(labels: NDArray[np.int32], pixel_size: PixelSize | None) -> list[CellRegion]:
    height, width = labels.shape
    found = []
    for label, box in enumerate(find_objects(labels), start=1):
        if box is None:
            continue
        mask = labels[box] == label
        top, bottom, left, right = box[0].start, box[0].stop, box[1].start, box[1].stop
        rows, columns = np.nonzero(mask)
        area = float(len(rows))
        edge = top <= 1 or left <= 1 or bottom >= height - 1 or right >= width - 1
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
            at_border=edge,  # the watershed keeps the outermost pixel to itself
        )
        found.append(CellRegion(cell, mask, mask.copy()))
    return found
