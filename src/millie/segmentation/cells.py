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

from millie.segmentation.objects import describe, leukocyte_odds, smudge_odds
from millie.segmentation.stain import RED
from millie.types import Cell, CellRegion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from millie.config import SegmentationConfig
    from millie.segmentation.nuclei import NucleusMap
    from millie.segmentation.stain import StainMap

_CYTOPLASM_UM = 5.0  # reach of the cytoplasm from the nucleus
_CLUMP_UM = 1.0  # bodies nearer than that touch
_SMOOTH_UM = 0.8
_PRESUMED = 1.5  # log odds for a leukocyte where the scale rests on one being there
_EDGE = 0.9  # of the level of pieces: people draw a nucleus around its edge, not along it


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """One cell at the working resolution.

    Attributes:
        window: slices (rows, columns) of the map around it.
        nucleus: bool, inside the window.
        body: bool, nucleus and cytoplasm, inside the window.
        touches: another leukocyte's nucleus borders on the body.
        pieces: number of lobes.
    """

    window: tuple[slice, slice]
    nucleus: NDArray[np.bool_]
    body: NDArray[np.bool_]
    touches: bool
    pieces: int


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
    found = outlines(stain, nuclei, work_um, config.min_nucleus_um2)
    if not found:
        return []
    features = np.array([describe(o.window, o.nucleus, o.body, stain, work_um) for o in found])
    odds = leukocyte_odds(features) + (_PRESUMED if guessed else 0.0)
    regions = []
    for k in np.flatnonzero(odds > 0).tolist():
        verdict = float(odds[k]), smudge_odds(features[k])
        region = _region(found[k], stain, nuclei, shape, um_px, verdict)
        if region and not (config.drop_border and region.cell.at_border):
            regions.append(region)
    return sorted(regions, key=lambda r: (r.cell.top_px, r.cell.left_px))


def outlines(stain: StainMap, nuclei: NucleusMap, work_um: float, min_um2: float) -> list[Outline]:
    """Nucleus and body of every nucleus of at least ``min_um2``."""
    height, width = stain.score.shape
    reach = round(_CYTOPLASM_UM / work_um) + 2
    found = []
    for label, box in nuclei.boxes(min_um2 / work_um**2):
        top, bottom, left, right = box
        window = (
            slice(max(top - reach, 0), min(bottom + reach, height)),
            slice(max(left - reach, 0), min(right + reach, width)),
        )
        labels = nuclei.labels[window]
        nucleus = labels == label
        body, touches = _body(stain, window, nucleus, (labels > 0) & ~nucleus, work_um)
        found.append(Outline(window, nucleus, body, touches, len(nuclei.groups[label - 1])))
    return found


def _body(
    stain: StainMap,
    window: tuple[slice, slice],
    nucleus: NDArray[np.bool_],
    others: NDArray[np.bool_],
    work_um: float,
) -> tuple[NDArray[np.bool_], bool]:
    """The cell around a nucleus: stained, unlike a red cell, nearer to it than to any other."""
    away = cv2.distanceTransform((~nucleus).astype(np.uint8), cv2.DIST_L2, 3) * work_um
    density = stain.density[window]
    plasma = (density > stain.empty_below) & (away < _CYTOPLASM_UM) & (stain.kinds[window] != RED)
    touches = False
    if others.any():
        to_others = cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, 3) * work_um
        plasma &= away <= to_others
        between = plasma & (to_others < away + _CLUMP_UM) & (away < 2.5)
        touches = bool(np.count_nonzero(between) * work_um > 1.5)
    disc = _disc(_SMOOTH_UM / work_um)
    solid = cv2.morphologyEx((plasma | nucleus).astype(np.uint8), cv2.MORPH_OPEN, disc)
    solid = cv2.morphologyEx(solid, cv2.MORPH_CLOSE, disc)
    solid[nucleus] = 1
    solid[others] = 0
    _, labels = cv2.connectedComponents(solid, connectivity=4)
    own = np.bincount(labels[nucleus])
    own[0] = 0
    return (labels == int(np.argmax(own))) | nucleus, touches


def _disc(radius_px: float) -> NDArray[np.uint8]:
    side = 2 * max(1, round(radius_px)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), dtype=np.uint8)


def _region(
    outline: Outline,
    stain: StainMap,
    nuclei: NucleusMap,
    shape: tuple[int, int],
    um_px: float,
    odds: tuple[float, float],
) -> CellRegion | None:
    """Redraw a cell at full resolution; None if nothing of it is left."""
    rows, columns = outline.window
    height, width = stain.score.shape
    y0, x0 = round(rows.start * shape[0] / height), round(columns.start * shape[1] / width)
    y1, x1 = round(rows.stop * shape[0] / height), round(columns.stop * shape[1] / width)
    size = (max(x1 - x0, 1), max(y1 - y0, 1))
    near = cv2.dilate(outline.nucleus.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    near &= ~((nuclei.labels[outline.window] > 0) & ~outline.nucleus)
    margin = stain.score[outline.window] - _EDGE * nuclei.level[outline.window]
    margin = np.where(near, margin, -0.1).astype(np.float32)
    margin[outline.nucleus] = np.maximum(margin[outline.nucleus], 0.01)
    soft = outline.body.astype(np.uint8) * np.uint8(255)
    part = _magnified(soft, size)
    nucleus = cv2.resize(margin, size, interpolation=cv2.INTER_LINEAR)[part] > 0
    body = (cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR)[part] > 127) | nucleus
    y0, x0 = y0 + part[0].start, x0 + part[1].start
    filled = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    if not len(filled[0]):
        return None
    inner = np.s_[filled[0][0] : filled[0][-1] + 1, filled[1][0] : filled[1][-1] + 1]
    left, top = x0 + int(filled[1][0]), y0 + int(filled[0][0])
    body = body[inner].copy()
    cell = _cell(body, (left, top), shape, um_px, outline.touches, odds)
    return CellRegion(cell, body, nucleus[inner].copy())


def _magnified(mask: NDArray[np.uint8], size: tuple[int, int]) -> tuple[slice, slice]:
    """Where in a magnified window (width, height) what is in the mask can lie."""
    x, y, width, height = cv2.boundingRect(mask)
    down, across = size[1] / mask.shape[0], size[0] / mask.shape[1]
    return (
        slice(max(int((y - 2) * down), 0), math.ceil((y + height + 2) * down)),
        slice(max(int((x - 2) * across), 0), math.ceil((x + width + 2) * across)),
    )


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
