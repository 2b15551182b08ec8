"""Is this a stained blood film: the empty background's colour, and reasons to refuse an image.

Owns the few measures of pixels that the network does not give. It knows no single cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from millie.segmentation.network import WORK_UM_PX

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from millie.segmentation.network import Maps

_PADDING = 8  # intensity up to which a pixel is black padding
_SAMPLE_PX = 16_000  # statistics of colour are taken from about so many pixels
_BIN = 0.02  # natural units of optical density
_STAINED = 0.15  # summed density that noise and uneven light seldom reach
_GREY = 10  # largest difference of channels in a greyscale image, compression included
_OF_GREEN = 0.82  # of red and blue light: what lets less green through is stained all over
_LARGE_SIDE_UM = 60.0
_FULL = 0.93  # share of stained pixels beyond which a field shows tissue or a far too thick film
_SEEN = 0.3  # probability from which a pixel counts as a blood cell's
_NEAR_UM = 4.0
_LEAST_CELLS = 0.1  # share of what is stained that blood cells cover on a film
_DENSITY = (-np.log((np.arange(256) + 1.0) / 256.0)).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """Colours of an image.

    Attributes:
        background_rgb: colour of the empty background, the brightest frequent one.
        stained: bool (H, W) of the thinned image, where something lies on the glass.
        step: pixels of the image between those of ``stained``.
        foreground: share of stained pixels.
        refusal: why the image cannot be judged by its colours, or empty.
    """

    background_rgb: tuple[int, int, int]
    stained: NDArray[np.bool_]
    step: int
    foreground: float
    refusal: str


def film_of(work: NDArray[np.uint8]) -> Film:
    """Measure the colours of an image, uint8 RGB (H, W, 3), at the working resolution."""
    step = max(1, round(float(np.sqrt(work.shape[0] * work.shape[1] / _SAMPLE_PX))))
    pixels = np.ascontiguousarray(work[::step, ::step])
    valid = pixels.max(axis=2) > _PADDING
    density = np.asarray(cv2.LUT(pixels, _DENSITY), dtype=np.float32)
    background = _background(density[valid])
    total = (density - background).sum(axis=2)
    stained = valid & (total > _STAINED)
    rgb = np.clip(np.round(np.exp(-background) * 256 - 1), 0, 255)
    red, green, blue = (int(v) for v in rgb)
    foreground = float(stained.mean())
    refusal = _refusal(pixels, total, valid, stained, (red, green, blue))
    return Film((red, green, blue), stained, step, foreground, refusal)


def _refusal(
    pixels: NDArray[np.uint8],
    total: NDArray[np.float32],
    valid: NDArray[np.bool_],
    stained: NDArray[np.bool_],
    background_rgb: tuple[int, int, int],
) -> str:
    if valid.mean() < 0.3:
        return "no background: the image is almost black"
    spread = (pixels.max(axis=2) - pixels.min(axis=2))[valid]
    empty = float((valid & (np.abs(total) < _STAINED)).mean())
    reasons = {
        "no stained cells: the image is empty": float(stained.mean()) < 0.0002,
        "greyscale: colour is needed to tell leukocytes from red cells": (
            float(np.quantile(spread, 0.99)) < _GREY
        ),
        "no background: no bright, even area between cells": (
            max(background_rgb) < 60 or empty < 0.02
        ),
        "not a blood film: the background is stained": (
            background_rgb[1] < _OF_GREEN * min(background_rgb[0], background_rgb[2])
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def unlike_blood(film: Film, maps: Maps, side_um: float) -> str:
    """Reason to refuse an image by what the network sees in it, or empty.

    Args:
        film: its colours.
        maps: of the same image.
        side_um: its longer side; a small crop may be full of one cell.
    """
    if side_um <= _LARGE_SIDE_UM:
        return ""
    if film.foreground > _FULL:
        return "not a blood film: no room between cells, as in a tissue section"
    if explained(film, maps) < _LEAST_CELLS:
        return "not a blood film: what is stained has not the shape of blood cells"
    return ""


def explained(film: Film, maps: Maps) -> float:
    """Share of what is stained that the network takes for red cells, leukocytes or platelets."""
    h, w = film.stained.shape
    cell = maps.cell[:: film.step, :: film.step][:h, :w] > np.log(_SEEN / (1 - _SEEN))
    other = cv2.max(maps.red_cell, maps.platelet) > _SEEN
    other = cv2.resize(other.view(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST) > 0
    return float((film.stained & (cell | other)).sum() / max(film.stained.sum(), 1))


def near_stain(film: Film, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Where something stained lies within 4 um, bool of the coarse maps' shape (h, w).

    Elsewhere is empty glass: on nearly empty images the network now and then sees a cell in a
    corner of it.
    """
    reach = round(_NEAR_UM / (WORK_UM_PX * film.step))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    wide = cv2.dilate(film.stained.view(np.uint8), kernel)
    return cv2.resize(wide, shape[::-1], interpolation=cv2.INTER_NEAREST) > 0


def _background(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Optical density of the empty background: the brightest frequent one, of (n, 3) pixels."""
    if len(pixels) == 0:
        return np.zeros(3, np.float32)
    total = pixels.sum(axis=1)
    counts = np.bincount((total / _BIN).astype(np.int64))
    smooth = np.convolve(np.pad(counts, 3), [1, 2, 3, 2, 1], "same")
    inner = smooth[1:-1]
    peaks = (inner >= smooth[:-2]) & (inner >= smooth[2:]) & (inner > 0.1 * smooth.max())
    peak = (int(np.argmax(peaks)) + 1 - 3) * _BIN
    near = pixels[np.abs(total - peak - _BIN / 2) < 0.08]
    return np.asarray(np.median(near, axis=0), dtype=np.float32)
