"""Cells that somebody drew, in the place of those that segmentation found.

Owns what is still taken from segmentation: scale, background, the refusal of what is no film, and
the nuclei within outlines that came without.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from millie.readers.content import sha256_of
from millie.readers.outlines import read_outlines
from millie.types import CellRegion, Detection

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from millie.config import ReadingConfig
    from millie.types import Field


def drawn_cells(
    found: Detection, field: Field, path: Path, config: ReadingConfig
) -> tuple[Detection, tuple[str, ...]]:
    """What was found in an image, with the cells of a file of outlines; and notes on that file.

    Raises:
        DataError: the file cannot be used.
    """
    shape = field.image.shape[0], field.image.shape[1]
    drawn, notes = read_outlines(path, field.source.name, shape, config, field.place)
    notes = notes if field.place is None else ()  # those of a slide are told with its first field
    regions = tuple(_scaled(_with_nucleus(region, found.regions), found) for region in drawn)
    diagnostics = {**found.diagnostics, "outlines_sha256": sha256_of(path.read_bytes())}
    return replace(found, regions=regions, diagnostics=diagnostics), notes


def _with_nucleus(region: CellRegion, found: Sequence[CellRegion]) -> CellRegion:
    """The cell with the nucleus that was drawn, else with what was found of nuclei inside it."""
    if region.nucleus_mask.any():
        return region
    nucleus = np.zeros_like(region.cell_mask)
    cell = region.cell
    for other in found:
        their = other.cell
        top, left = max(cell.top_px, their.top_px), max(cell.left_px, their.left_px)
        bottom = min(cell.top_px + cell.height_px, their.top_px + their.height_px)
        right = min(cell.left_px + cell.width_px, their.left_px + their.width_px)
        if top < bottom and left < right:
            here = np.s_[
                top - cell.top_px : bottom - cell.top_px, left - cell.left_px : right - cell.left_px
            ]
            there = np.s_[
                top - their.top_px : bottom - their.top_px,
                left - their.left_px : right - their.left_px,
            ]
            nucleus[here] |= other.nucleus_mask[there]
    return replace(region, nucleus_mask=nucleus & region.cell_mask)


def _scaled(region: CellRegion, found: Detection) -> CellRegion:
    """The cell with its area in square micrometres, where the scale is known."""
    if found.pixel_size is None:
        return region
    area_um2 = region.cell.area_px * found.pixel_size.um_px**2
    return replace(region, cell=replace(region.cell, area_um2=area_um2))
