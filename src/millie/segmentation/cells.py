"""Cells: the cytoplasm around each nucleus, in full-resolution pixels, with flags and quality.

Owns the outline of the cell body, the exact outlines at full resolution, and the border and clump
flags. What kind of object it is (leukocyte, platelet, smudge) is judged in ``objects``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from millie.segmentation import contours
from millie.segmentation.contours import Nucleus
from millie.segmentation.objects import describe, leukocyte_odds, smudge_odds
from millie.types import Cell, CellRegion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from millie.config import SegmentationConfig
    from millie.segmentation.nuclei import NucleusMap
    from millie.segmentation.stain import StainMap

_MARGIN_UM = 0.5  # of the window around a nucleus
_TOUCHING_RAYS = 2  # that end at another leukocyte: about 2 um of the outline
_FRACTION_BITS = 4  # of corners, in pixels
_FRACTION = 1 << _FRACTION_BITS
_PRESUMED = 1.5  # log odds for a leukocyte where the scale rests on one being there
_EDGE = 0.9  # of the level of pieces: people draw a nucleus around its edge, not along it


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """One cell at the working resolution.

    Attributes:
        nucleus: its nucleus.
        body: float64 (A, 2), corners (x, y) of the outline of nucleus and cytoplasm.
        touches: the body ends where another leukocyte's begins.
    """

    nucleus: Nucleus
    body: NDArray[np.float64]
    touches: bool


def cells_of(
    stain: StainMap,
    nuclei: NucleusMap,
    shape: tuple[int, int],
    um_px: float,
    config: SegmentationConfig,
    *,
    guessed: bool = False,
) -> list[CellRegion]:
    """Make a region of every nucleus that is a leukocyte's.

    Args:
        stain: at the working resolution; ``nuclei`` too.
        nuclei: from :func:`millie.segmentation.nuclei.find_nuclei`.
        shape: (H, W) of the full-resolution image.
        um_px: of the full-resolution image.
        config: ``min_nucleus_um2`` and ``drop_border`` are used.
        guessed: the scale is, from the leukocyte that is taken to be in view.

    Returns:
        Regions ordered by (top, left).
    """
    work_um = um_px * shape[1] / stain.score.shape[1]
    found = candidates(nuclei, work_um, config.min_nucleus_um2)
    if not found:
        return []
    features = np.array([describe(one.window, one.mask, stain, work_um) for one in found])
    odds = leukocyte_odds(features) + (_PRESUMED if guessed else 0.0)
    kept = np.flatnonzero(odds > 0).tolist()
    regions = []
    for k, outline in zip(kept, outlines(stain, [found[k] for k in kept], work_um), strict=True):
        verdict = float(odds[k]), smudge_odds(features[k])
        region = _region(outline, stain, nuclei, shape, um_px, verdict)
        if region and not (config.drop_border and region.cell.at_border):
            regions.append(region)
    return sorted(regions, key=lambda r: (r.cell.top_px, r.cell.left_px))


def candidates(nuclei: NucleusMap, work_um: float, min_um2: float) -> list[Nucleus]:
    """Every nucleus of at least ``min_um2``."""
    height, width = nuclei.labels.shape
    margin = round(_MARGIN_UM / work_um) + 2
    found = []
    for label, (top, bottom, left, right) in nuclei.boxes(min_um2 / work_um**2):
        window = (
            slice(max(top - margin, 0), min(bottom + margin, height)),
            slice(max(left - margin, 0), min(right + margin, width)),
        )
        found.append(Nucleus(window, np.equal(nuclei.labels[window], label)))
    return found


def outlines(stain: StainMap, found: list[Nucleus], work_um: float) -> list[Outline]:
    """The bodies around nuclei."""
    if not found:
        return []
    rays = contours.cast(stain, found, work_um)
    lines = contours.closed_lines(contours.costs(rays))
    bodies = contours.corners(rays, lines, work_um)
    at_end = rays.foreign & (lines >= rays.end - 1)
    touching = np.asarray(at_end.sum(axis=1)) >= _TOUCHING_RAYS
    return [Outline(nucleus, bodies[k], bool(touching[k])) for k, nucleus in enumerate(found)]


def _region(
    outline: Outline,
    stain: StainMap,
    nuclei: NucleusMap,
    shape: tuple[int, int],
    um_px: float,
    odds: tuple[float, float],
) -> CellRegion | None:
    """Redraw a cell at full resolution; None if nothing of it is left."""
    scale = np.array([shape[1], shape[0]]) / stain.score.shape[::-1]
    nucleus, corner = _nucleus(outline.nucleus, stain, nuclei, shape)
    body = (outline.body + 0.5) * scale - 0.5
    low = np.minimum(np.floor(body.min(axis=0)), corner).clip(0).astype(int)
    high = np.maximum(np.ceil(body.max(axis=0)) + 1, np.add(corner, nucleus.shape[::-1]))
    high = high.clip(max=(shape[1], shape[0])).astype(int)
    canvas = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    exact = np.rint((body - low) * _FRACTION).astype(np.int32)
    cv2.fillPoly(canvas, [exact], 1, shift=_FRACTION_BITS)
    x, y = corner - low
    canvas[y : y + nucleus.shape[0], x : x + nucleus.shape[1]] |= nucleus
    left, top, width, height = cv2.boundingRect(canvas)
    if width == 0:
        return None
    filled = canvas[top : top + height, left : left + width].copy()
    inner = cv2.copyMakeBorder(
        nucleus, y, canvas.shape[0] - y - nucleus.shape[0], x,
        canvas.shape[1] - x - nucleus.shape[1], cv2.BORDER_CONSTANT,
    )[top : top + height, left : left + width]  # fmt: skip
    place = int(low[0]) + left, int(low[1]) + top
    cell = _cell(filled.view(np.bool_), place, shape, um_px, outline.touches, odds)
    return CellRegion(cell, filled.view(np.bool_), inner.copy().view(np.bool_))


def _nucleus(
    found: Nucleus, stain: StainMap, nuclei: NucleusMap, shape: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A nucleus at full resolution, 0 and 1, and its window's corner (x, y)."""
    rows, columns = found.window
    height, width = stain.score.shape
    y0, x0 = round(rows.start * shape[0] / height), round(columns.start * shape[1] / width)
    y1, x1 = round(rows.stop * shape[0] / height), round(columns.stop * shape[1] / width)
    near = cv2.dilate(found.mask.view(np.uint8), np.ones((3, 3), np.uint8)) > 0
    near &= ~((nuclei.labels[found.window] > 0) & ~found.mask)
    margin = stain.score[found.window] - _EDGE * nuclei.level[found.window]
    margin = np.where(near, margin, -0.1).astype(np.float32)
    margin[found.mask] = np.maximum(margin[found.mask], 0.01)
    size = (max(x1 - x0, 1), max(y1 - y0, 1))
    nucleus = cv2.resize(margin, size, interpolation=cv2.INTER_LINEAR) > 0
    return nucleus.view(np.uint8), np.array([x0, y0])


def _cell(
    body: NDArray[np.bool_],
    corner: tuple[int, int],
    shape: tuple[int, int],
    um_px: float,
    touches: bool,  # noqa: FBT001  a flag of the cell, not a switch
    odds: tuple[float, float],
) -> Cell:
    left, top = corner
    height, width = body.shape
    across, down = (
        np.asarray(cv2.reduce(body.view(np.uint8), k, cv2.REDUCE_SUM, dtype=cv2.CV_32S)).ravel()
        for k in (0, 1)
    )
    area = float(across.sum())
    at_border = left == 0 or top == 0 or left + width == shape[1] or top + height == shape[0]
    leukocyte, smudge = (1 / (1 + math.exp(-min(max(value, -30), 30))) for value in odds)
    return Cell(
        source=0,
        x_px=left + float(across @ np.arange(width)) / area,
        y_px=top + float(down @ np.arange(height)) / area,
        left_px=left,
        top_px=top,
        width_px=width,
        height_px=height,
        area_px=area,
        area_um2=area * um_px**2,
        quality=round(leukocyte * (1 - 0.7 * smudge) * (0.5 if at_border else 1.0), 3),
        at_border=at_border,
        in_clump=touches,
        smudge=smudge > 0.5,
    )
