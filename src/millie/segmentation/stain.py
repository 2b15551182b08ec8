"""Colour: optical density against the empty background, and how nucleus-like each pixel is.

Owns the background (its colour, its fall-off towards the corners), the projection of density that
lets red cells vanish, the threshold between red cells and nuclei, and the reasons to refuse an
image that shows no stained blood film. It knows no scale and no objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from millie.segmentation import shading
from millie.segmentation.quick import picked, quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PADDING = 8  # intensity up to which a pixel is black padding
_SAMPLE_PX = 40_000  # statistics of colour are taken from about so many pixels
_GREY = 10  # largest difference of channels in a greyscale image, compression included
# (of the density of blue that green has at least, share of stained density in such pixels): the
# second is for red cells whose own colour, straw, shows where eosin is weak.
_GREEN_SHARES = ((1.0, 0.45), (0.85, 0.6))
_BIN = 0.02  # natural units of optical density
_STAINED = 0.15  # summed density that noise and uneven light seldom reach
_DARKEST = 0.98  # quantile of what may be nuclei: purple red cells far outnumber their pixels
_OF_DARKEST = 0.4  # of that: nuclei, without most cytoplasm
_MOSTLY_NUCLEI = 0.6  # share of what is stained
_LARGE_NUCLEUS = 0.2  # of the largest one's area: platelets and specks lie among red cells
_FEW_NUCLEI = 6  # lobes of the cells in a crop without red cells
_CYTOPLASM = 0.9  # width around a nucleus in units of its radius: of nearly all leukocytes
_LIKE_RED = 0.3  # of red cells' density: what differs by less has their colour
_TAIL = 3  # bins that the smoothing of the histogram reaches
_NUCLEUS_FLOOR = 0.16  # lowest projected density of a nucleus: palest stain seen on real films
_RED_CELL_MARGIN = 0.06
_FAINTEST = 0.25  # a nucleus has at least this share of the darkest nuclei's score
_HIGHEST = 0.6  # threshold beyond which pale nuclei would be lost whatever the field says,
_ABOVE_RED_CELLS = 1.7  # unless the red cells themselves are as dark: this times their score
_DENSITY = (-np.log((np.arange(256) + 1.0) / 256.0)).astype(np.float32)
_VISIBLE = 0.12  # summed density of a cell where the stain is not pale; below lie ghosts
_VISIBLE_OF_DARKEST = 0.07  # the same as a share of the darkest pixels': 0.12 on a usual stain
_NOISE = 0.07  # no stain is so pale that less would be a cell
EMPTY, RED, CYTOPLASM = 1, 2, 3
"""Kinds of pixels, see :attr:`StainMap.kinds`."""
# Of bits: below the threshold, empty, like a red cell; the highest decides.
_KINDS = np.array([0, CYTOPLASM, EMPTY, EMPTY, *[RED] * 252], np.uint8)
# Red + green - 1.6 blue removes pink red cells, 2 green - red - blue purple and blue ones.
_PROJECTIONS = np.array([[1.0, 1.0, -1.6], [-1.3, 2.6, -1.3], [1.0, 1.0, 1.0]], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class StainMap:
    """What the colours of one image say, at the working resolution.

    Attributes:
        score: float32 (H, W), nucleus-likeness in units of optical density; red cells near 0.
        density: float32 (H, W), sum of the three channels' optical densities.
        background_rgb: colour of the empty background.
        threshold: score above which a pixel may belong to a nucleus.
        red_cell_density: most frequent summed density of red cells; 0: none seen.
        red_cell_score: highest score of a typical red cell.
        foreground: share of pixels that are not background.
        valid: bool (H, W), False on black padding.
        refusal: why this is no stained blood film with empty background in view, or empty.
        darkest: summed density that 2 % of the pixels exceed.
        channels: float32 (H, W, 3), optical density of each channel, of the background as well.
        background_density: float32 (3,), that of the background in it.
        red_cell_colour: float32 (3,), optical density of a red cell over the background's; 0: none
            seen.
    """

    score: NDArray[np.float32]
    density: NDArray[np.float32]
    background_rgb: tuple[int, int, int]
    threshold: float
    red_cell_density: float
    red_cell_score: float
    foreground: float
    valid: NDArray[np.bool_]
    refusal: str
    darkest: float
    channels: NDArray[np.float32]
    background_density: NDArray[np.float32]
    red_cell_colour: NDArray[np.float32]

    @cached_property
    def kinds(self) -> NDArray[np.uint8]:
        """uint8 (H, W): 0 nucleus-like, 1 empty, 2 like a red cell, 3 cytoplasm."""
        says = (self.score < self.threshold).view(np.uint8)
        says |= (self.density < self.empty_below).view(np.uint8) << 1
        if self.red_cell_density > 0:
            limit = 0.5 * (self.red_cell_score + self.threshold)
            dense = self.density > 0.55 * self.red_cell_density
            dense &= self.score < limit
            says |= dense.view(np.uint8) << 2
        return np.asarray(cv2.LUT(says, _KINDS), dtype=np.uint8)

    @property
    def empty_below(self) -> float:
        """Summed density below which there is nothing but background."""
        if self.red_cell_density == 0:
            return _VISIBLE
        pale = min(max(_VISIBLE_OF_DARKEST * self.darkest, _NOISE), _VISIBLE)
        return max(0.3 * self.red_cell_density, pale)


def stain_map(work: NDArray[np.uint8], *, judged: bool = True) -> StainMap:
    """Measure background and nucleus-likeness of an image at the working resolution.

    Args:
        work: uint8 RGB (H, W, 3).
        judged: whether a reason to refuse the image is wanted.
    """
    valid = _valid(work)
    density = np.asarray(cv2.LUT(work, _DENSITY), dtype=np.float32)
    step = max(1, round(float(np.sqrt(valid.size / _SAMPLE_PX))))
    thin = np.s_[::step, ::step]
    few, seen = _thinned(work, step), valid[thin].copy()
    sample = np.asarray(cv2.LUT(few, _DENSITY), dtype=np.float32)
    background = _background(picked(sample, seen))
    fall_off = shading.fall_off(sample[::2, ::2], seen[::2, ::2], background)
    if fall_off is not None:
        density -= shading.spread(fall_off, valid.shape)
        sample = _thinned(density, step)
    rows = np.column_stack([_PROJECTIONS, -_PROJECTIONS @ background])
    first, second, total = (
        np.asarray(cv2.transform(density, row[None]), dtype=np.float32) for row in rows
    )
    lower = cv2.min(first, second, dst=first)
    score = np.asarray(cv2.GaussianBlur(lower, (3, 3), 0, dst=second), dtype=np.float32)
    if not valid.all():
        score[~valid] = 0
        total[~valid] = 0
    thin_score, thin_total = score[thin].copy(), total[thin].copy()
    red = _red_cell_density(thin_total, thin_score)
    typical, threshold = _threshold(thin_score, thin_total, red)
    colour = np.exp(-background) * 256 - 1
    red_value, green, blue = (int(v) for v in np.clip(np.round(colour), 0, 255))
    foreground = _share(thin_total > max(0.5 * red, 0.1))
    rgb = (red_value, green, blue)
    sample -= background
    refusal = _refusal(few, sample, seen, rgb) if judged else ""
    darkest = quantile(thin_total.ravel(), 0.98)
    like_red = (np.abs(thin_total - red) < _LIKE_RED * red) & (thin_score < threshold)
    return StainMap(
        score, total, rgb, threshold, red, typical, foreground, valid, refusal, darkest,
        density, background, _mean_colour(sample, like_red),
    )  # fmt: skip


def _mean_colour(sample: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[np.float32]:
    """float32 (3,): mean of the pixels where the mask is; 0 if there are none."""
    colour = sample[where].mean(axis=0) if where.any() else np.zeros(3)
    return np.asarray(colour, dtype=np.float32)


def _share(mask: NDArray[np.bool_]) -> float:
    return int(np.count_nonzero(mask)) / mask.size


def _thinned(image: NDArray[Any], step: int) -> NDArray[Any]:
    """The same as ``image[::step, ::step]``, contiguous; channel by channel is quicker."""
    return np.asarray(cv2.merge([image[::step, ::step, k].copy() for k in range(3)]))


def _valid(work: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where an image is not black padding."""
    if work.min() > _PADDING:
        return np.ones(work.shape[:2], np.bool_)
    return np.asarray(cv2.inRange(work, (0, 0, 0), (_PADDING,) * 3) == 0, dtype=np.bool_)


