"""Leukocytes out of what a trained network says about an image: scale, middles, outlines.

A candidate for the default method, measured by ``leave_out.py``. Every pixel of a leukocyte points
to its middle, so lobes of one nucleus stay together and touching cells part without a rule about
necks. It refuses no image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from leukocyte_network import LeukocyteNet
from leukocyte_views import OFFSET_UM, UM_PX, Floats
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy.ndimage import binary_fill_holes, find_objects, label
from scipy.spatial import cKDTree
from torch import Tensor, nn

from millie.segmentation.leukocytes import _resized
from millie.types import Cell, CellRegion, Detection, PixelSize

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

COARSE_UM = 2 * UM_PX  # side of a pixel of the half maps
STEP = 16  # the network's coarsest pixel
PADDED = 64  # sides of what the network sees are multiples of it
BLACK = 25  # brightest channel up to which a pixel is surround, not film
DARKEST = 5.0  # standard deviations that the darkest place may lie below the mean
LEAST_CENTRE = 0.6  # probability of a middle from which it is a leukocyte's
APART_UM = 4.0  # middles nearer than that are one leukocyte's
FARTHEST_UM = 6.0  # from where a pixel points to, to the middle that takes it
FAINT = -1.4  # logit of cell above which pixels are shared out among middles
MARGIN = 2  # half pixels around a cell, so that outlines end inside the window
LEAST_NUCLEUS_UM2 = 8.0
FIRST_SIDE = 128, 192  # px of the whole image at the first look, an eighth of it in between
NEXT_SIDE = 192  # px of the middle of the image at the next ones
LOOKS = 5
FAR, FARTHER = 0.5, 1.6  # what looks far off at first is farther: answers lean to the usual scale
CAUTION = 0.8  # share of a change that is made: answers may overshoot
SETTLED = 0.1  # change in log2 after which another look tells nothing new
RANGE_UM_PX = 0.02, 2.0
ASSUMED_SIDE_UM = 36.0  # of an image that shows neither red cells nor a leukocyte
MOST_PX = 16_000_000  # of an enlarged image


@dataclass(frozen=True)
class Maps:
    """What the network says: logits (H, W), probabilities (h, w) of half the size, arrows, scale.

    Attributes:
        nucleus: float32 (H, W); also ``cell``.
        centre: float32 (h, w); also ``red_cell``.
        arrows: float32 (2, h, w), x and y to the middle in pixels of the half maps.
        log2_scale: log2 of um/px over 0.4, the median of the places' answers by their certainty.
    """

    nucleus: Floats
    cell: Floats
    centre: Floats
    red_cell: Floats
    arrows: Floats
    log2_scale: float


class Finder:
    """Finds the leukocytes of an image with given weights."""

    def __init__(self, weights: Path) -> None:
        self._net = LeukocyteNet().eval()
        self._net.load_state_dict(load_file(weights))

    def __call__(self, image: Pixels, pixel_size: PixelSize | None) -> Detection:
        """Cells of an image, uint8 RGB (H, W, 3), its scale given or to be found."""
        um_px = pixel_size.um_px if pixel_size else self.scale(image)
        factor, regions = um_px / UM_PX, []
        if image.shape[0] * image.shape[1] * factor**2 < MOST_PX:
            maps = self.maps(_resized(image, factor))
            labels = shared_out(maps)
            for k, box in enumerate(find_objects(labels)):
                region = box and outline(k + 1, box, labels, maps, image.shape, um_px)
                if region:
                    regions.append(region)
        return Detection(tuple(regions), PixelSize(um_px), (255, 255, 255), {"um_px": um_px})

    @torch.inference_mode()
    def maps(self, image: Pixels) -> Maps:
        """Maps of an image at about 0.4 um/px."""
        height, width = image.shape[:2]
        beyond = ((0, -height % PADDED), (0, -width % PADDED), (0, 0))
        pixels = np.pad(standardised(image), beyond)
        out, scale = self._net(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()))

        def inner(maps: Tensor, step: int) -> NDArray[np.float32]:
            return maps[0, :, : -(-height // step), : -(-width // step)].numpy()

        fine = inner(nn.functional.pixel_shuffle(out[:, :8], 2), 1)
        chances, arrows = inner(torch.sigmoid(out[:, 8:10]), 2), inner(out[:, 12:], 2)
        places = scale[0, :, : max(1, round(height / STEP)), : max(1, round(width / STEP))]
        values, spreads = places.reshape(2, -1).numpy()
        order = np.argsort(values)
        upto = np.cumsum(np.exp(-2 * spreads.clip(-4, 2))[order])
        return Maps(
            *fine, *chances, arrows=arrows * (OFFSET_UM / COARSE_UM),
            log2_scale=float(values[order][np.searchsorted(upto, upto[-1] / 2)]),
        )  # fmt: skip

    def scale(self, image: Pixels) -> float:
        """um/px: a look at the small whole, then at the middle at the scale found so far."""
        longest = max(image.shape[:2])
        um_px = UM_PX * min(1.0, float(np.clip(longest / 8, *FIRST_SIDE)) / longest)
        for look in range(LOOKS):
            maps = self.maps(_resized(middle(image, NEXT_SIDE * UM_PX / um_px), um_px / UM_PX))
            change = maps.log2_scale
            if look == 0 and abs(change) > FAR:
                change *= FARTHER
            elif look > 0:
                change *= CAUTION
            um_px = float(np.clip(um_px * 2**change, *RANGE_UM_PX))
            if abs(change) < SETTLED:
                break
        seen = (maps.red_cell > 0.5).any() or (maps.centre > 0.5).any()
        return um_px if seen else ASSUMED_SIDE_UM / longest


def middle(image: Pixels, side_px: float) -> Pixels:
    height, width = image.shape[:2]
    h, w = min(height, round(side_px)), min(width, round(side_px))
    top, left = (height - h) // 2, (width - w) // 2
    return image[top : top + h, left : left + w]


def standardised(image: Pixels) -> Floats:
    """Each channel with mean 0 and spread 1 over what is not black, float32 (H, W, 3).

    On a nearly empty film a few cells are all that is dark: the spread is at least a fifth of how
    far the darkest place lies from the mean.
    """
    film = (image.max(axis=2) > BLACK).astype(np.uint8)
    mean, spread = (np.ravel(v) for v in cv2.meanStdDev(image, mask=film if film.any() else None))
    size = max(1, image.shape[1] // 8), max(1, image.shape[0] // 8)
    places = cv2.resize(image, size, interpolation=cv2.INTER_AREA).reshape(-1, 3)
    seen = cv2.resize(film, size, interpolation=cv2.INTER_NEAREST).ravel() > 0
    darkest = places[seen].min(axis=0) if seen.any() else mean
    spread = np.maximum(spread + 255 * 0.03, (mean - darkest) / DARKEST)
    return np.clip((image - mean) / spread, -6, 6).astype(np.float32)


def maxima(centre: Floats) -> NDArray[np.float64]:
    """Middles (n, 2) as x and y in pixels of the map, the surest first."""
    reach = APART_UM / COARSE_UM
    smooth = cv2.GaussianBlur(centre, (3, 3), 0)
    side = 2 * round(reach / 2) + 1
    top = (smooth >= cv2.dilate(smooth, np.ones((side, side), np.uint8))) & (centre > LEAST_CENTRE)
    rows, columns = np.nonzero(top)
    kept: list[NDArray[np.float64]] = []
    for k in np.argsort(-centre[rows, columns], kind="stable"):
        place = np.array([columns[k], rows[k]], float)
        if all(np.hypot(*(place - other)) >= reach for other in kept):
            kept.append(place)
    return np.array(kept).reshape(-1, 2)


def shared_out(maps: Maps) -> NDArray[np.int32]:
    """Number of the leukocyte (h, w) to whose middle each stained pixel points, 0 for none."""
    labels = np.zeros(maps.centre.shape, np.int32)
    middles = maxima(maps.centre)
    if len(middles):
        stained = cv2.dilate(maps.cell, np.ones((2, 2), np.uint8))[::2, ::2] > FAINT
        rows, columns = np.nonzero(stained)
        to = np.column_stack([columns, rows]) + maps.arrows[:, rows, columns].T
        away, nearest = cKDTree(middles).query(to)
        near = away < FARTHEST_UM / COARSE_UM
        labels[rows[near], columns[near]] = nearest[near] + 1
    return labels


def outline(
    number: int,
    box: tuple[slice, slice],
    labels: NDArray[np.int32],
    maps: Maps,
    shape: tuple[int, ...],
    um_px: float,
) -> CellRegion | None:
    """One leukocyte redrawn at full resolution; None if hardly a nucleus is left of it."""
    own: list[slice] = []
    fine: list[slice] = []
    full: list[slice] = []
    for part, side, fine_side, full_side in zip(
        box, labels.shape, maps.cell.shape, shape[:2], strict=True
    ):
        start, stop = max(part.start - MARGIN, 0), min(part.stop + MARGIN, side)
        own.append(slice(start, stop))
        fine.append(slice(2 * start, min(2 * stop, fine_side)))
        ends = (round(v * full_side / fine_side) for v in (fine[-1].start, fine[-1].stop))
        full.append(slice(*ends))
    near = labels[tuple(own)]
    around = cv2.dilate((near == number).astype(np.uint8), np.ones((3, 3), np.uint8))
    around[(near > 0) & (near != number)] = 0
    size = full[1].stop - full[1].start, full[0].stop - full[0].start
    allowed = cv2.resize(around, size, interpolation=cv2.INTER_NEAREST) > 0
    cell, nucleus = (
        (cv2.resize(m[tuple(fine)], size, interpolation=cv2.INTER_LINEAR) > 0) & allowed
        for m in (maps.cell, maps.nucleus)
    )
    whole = largest(cell | nucleus)
    nucleus &= whole
    if nucleus.sum() * um_px**2 < LEAST_NUCLEUS_UM2:
        return None
    x, y, w, h = cv2.boundingRect(whole.astype(np.uint8))
    body, inner = whole[y : y + h, x : x + w], nucleus[y : y + h, x : x + w]
    left, top = full[1].start + x, full[0].start + y
    rows, columns = np.nonzero(body)
    found = Cell(
        0, left + float(columns.mean()), top + float(rows.mean()), left, top, w, h, float(len(rows))
    )
    return CellRegion(found, body, inner)


def largest(mask: Mask) -> Mask:
    """The largest connected part, holes filled."""
    parts, count = label(mask)
    if count == 0:
        return mask
    return np.asarray(binary_fill_holes(parts == 1 + np.bincount(parts.ravel())[1:].argmax()), bool)
