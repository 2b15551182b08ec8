"""Outlines of cells as rings in pixels of the full-resolution image, out of the masks of a bag.

Owns the way back from a crop to the image it was cut from; the window itself is segmentation's.
Rings run along the borders between pixels and never cross themselves: corners are cut, so that
pixels that meet at a corner do not touch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import contourpy
import numpy as np
from numpy.typing import NDArray

from millie.bags.store import BagReader
from millie.segmentation import crop_window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from millie.bags.store import BagMeta
    from millie.outputs.exports.samples import Sample
    from millie.types import Cell, SourceRecord

Ring = NDArray[np.float64]
"""(n, 2): x, y in px of the image, whose first pixel reaches from 0 to 1; last point = first."""
Outline = tuple[Ring, list[Ring]]
"""Outer ring of a cell, and those of the parts of its nucleus."""

_BATCH = 64
_DECIMALS = 2


def cell_outlines(sample: Sample) -> Iterator[Outline]:
    """Outline of each cell in the bag's order.

    A cell without a mask (a crop in which none could be outlined) has its box for a ring.
    """
    with BagReader(sample.bag) as bag:
        for start in range(0, bag.n_cells, _BATCH):
            masks = bag.masks(start, start + _BATCH)
            for cell, mask in zip(sample.cells[start : start + _BATCH], masks, strict=True):
                window = crop_place(cell, sample.sources[cell.source], sample.meta)
                outer = rings_of(mask > 0, *window)
                yield outer[0] if outer else box_ring(cell), rings_of(mask == 2, *window)


def crop_place(
    cell: Cell, source: SourceRecord, meta: BagMeta
) -> tuple[tuple[float, float], float]:
    """Left top corner of a cell's crop in its image, and pixels of the image per crop pixel.

    Cells of a whole slide were cut from a field; their corner is given in pixels of level 0.
    """
    place = source.place
    if place is not None:
        cell = place.in_field(cell)
    if meta.size_um == 0:
        side = float(meta.size_px)
    elif source.um_px is not None:
        side = meta.size_um / source.um_px
    else:  # a single-cell crop of unknown scale was taken whole
        side = float(max(source.height_px, source.width_px))
    left, top, whole = crop_window((cell.x_px, cell.y_px), side)
    scale = whole / meta.size_px
    if place is None:
        return (left, top), scale
    corner = (place.left_px + left * place.step, place.top_px + top * place.step)
    return corner, scale * place.step


def rings_of(mask: NDArray[np.bool_], corner_xy: tuple[float, float], scale: float) -> list[Ring]:
    """Outer rings of the parts of a mask, the largest first; holes are left out.

    Args:
        mask: bool (H, W).
        corner_xy: where the mask's left top corner lies in the image, px.
        scale: pixels of the image per pixel of the mask.
    """
    if not mask.any():
        return []
    padded = np.pad(mask, 1).astype(np.float64)
    lines = contourpy.contour_generator(z=padded, name="serial").lines(0.5)
    found = [np.asarray(line, np.float64) for line in lines]
    # Lines keep the higher side to their left: around parts they run one way, around holes the
    # other.
    parts = sorted((ring for ring in found if _area(ring) > 0), key=_area, reverse=True)
    # -1 for the padding, + 0.5 because a pixel's centre lies half a pixel inside it
    return [_thinned((ring - 0.5) * scale + corner_xy) for ring in parts]


def box_ring(cell: Cell) -> Ring:
    """A cell's box."""
    return rectangle(cell.left_px, cell.top_px, cell.width_px, cell.height_px)


def rectangle(left: float, top: float, width: float, height: float) -> Ring:
    """A closed ring around a rectangle."""
    right, bottom = left + width, top + height
    corners: Sequence[tuple[float, float]] = (
        (left, top), (right, top), (right, bottom), (left, bottom), (left, top),
    )  # fmt: skip
    return np.array(corners, np.float64)


def _area(ring: Ring) -> float:
    """Area of a ring, positive if it runs from x to y (clockwise on the screen)."""
    x, y = ring[:-1].T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


def _thinned(ring: Ring) -> Ring:
    """The same ring without points on straight lines; rounded far below half a pixel."""
    open_ring = ring[:-1]
    before, after = open_ring - np.roll(open_ring, 1, 0), np.roll(open_ring, -1, 0) - open_ring
    turns = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-9
    kept = np.round(open_ring[turns], _DECIMALS)
    return np.concatenate([kept, kept[:1]])