def _refusal(
    pixels: NDArray[np.uint8],
    density: NDArray[np.float32],
    valid: NDArray[np.bool_],
    background_rgb: tuple[int, int, int],
) -> str:
    """Reason to refuse an image, from its colours alone; empty: none.

    Blood stains absorb green most, whatever the light, or blue little more: on the real sets looked
    at, 70 to 100 % of the stained density of every image lies in pixels of the first kind and 81 to
    100 % in both, on photographs with a bright even area and on other stains below 40 and 57 %.
    """
    if _share(valid) < 0.3:
        return "no background: the image is almost black"
    r, g, b = cv2.split(pixels)
    spread = picked(np.maximum(np.maximum(r, g), b) - np.minimum(np.minimum(r, g), b), valid)
    of_red, of_green, of_blue = cv2.split(density)
    total = of_red + of_green + of_blue
    stained = valid & (total > _STAINED)
    everything = float(picked(total, stained).sum())
    romanowsky = any(
        float(picked(total, stained & (of_green >= cv2.max(of_red, ratio * of_blue) - 0.05)).sum())
        >= share * everything
        for ratio, share in _GREEN_SHARES
    )
    red, green, blue = background_rgb
    empty = _share(valid & (np.abs(total) < _STAINED))
    reasons = {
        "no stained cells: the image is empty": _share(stained) < 0.001,
        "greyscale: colour is needed to tell leukocytes from red cells": (
            quantile(spread, 0.99) < _GREY
        ),
        "no background: no bright, even area between cells": (
            max(background_rgb) < 80 or empty < 0.02
        ),
        "not a blood film: the background is coloured": (
            min(background_rgb) < 0.4 * max(background_rgb) or green < 0.82 * min(red, blue)
        ),
        "not a blood film: the colours are not those of a Romanowsky stain": not romanowsky,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _background(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Optical density of the empty background: the brightest frequent one, of (n, 3) pixels."""
    if len(pixels) == 0:
        return np.zeros(3, np.float32)
    channels = pixels.T.copy()
    total = channels[0] + channels[1] + channels[2]
    counts = np.bincount((total / _BIN).astype(np.int64))
    smooth = np.convolve(np.pad(counts, 3), [1, 2, 3, 2, 1], "same")
    inner = smooth[1:-1]
    peaks = (inner >= smooth[:-2]) & (inner >= smooth[2:]) & (inner > 0.1 * smooth.max())
    peak = (int(np.argmax(peaks)) + 1 - 3) * _BIN
    near = np.abs(total - peak - _BIN / 2) < 0.08
    typical = [quantile(channel.compress(near), 0.5) for channel in channels]
    return np.array(typical, dtype=np.float32)


def _red_cell_density(total: NDArray[np.float32], score: NDArray[np.float32]) -> float:
    """Most frequent summed density of what is neither background nor nucleus."""
    red = (total > _STAINED) & (score < 0.5 * total) & ~_leukocytes(total, score)
    seen = picked(total, red)
    if len(seen) < 0.02 * total.size:
        return 0.0
    counts = np.bincount((seen / _BIN).astype(np.int64))
    smooth = np.convolve(counts, [1, 2, 3, 4, 3, 2, 1], "same")
    first = int(_STAINED / _BIN)
    # Uneven background reaches beyond the limit: its tail falls from there, and is no mode.
    rising = np.flatnonzero(np.diff(smooth[first + _TAIL :]) > 0)
    start = first + _TAIL + int(rising[0]) if len(rising) else 0
    if np.argmax(smooth) <= first + _TAIL and smooth[start:].sum() > 0.1 * smooth.sum():
        smooth[:start] = 0
    return float((np.argmax(smooth) + 0.5) * _BIN)


def _leukocytes(total: NDArray[np.float32], score: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where no red cell is to be looked for: in lone leukocytes and close to large nuclei.

    Lone are bodies with a nucleus that touch nothing else, nor the edge. Nuclei as such tell
    nothing where most of what is stained looks like one; where many pieces do, they may be red
    cells, or there are red cells enough beside them.
    """
    stained = total > _STAINED
    dark = score > _NUCLEUS_FLOOR
    nowhere = np.zeros(total.shape, np.bool_)
    if not dark.any():
        return nowhere
    nuclear = score > _OF_DARKEST * quantile(picked(score, dark), _DARKEST)
    _, nuclei, stats, _ = cv2.connectedComponentsWithStats(nuclear.view(np.uint8), connectivity=4)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    large = areas > _LARGE_NUCLEUS * areas.max()
    if np.count_nonzero(large) > _FEW_NUCLEI:
        return nowhere
    n, labels, stats, _ = cv2.connectedComponentsWithStats(stained.view(np.uint8), connectivity=4)
    left, top, width, height, area = stats.T
    inner = (left > 0) & (top > 0)
    inner &= (left + width < total.shape[1]) & (top + height < total.shape[0])
    held = np.bincount(picked(labels, nuclear), minlength=n)
    lone = np.asarray((inner & (held > 0.1 * area))[labels], dtype=np.bool_)
    if np.count_nonzero(nuclear) > _MOSTLY_NUCLEI * np.count_nonzero(stained):
        return lone
    away = cv2.distanceTransform((~large[nuclei]).view(np.uint8), cv2.DIST_L2, 3)
    return np.asarray(lone | (away < _CYTOPLASM * np.sqrt(areas.max() / np.pi)), dtype=np.bool_)


def _threshold(
    score: NDArray[np.float32], total: NDArray[np.float32], red: float
) -> tuple[float, float]:
    """Score of a typical red cell, and the level above which a nucleus may be."""
    dark = picked(score, score > _NUCLEUS_FLOOR)
    floor = _NUCLEUS_FLOOR
    if len(dark) * 500 > score.size:
        floor = max(floor, _FAINTEST * quantile(dark, 0.95))
    body = picked(score, np.abs(total - red) < 0.35 * red)
    if red == 0 or len(body) < 50:
        return 0.0, min(floor, _HIGHEST)
    low, middle = quantile(body, 0.16), quantile(body, 0.5)
    end = middle + 3.0 * (middle - low) + _RED_CELL_MARGIN
    highest = max(_HIGHEST, _ABOVE_RED_CELLS * middle)
    return float(middle), float(min(max(floor, end), highest))
