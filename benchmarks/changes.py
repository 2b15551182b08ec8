"""What is done to fields before the segmentation is measured on them: light, stain, scale, file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from millie.synthetic.changes import compress, recolour, rescale, restain

Pixels = NDArray[np.uint8]


def squeezed(image: Pixels) -> Pixels:
    return np.asarray(cv2.resize(image, (416, 416), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def dyed(colour: tuple[float, float, float], strength: float) -> Callable[[Pixels], Pixels]:
    """Red cells in another colour (direction of their density) and so many times as dense."""

    def dye(image: Pixels) -> Pixels:
        white = np.percentile(image, 97, axis=(0, 1)) + 1
        density = -np.log((image.astype(np.float32) + 1) / white)
        dyes = np.array([v / np.linalg.norm(v) for v in (RED_CELL, NUCLEUS)])
        amounts = np.maximum(density @ np.linalg.pinv(dyes), 0)
        change = strength * np.array(colour) / np.linalg.norm(colour) - dyes[0]
        out = white * np.exp(-density - amounts[..., :1] * change)
        return np.clip(out, 0, 255).astype(np.uint8)

    return dye


RED_CELL, NUCLEUS, PURPLE = (0.10, 0.28, 0.14), (0.7, 0.7, 0.2), (0.40, 0.55, 0.16)
"""Densities: of BCCD, about, and of red cells in other sets."""


def darkened(share: float) -> Callable[[Pixels], Pixels]:
    """Light that falls off by that share from the middle to the corners."""

    def light(size: int) -> NDArray:
        return np.linspace(-1, 1, size) ** 2 * share / 2

    return lambda image: np.uint8(
        image * (1 - light(image.shape[1]) - light(image.shape[0])[:, None])[..., None]
    )


def written(colour: tuple[int, int, int]) -> Callable[[Pixels], Pixels]:
    """A scale bar and its text, burned in."""

    def write(image: Pixels) -> Pixels:
        height, width = image.shape[:2]
        out = image.copy()
        cv2.rectangle(out, (width - 140, height - 40), (width - 20, height - 32), colour, -1)
        place = (width - 130, height - 50)
        cv2.putText(out, "20 um", place, cv2.FONT_HERSHEY_SIMPLEX, 1.2, colour, 3)
        return out

    return write


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "as it is": lambda image: image,
    "416 x 416 px": squeezed,
    "blue light": partial(recolour, gains=(0.8, 0.9, 1.1)),
    "yellow light": partial(recolour, gains=(1.1, 1.05, 0.75)),
    "exposure x 0.7": partial(recolour, gains=(0.7, 0.7, 0.7)),
    "exposure x 1.2": partial(recolour, gains=(1.2, 1.2, 1.2)),
    "stain x 0.6": partial(restain, strength=0.6),
    "stain x 1.6": partial(restain, strength=1.6),
    "JPEG quality 20": partial(compress, quality=20),
    "scale x 0.75": partial(rescale, factor=0.75),
    "scale x 1.25": partial(rescale, factor=1.25),
    "scale x 0.4": partial(rescale, factor=0.4),
    "stain x 0.4": partial(restain, strength=0.4),
    "purple red cells": dyed(PURPLE, 1),
    "dark purple red cells": dyed(PURPLE, 1.6),
    "pale red cells": dyed(RED_CELL, 0.45),
    "corners at 0.4 of the light": darkened(0.6),
    "black text": written((0, 0, 0)),
    "blue text": written((40, 40, 220)),
    "magenta text": written((220, 20, 200)),
    "yellow text": written((255, 230, 0)),
    "blue text, JPEG quality 75": lambda image: compress(written((40, 40, 220))(image), 75),
    "magenta text, JPEG quality 75": lambda image: compress(written((220, 20, 200))(image), 75),
}
