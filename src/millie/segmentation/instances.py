"""Single leukocytes out of the network's maps: middles, outlines, flags, in full-resolution pixels.

Owns what counts as a leukocyte and which pixels are whose. Every pixel of a leukocyte points to its
middle, so lobes of one nucleus stay together and touching cells part without a rule about necks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree

from millie.segmentation.network import COARSE, WORK_UM_PX
from millie.types import Cell, CellRegion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from millie.config import SegmentationConfig
    from millie.segmentation.network import Maps

LEAST_CENTRE = 0.6
"""Probability from which a maximum of the map of middles is a leukocyte."""
_APART_UM = 4.0  # maxima nearer than that are one leukocyte's
_FARTHEST_UM = 6.0  # from where a pixel points to, to the middle that takes it
_FAINT = -1.4  # logit of cell above which pixels are shared out among middles
_MARGIN_PX = 2  # coarse pixels around a cell, so that outlines end inside the window
_SMUDGE = 0.1  # mean probability over a cell; 5 % of the normal cells of pbc_cells lie above
_TOUCHING_UM = 2.0  # length of the border between two leukocytes that makes a clump


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """Which leukocyte each pixel belongs to.

    Attributes:
        middles: float64 (n, 2), x and y of maxima in coarse pixels.
        chances: float64 (n,), probability at each.
        labels: int32 (h, w) coarse map, 0 for none, k + 1 for middle k.
        grown: the same with a rim of one pixel, in which outlines end; each pixel has one owner.
        solid: the same without the faint rim: pixels that are more likely cell than not.
    """

    middles: NDArray[np.float64]
    chances: NDArray[np.float64]
    labels: NDArray[np.int32]
    grown: NDArray[np.int32]
    solid: NDArray[np.int32]


def maxima(
    centre: NDArray[np.float32], least: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middles (n, 2) as x and y in pixels of the map, and their probabilities, highest first."""
    smooth = cv2.GaussianBlur(centre, (3, 3), 0)
    side = 2 * round(_APART_UM / (WORK_UM_PX * COARSE) / 2) + 1
    top = (smooth >= cv2.dilate(smooth, np.ones((side, side), np.uint8))) & (centre > least)
    rows, columns = np.nonzero(top)
    chances = centre[rows, columns].astype(np.float64)
    order = np.argsort(-chances, kind="stable")
    places = np.column_stack([columns, rows])[order].astype(np.float64)
    chances = chances[order]
    kept: list[int] = []
    reach = _APART_UM / (WORK_UM_PX * COARSE)
    for k, place in enumerate(places):
        if not kept or np.hypot(*(places[kept] - place).T).min() >= reach:
            kept.append(k)
    return places[kept], chances[kept]


def shared_out(maps: Maps) -> Shares:
    """Give every pixel of a leukocyte to the middle that it points to."""
    middles, chances = maxima(maps.centre, LEAST_CENTRE)
    labels = np.zeros(maps.centre.shape, np.int32)
    quarters = np.ones((COARSE, COARSE), np.uint8)
    cell = cv2.dilate(maps.cell, quarters, anchor=(0, 0))[::COARSE, ::COARSE]
    if len(middles):
        rows, columns = np.nonzero(cell > _FAINT)
        to = np.column_stack([columns, rows]) + maps.offset_px[:, rows, columns].T
        away, nearest = cKDTree(middles).query(to)
        near = away < _FARTHEST_UM / (WORK_UM_PX * COARSE)
        labels[rows[near], columns[near]] = nearest[near] + 1
    rim = cv2.dilate(labels.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int32)
    grown = np.where(labels > 0, labels, rim)
    return Shares(middles, chances, labels, grown, np.where(cell > 0, labels, 0))


