"""Scale: how many micrometres a pixel covers, read from the cells by the network.

Owns the search for the scale of one image, from coarse to fine, and what the images of a sample
say together. The network was shown cells at 0.1 to 1.4 um/px and says how large they look.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from millie.segmentation.network import COARSE, WORK_UM_PX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from millie.segmentation.network import Maps

_FIRST_SIDE_PX = 128, 192  # of the whole image at the first look, an eighth of it in between
_SIDE_PX = 192  # of the middle of the image at the next ones
_LOOKS = 5
_FAR, _FARTHER = 0.5, 1.6  # what looks far off at first is farther: answers lean to the usual scale
_CAUTION = 0.8  # share of a change that is made: answers may overshoot
_SETTLED = 0.1  # change in log2 after which another look tells nothing new
_RED_CELL_UM2 = 40.7  # a disc of 7.2 um
LEAST_RED_CELLS = 3.0  # in view: the scale is measured, not guessed
_IMAGES_TO_CONTRADICT, _RED_CELLS = 3, 20.0  # of a sample, before its stated scale may be doubted
CONTRADICTED = 1.2
"""Factor from which red cells contradict a stated scale (docs/segmentation.md has what they say of
sets whose scale is known)."""
_AGREE = 0.25  # difference of natural logarithms within which two images have one scale
_RANGE_UM_PX = (0.02, 2.0)
_SPREADS = (-4.0, 2.0)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one image says about its scale.

    Attributes:
        um_px: um per pixel of the image.
        red_cells: in view at the last look, by their area.
        leukocyte: there is one in view.
    """

    um_px: float
    red_cells: float
    leukocyte: bool

    @property
    def sure(self) -> bool:
        """Whether red cells stand behind it."""
        return self.red_cells >= LEAST_RED_CELLS


@dataclass(frozen=True, slots=True)
class SampleStatistics:
    """What the images of one sample say together about scale.

    Attributes:
        um_px: um per pixel for each image size, as ``{"640x480": 0.072}``; sizes of one sample
            may differ because the camera or the magnification does.
        n_red_cells: red cells behind it.
        n_images: images looked at.
        over_stated: the scale that red cells show, as a multiple of the one that is stated for the
            same images (median); None: stated of too few, or too few red cells are in view.
    """

    um_px: dict[str, float]
    n_red_cells: float
    n_images: int
    over_stated: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-able values."""
        return asdict(self)


def read_scale(
    image: NDArray[np.uint8],
    maps_of: Callable[[NDArray[np.uint8]], Maps],
    resized: Callable[[NDArray[np.uint8], float], NDArray[np.uint8]],
    red_cell_um: float,
) -> Reading:
    """Look at an image, first small and whole, then at its middle at the scale found so far.

    Args:
        image: uint8 RGB (H, W, 3).
        maps_of: the network.
        resized: makes an image smaller or larger by a factor.
        red_cell_um: diameter of red cells, 7.2 in those it learnt from.
    """
    longest = max(image.shape[:2])
    first = float(np.clip(longest / 8, *_FIRST_SIDE_PX))
    um_px = WORK_UM_PX * min(1.0, first / longest)
    for look in range(_LOOKS):
        part = _middle(image, round(_SIDE_PX * WORK_UM_PX / um_px))
        maps = maps_of(resized(part, um_px / WORK_UM_PX))
        change = _log2_scale(maps)
        if look == 0 and abs(change) > _FAR:
            change *= _FARTHER
        elif look > 0:
            change *= _CAUTION
        um_px = float(np.clip(um_px * 2**change, *_RANGE_UM_PX))
        if abs(change) < _SETTLED:
            break
    area = float(np.count_nonzero(maps.red_cell > 0.5)) * (WORK_UM_PX * COARSE * 2**change) ** 2
    leukocyte = bool((maps.centre > 0.5).any())
    return Reading(um_px * red_cell_um / 7.2, area / _RED_CELL_UM2, leukocyte)


def _middle(image: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    h, w = min(height, side_px), min(width, side_px)
    top, left = (height - h) // 2, (width - w) // 2
    return image[top : top + h, left : left + w]


def _log2_scale(maps: Maps) -> float:
    """The places' answer, each by its certainty: their weighted median."""
    values = maps.log2_scale[:, 0]
    weights = np.exp(-2 * maps.log2_scale[:, 1].clip(*_SPREADS))
    order = np.argsort(values)
    upto = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(upto, upto[-1] / 2)])


def pooled(readings: Sequence[Reading]) -> tuple[float, float]:
    """um/px that images of one size share and red cells behind it; 0, 0 where they disagree."""
    sure = [r for r in readings if r.sure] or list(readings)
    logs = np.log([r.um_px for r in sure])
    weights = np.array([min(r.red_cells, 50.0) + 0.1 for r in sure])
    order = np.argsort(logs)
    upto = np.cumsum(weights[order])
    middle = float(logs[order][np.searchsorted(upto, upto[-1] / 2)])
    apart = np.abs(logs - middle) > _AGREE
    if weights[apart].sum() > 0.2 * weights.sum():
        return 0.0, 0.0
    red_cells = float(sum(r.red_cells for r in readings))
    return float(np.exp(middle)), red_cells


def over_stated(readings: Sequence[Reading]) -> float | None:
    """What red cells say of a sample's scale over what is stated: the median of its images.

    Args:
        readings: of images that state their scale, each divided by it.

    Returns:
        None where fewer than three images show enough red cells.
    """
    sure = [r for r in readings if r.sure]
    if len(sure) < _IMAGES_TO_CONTRADICT or sum(r.red_cells for r in sure) < _RED_CELLS:
        return None
    return float(np.median([r.um_px for r in sure]))


def is_contradicted(over_stated: float) -> bool:
    """Whether red cells that say so many times the stated scale contradict it."""
    return not 1 / CONTRADICTED <= over_stated <= CONTRADICTED
