"""Nuclei: from the stain map to pieces of nuclei, and from pieces to one nucleus a cell.

Owns the mask of nuclear pixels (a local half-maximum above the field's threshold), its division
into convex pieces, and their grouping. It works at the working resolution; areas are in um2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from millie.segmentation.lobes import grouped
from millie.segmentation.quick import pixels_by_label
from millie.segmentation.watershed import flood

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from millie.segmentation.stain import StainMap

_HALF = 0.5  # of the local maximum: where the edge of a blurred object lies
_PEAK_RADIUS_UM = 2.5
_SPECK_UM2 = 1.5
_SEED_RADIUS_UM = 1.6
_RIM_UM = 1.0  # thinner parts are dark rims of cells and colour fringes, not nuclei
_HOLE_UM2 = 6.0  # vacuoles and gaps between lobes; a ring-shaped nucleus keeps its hole
_UNITS = 80.0  # score of 1 as an integer; scores end at 255 / 80


@dataclass(frozen=True, slots=True, eq=False)
class NucleusMap:
    """Nuclei at the working resolution.

    Attributes:
        labels: int32 (H, W), 0 is none; one label a nucleus, however many lobes it has.
        level: float32 (H, W), score above which a pixel is nucleus, at each place.
        areas_px: int64 (n,), pixels of each nucleus.
        edges: int64 (n, 4), top, bottom, left, right of each nucleus, ends exclusive.
    """

    labels: NDArray[np.int32]
    level: NDArray[np.float32]
    areas_px: NDArray[np.int64]
    edges: NDArray[np.int64]

    def boxes(self, min_px: float) -> list[tuple[int, tuple[int, int, int, int]]]:
        """(label, (top, bottom, left, right)) of nuclei of at least so many pixels."""
        large = np.flatnonzero(self.areas_px >= min_px).tolist()
        return [(k + 1, tuple(self.edges[k].tolist())) for k in large]


def find_nuclei(stain: StainMap, work_um: float) -> NucleusMap:
    """Delineate nuclei.

    Args:
        stain: of the image at the working resolution.
        work_um: um per pixel of that resolution.
    """
    pieces, level = find_pieces(stain, work_um)
    pixels = pixels_by_label(pieces)
    groups = grouped(pieces, stain, work_um, pixels)
    lookup = np.zeros(int(pieces.max(initial=0)) + 1, np.int32)
    for k, members in enumerate(groups, start=1):
        lookup[list(members)] = k
    labels = np.zeros(pieces.shape, np.int32)
    sizes = np.diff(pixels.starts)
    labels[pixels.rows, pixels.columns] = np.repeat(lookup[pixels.labels], sizes)
    areas = np.zeros(len(groups) + 1, np.int64)
    edges = np.tile(np.array([pieces.size, 0, pieces.size, 0]), (len(groups) + 1, 1))
    owners = lookup[pixels.labels]
    np.add.at(areas, owners, sizes)
    boxes = pixels.boxes()
    np.minimum.at(edges[:, ::2], owners, boxes[:, ::2])
    np.maximum.at(edges[:, 1::2], owners, boxes[:, 1::2])
    return NucleusMap(labels, level, areas[1:], edges[1:])


def find_pieces(stain: StainMap, work_um: float) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Convex pieces of nuclei before grouping, and the level that a nucleus exceeds.

    Args:
        stain: of the image at the working resolution.
        work_um: um per pixel of that resolution.
    """
    level = _levels(stain, work_um)
    return _pieces((stain.score > level).astype(np.uint8), work_um), level


def _levels(stain: StainMap, work_um: float) -> NDArray[np.float32]:
    """The larger of the field's threshold and half of the local maximum."""
    blurred = cv2.GaussianBlur(stain.score, (0, 0), max(0.5 / work_um, 0.8))
    small = cv2.convertScaleAbs(np.maximum(blurred, 0), alpha=_UNITS)
    side = 2 * round(_PEAK_RADIUS_UM / work_um) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_RECT, (side, side))
    peak = cv2.blur(cv2.dilate(small, disc), (side, side))
    level = np.maximum(np.arange(256, dtype=np.float32) / _UNITS * _HALF, stain.threshold)
    return np.asarray(cv2.LUT(peak, level.astype(np.float32)), dtype=np.float32)


def _pieces(mask: NDArray[np.uint8], work_um: float) -> NDArray[np.int32]:
    """Divide the mask into pieces around the maxima of its distance map."""
    thin = 2 * max(1, round(_RIM_UM / (2 * work_um))) + 1
    rim = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (thin, thin))
    opened = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, rim), dtype=np.uint8)
    mask = _filled(opened, _HOLE_UM2 / work_um**2)
    pieces = np.zeros(mask.shape, np.int32)
    count = 0
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    for contour in contours:
        left, top, width, height = cv2.boundingRect(contour)
        window = np.s_[top : top + height, left : left + width]
        distance, peaks = _heights(mask, window, work_um)
        outer = np.zeros((height, width), np.uint8)
        cv2.drawContours(outer, [contour], -1, 1, cv2.FILLED, offset=(-left, -top))
        n, labels = cv2.connectedComponents(outer & mask[window], connectivity=4)
        for label in range(1, n):
            own = labels == label
            if np.count_nonzero(own) * work_um**2 < _SPECK_UM2:
                continue
            parts = _divided(own, peaks & own, distance)
            pieces[window][own] = parts[own] + count
            count += int(parts.max())
    return pieces


def _heights(
    mask: NDArray[np.uint8], window: tuple[slice, slice], work_um: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Distance map of a window of the mask, smoothed, and its maxima."""
    radius, sigma = round(_SEED_RADIUS_UM / work_um), max(0.3 / work_um, 0.8)
    beyond = radius + math.ceil(4 * sigma) + 1  # what lies further away has no say
    top, left = (max(part.start - beyond, 0) for part in window)
    around = mask[top : window[0].stop + beyond, left : window[1].stop + beyond]
    sharp = cv2.distanceTransform(around, cv2.DIST_L2, 3)
    distance = np.asarray(cv2.GaussianBlur(sharp, (0, 0), sigma), dtype=np.float32)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    peaks = (cv2.dilate(distance, disc) <= distance) & (around > 0)
    inner = np.s_[
        window[0].start - top : window[0].stop - top, window[1].start - left : window[1].stop - left
    ]
    return distance[inner], peaks[inner]


def _divided(
    own: NDArray[np.bool_], peaks: NDArray[np.bool_], distance: NDArray[np.float32]
) -> NDArray[np.int32]:
    """Label one component from 1, split between its peaks."""
    n, seeds = cv2.connectedComponents(peaks.astype(np.uint8), connectivity=8)
    if n <= 2:
        return own.astype(np.int32)
    return flood(seeds.astype(np.int32), distance, own)


def _filled(mask: NDArray[np.uint8], largest: float) -> NDArray[np.uint8]:
    """Fill holes up to an area in pixels."""
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return mask
    filled = mask.copy()
    for contour, links in zip(contours, hierarchy[0], strict=True):
        if links[3] >= 0 and cv2.contourArea(contour) <= largest:
            cv2.drawContours(filled, [contour], -1, 1, cv2.FILLED)
    return filled
