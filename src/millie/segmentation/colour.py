"""Colour transfer: an image of one source given the colours of another (Reinhard et al. 2001).

Owns the space l-alpha-beta, in which the channels of natural images hardly depend on each other,
the statistics of a source in it, and the transfer. It does not choose images: statistics must be
fitted on the training part alone, or the test part has been seen.

Source: Reinhard, Ashikhmin, Gooch, Shirley: Color transfer between images. IEEE Computer Graphics
and Applications 21(5), 2001, eqs. 4 to 10.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np

from millie.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_LMS_OF_RGB = np.array(
    [[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]], np.float64
)  # eq. 4, the product of RGB to XYZ and XYZ to LMS
_LAB_OF_LOG_LMS = np.diag([1 / math.sqrt(3), 1 / math.sqrt(6), 1 / math.sqrt(2)]) @ np.array(
    [[1, 1, 1], [1, 1, -2], [1, -1, 0]], np.float64
)  # eq. 6
_RGB_OF_LMS = np.linalg.inv(_LMS_OF_RGB)
_LOG_LMS_OF_LAB = np.linalg.inv(_LAB_OF_LOG_LMS)
_FLAT = 1e-4  # deviation, log10 units, below which a channel has no contrast to be scaled


@dataclass(frozen=True, slots=True)
class ColourStatistics:
    """Colours of a source: mean and deviation in l-alpha-beta over all its pixels.

    Attributes:
        mean: of l, alpha and beta, in log10 units.
        deviation: standard deviation of the same, 0 or more.
        n_pixels: pixels behind it.
    """

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    n_pixels: int

    def __post_init__(self) -> None:
        finite = all(math.isfinite(value) for value in (*self.mean, *self.deviation))
        if len(self.mean) != 3 or len(self.deviation) != 3 or not finite or min(self.deviation) < 0:
            raise ConfigError(
                f"colour statistics {self.mean}, {self.deviation}: expected 3 finite means and "
                "3 deviations of 0 or more; fit them again"
            )

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-able values."""
        return {
            "mean": list(self.mean),
            "deviation": list(self.deviation),
            "n_pixels": self.n_pixels,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`.

        Raises:
            ConfigError: values are missing or are no statistics.
        """
        try:
            mean, deviation = tuple(values["mean"]), tuple(values["deviation"])
            return cls(mean, deviation, int(values["n_pixels"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"colour statistics {values!r}: expected mean, deviation and n_pixels; "
                "fit them again"
            ) from error


def fit(images: Iterable[NDArray[np.uint8]]) -> ColourStatistics:
    """Measure the colours of a source, image by image, in constant memory.

    Every pixel counts alike, so large images weigh more. The order of images does not matter
    beyond rounding.

    Args:
        images: uint8 RGB (H, W, 3) of the training part.

    Raises:
        ConfigError: no image, or one that is not uint8 RGB.
    """
    return join(_measure(image) for image in images)


def join(parts: Iterable[ColourStatistics]) -> ColourStatistics:
    """The statistics of all pixels behind several statistics, as if measured together.

    Raises:
        ConfigError: there are none.

    Source: Chan, Golub, LeVeque, The American Statistician 37:242 (1983), eq. 2.1.
    """
    count, mean, squares = 0, np.zeros(3), np.zeros(3)
    for part in parts:
        # Sums of squares about the mean, joined without cancellation.
        total = count + part.n_pixels
        shift = np.array(part.mean) - mean
        squares += np.square(part.deviation) * part.n_pixels
        squares += shift**2 * (count * part.n_pixels / total)
        mean += shift * (part.n_pixels / total)
        count = total
    if count == 0:
        raise ConfigError("colour statistics of no image; give at least one training image")
    return ColourStatistics(_triple(mean), _triple(np.sqrt(squares / count)), count)


def _measure(image: NDArray[np.uint8]) -> ColourStatistics:
    """Statistics of one image."""
    pixels = _to_lab(image).reshape(-1, 3)
    mean = pixels.mean(axis=0, dtype=np.float64)
    deviation = pixels.std(axis=0, dtype=np.float64)
    return ColourStatistics(_triple(mean), _triple(deviation), len(pixels))


def transfer(
    image: NDArray[np.uint8], source: ColourStatistics, target: ColourStatistics
) -> NDArray[np.uint8]:
    """Give an image of one source the colours of another (eqs. 10 and 11).

    All images of a source get the same change, so that what differs between them stays different.
    A channel in which the source has no contrast is shifted, not scaled.

    Args:
        image: uint8 RGB (H, W, 3).
        source: statistics of the source that the image comes from.
        target: statistics of the source whose colours it shall have.

    Returns:
        uint8 RGB (H, W, 3); colours beyond 0 to 255 are cut off.

    Raises:
        ConfigError: the image is not uint8 RGB.
    """
    lab = _to_lab(image)
    spread = np.array(source.deviation)
    scale = np.where(spread > _FLAT, np.array(target.deviation) / np.maximum(spread, _FLAT), 1.0)
    offset = np.array(target.mean) - scale * np.array(source.mean)
    # One affine map does both: scale, shift and the way back to log LMS (rows of cv2.transform).
    matrix = _LOG_LMS_OF_LAB @ np.column_stack([np.diag(scale), offset])
    logs = cv2.transform(lab, matrix.astype(np.float32))
    lms = np.power(np.float32(10), np.clip(logs, -4, 4, out=logs))
    rgb = cv2.transform(lms, _RGB_OF_LMS.astype(np.float32))
    return np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8)


def _to_lab(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """l-alpha-beta of an image, float32 (H, W, 3); for the logarithm, black is taken as 1."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ConfigError(
            f"image of {image.dtype} {image.shape}: expected uint8 RGB (H, W, 3); convert it first"
        )
    rgb = np.maximum(image, 1).astype(np.float32) / np.float32(255)
    logs = np.log10(cv2.transform(rgb, _LMS_OF_RGB.astype(np.float32)))
    lab = cv2.transform(logs, _LAB_OF_LOG_LMS.astype(np.float32))
    return np.asarray(lab, dtype=np.float32)


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third
