"""The picture of a cell: a square window of a field, padded at borders, rescaled without aliasing.

Owns the geometry that image and mask of a crop share. It does not decide how large a crop is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from millie.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from millie.types import CellRegion


def crop_window(centre_xy: tuple[float, float], side_px: float) -> tuple[int, int, int]:
    """Left, top and side of the window in whole pixels, which crop and mask are cut from.

    Args:
        centre_xy: as for :func:`cut_crop`.
        side_px: as for :func:`cut_crop`.
    """
    side = max(1, round(side_px))
    left = int(np.floor(centre_xy[0] + 1.0 - side / 2))
    top = int(np.floor(centre_xy[1] + 1.0 - side / 2))
    return left, top, side


def cut_crop(
    image: NDArray[np.uint8],
    centre_xy: tuple[float, float],
    side_px: float,
    size_px: int,
    background_rgb: Sequence[int],
) -> NDArray[np.uint8]:
    """Cut a square window around a point and bring it to a fixed size.

    The window is moved to whole pixels (at most half a pixel), so that a window whose side equals
    the wanted size is an exact copy. What lies outside the image has the background's colour.

    Args:
        image: uint8 RGB (H, W, 3).
        centre_xy: (x, y) in pixels; pixel centres lie at whole numbers. May lie outside.
        side_px: side of the window in pixels of ``image``.
        size_px: side of the result in pixels.
        background_rgb: 3 values, 0 to 255.

    Returns:
        uint8 RGB (size_px, size_px, 3): averaged over areas when shrinking, linear when enlarging.

    Raises:
        ConfigError: a side is not positive.
    """
    _check_sides(side_px, size_px)
    left, top, side = crop_window(centre_xy, side_px)
    canvas = np.empty((side, side, 3), dtype=np.uint8)
    canvas[:] = np.asarray(background_rgb, dtype=np.uint8)
    _paste(canvas, image, left, top)
    return _resized(canvas, size_px)


def cut_mask(
    region: CellRegion,
    image_shape: tuple[int, int],
    centre_xy: tuple[float, float],
    side_px: float,
    size_px: int,
) -> NDArray[np.uint8]:
    """Cut the mask that belongs to :func:`cut_crop` with the same arguments.

    Args:
        region: the cell, with masks inside its box.
        image_shape: (H, W) of the field; what lies outside is 0.
        centre_xy: as for the crop.
        side_px: as for the crop.
        size_px: as for the crop.

    Returns:
        uint8 (size_px, size_px): 0 outside the cell, 1 cytoplasm, 2 nucleus.
    """
    _check_sides(side_px, size_px)
    left, top, side = crop_window(centre_xy, side_px)
    cell = region.cell
    height = min(cell.height_px, image_shape[0] - cell.top_px)
    width = min(cell.width_px, image_shape[1] - cell.left_px)
    parts = []
    for mask in (region.cell_mask, region.nucleus_mask):
        canvas = np.zeros((side, side), dtype=np.uint8)
        inside = mask[:height, :width].astype(np.uint8) * np.uint8(255)
        _paste(canvas, inside, left - cell.left_px, top - cell.top_px)
        parts.append(_resized(canvas, size_px) > 127)
    is_cell, is_nucleus = parts
    values = (is_cell | is_nucleus).astype(np.uint8)
    values[is_nucleus] = 2
    return values


def _check_sides(side_px: float, size_px: int) -> None:
    if side_px <= 0 or size_px <= 0:
        raise ConfigError(f"crop side {side_px} px, size {size_px} px: both must be positive")


def _paste(canvas: NDArray[np.uint8], source: NDArray[np.uint8], left: int, top: int) -> None:
    """Copy the part of ``source`` that the window at (left, top) covers."""
    side = canvas.shape[0]
    height, width = source.shape[:2]
    x0, x1 = max(left, 0), min(left + side, width)
    y0, y1 = max(top, 0), min(top + side, height)
    if x0 < x1 and y0 < y1:
        canvas[y0 - top : y1 - top, x0 - left : x1 - left] = source[y0:y1, x0:x1]


def _resized(canvas: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    side = canvas.shape[0]
    if side == size_px:
        return canvas
    how = cv2.INTER_AREA if side > size_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(canvas, (size_px, size_px), interpolation=how), dtype=np.uint8)