def cells_of(
    maps: Maps,
    shape: tuple[int, int],
    um_px: float,
    config: SegmentationConfig,
) -> list[CellRegion]:
    """The leukocytes of an image, at full resolution, ordered by (top, left).

    Args:
        maps: of the image at about 0.4 um/px.
        shape: (H, W) of the full-resolution image.
        um_px: of the full-resolution image.
        config: ``min_nucleus_um2`` and ``drop_border`` are used.
    """
    shares = shared_out(maps)
    regions = []
    for k, box in enumerate(find_objects(shares.labels)):
        region = box and _region(k, box, shares, maps, shape, um_px, config.min_nucleus_um2)
        if region and not (config.drop_border and region.cell.at_border):
            regions.append(region)
    return sorted(regions, key=lambda r: (r.cell.top_px, r.cell.left_px))


def _region(
    k: int,
    box: tuple[slice, slice],
    shares: Shares,
    maps: Maps,
    shape: tuple[int, int],
    um_px: float,
    least_um2: float,
) -> CellRegion | None:
    """One leukocyte, redrawn at full resolution; None if nothing of it is left."""
    labels = shares.labels
    h, w = labels.shape
    (y0, y1), (x0, x1) = (
        (max(part.start - _MARGIN_PX, 0), min(part.stop + _MARGIN_PX, side))
        for part, side in zip(box, (h, w), strict=True)
    )
    here = slice(y0, y1), slice(x0, x1)
    own = shares.grown[here] == k + 1
    foreign = (shares.grown[here] > 0) & ~own
    solid = shares.solid[here]
    rim = cv2.dilate((solid == k + 1).view(np.uint8), np.ones((3, 3), np.uint8)) > 0
    border = np.count_nonzero(rim & (solid > 0) & (solid != k + 1))
    touching = border * WORK_UM_PX * COARSE >= _TOUCHING_UM
    fine_shape = maps.cell.shape
    fy1, fx1 = min(COARSE * y1, fine_shape[0]), min(COARSE * x1, fine_shape[1])
    window = slice(COARSE * y0, fy1), slice(COARSE * x0, fx1)
    scale = shape[0] / fine_shape[0], shape[1] / fine_shape[1]
    rows = round(window[0].start * scale[0]), min(round(fy1 * scale[0]), shape[0])
    columns = round(window[1].start * scale[1]), min(round(fx1 * scale[1]), shape[1])
    size = max(columns[1] - columns[0], 1), max(rows[1] - rows[0], 1)
    allowed, forbidden = (
        cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        for mask in (own, foreign)
    )
    cell, nucleus = (
        (cv2.resize(logits[window], size, interpolation=cv2.INTER_LINEAR) > 0) & allowed
        for logits in (maps.cell, maps.nucleus)
    )
    whole = _largest(cell | nucleus) & ~forbidden
    nucleus &= whole
    if np.count_nonzero(nucleus) * um_px**2 < least_um2:
        return None
    bx, by, bw, bh = cv2.boundingRect(whole.view(np.uint8))
    body = whole[by : by + bh, bx : bx + bw].copy()
    inner = nucleus[by : by + bh, bx : bx + bw].copy()
    place = columns[0] + bx, rows[0] + by
    smudge = float(maps.smudge[here][labels[here] == k + 1].mean())
    verdict = bool(touching), float(shares.chances[k]), smudge
    return CellRegion(_cell(body, place, shape, um_px, verdict), body, inner)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part, holes filled."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    if count < 2:
        return mask
    own = parts == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    outlines, _ = cv2.findContours(own.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(filled, outlines, -1, 1, cv2.FILLED)
    return filled > 0


def _cell(
    body: NDArray[np.bool_],
    corner: tuple[int, int],
    shape: tuple[int, int],
    um_px: float,
    verdict: tuple[bool, float, float],
) -> Cell:
    """The record of one leukocyte; ``verdict``: it touches another, its chance, of a smudge."""
    touching, chance, smudge = verdict
    left, top = corner
    height, width = body.shape
    across, down = body.sum(axis=0), body.sum(axis=1)
    area = float(across.sum())
    at_border = left == 0 or top == 0 or left + width == shape[1] or top + height == shape[0]
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
        quality=round(chance * (1 - 0.7 * smudge) * (0.5 if at_border else 1.0), 3),
        at_border=at_border,
        in_clump=touching,
        smudge=smudge > _SMUDGE,
    )
