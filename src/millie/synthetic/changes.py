"""What laboratories do to an image: focus, compression, stain, light and scale, by degrees.

Owns the changes of real images (uint8 RGB, (H, W, 3)); drawn films are made by the other modules.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]


def blur(image: Pixels, sigma_px: float) -> Pixels:
    """Gaussian blur; 0 changes nothing."""
    return image if sigma_px == 0 else np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px))


def compress(image: Pixels, quality: float) -> Pixels:
    """Encoded as JPEG and decoded; 100 changes nothing."""
    if quality >= 100:
        return image
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=int(quality))
    with Image.open(stream, formats=("JPEG",)) as decoded:
        return np.asarray(decoded)


def turn_hue(image: Pixels, turn: float) -> Pixels:
    """Hue turned by a fraction of the circle; 0 changes nothing."""
    if turn == 0:
        return image
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360 * turn) % 360
    turned = np.rint(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255)
    return np.clip(turned, 0, 255).astype(np.uint8)


def restain(image: Pixels, strength: float) -> Pixels:
    """Optical density against the brightest pixels (97th percentile) times a factor."""
    white = np.percentile(image, 97, axis=(0, 1))
    changed: Pixels = np.clip(white * ((image + 1.0) / (white + 1)) ** strength, 0, 255).astype(
        np.uint8
    )
    return changed


def recolour(image: Pixels, gains: tuple[float, float, float]) -> Pixels:
    """Red, green and blue light times a factor each."""
    changed: Pixels = np.clip(image * np.array(gains), 0, 255).astype(np.uint8)
    return changed


def rescale(image: Pixels, factor: float) -> Pixels:
    """More pixels (above 1) or fewer of the same view: um/px is divided by the factor."""
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=how), np.uint8)


@dataclass(frozen=True, slots=True)
class Interference:
    """A change that a laboratory may meet, at a degree that a person would still read.

    Attributes:
        words: what it does, with its degree.
        apply: image to image.
        scale: pixels of the changed image along one of the original.
    """

    words: str
    apply: Callable[[Pixels], Pixels]
    scale: float = 1.0


INTERFERENCES: dict[str, Interference] = {
    "blur": Interference(
        "Gaussian blur, standard deviation 2 px of the image", partial(blur, sigma_px=2)
    ),
    "JPEG": Interference("JPEG of quality 20", partial(compress, quality=20)),
    "weak stain": Interference("optical density times 0.6", partial(restain, strength=0.6)),
    "strong stain": Interference("optical density times 1.6", partial(restain, strength=1.6)),
    "hue": Interference("hue turned by 0.05 of the circle", partial(turn_hue, turn=0.05)),
    "dark": Interference("exposure times 0.7", partial(recolour, gains=(0.7, 0.7, 0.7))),
    "yellow light": Interference(
        "red, green and blue times 1.1, 1.05 and 0.75", partial(recolour, gains=(1.1, 1.05, 0.75))
    ),
    "smaller scale": Interference(
        "0.75 times as many pixels along each side, the scale stated where it was known",
        partial(rescale, factor=0.75), 0.75,
    ),
    "larger scale": Interference(
        "1.25 times as many pixels along each side, the scale stated where it was known",
        partial(rescale, factor=1.25), 1.25,
    ),
}  # fmt: skip
"""By the names that a validation plan uses."""
