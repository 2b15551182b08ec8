"""What is done to fields before the segmentation is measured on them: light, stain, scale, file."""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def squeezed(image: Pixels) -> Pixels:
    return np.asarray(cv2.resize(image, (416, 416), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def recoloured(gains: tuple[float, float, float]) -> Callable[[Pixels], Pixels]:
    return lambda image: np.clip(image * np.array(gains), 0, 255).astype(np.uint8)


def restained(strength: float) -> Callable[[Pixels], Pixels]:
    """Optical density against the brightest percentile times a factor."""

    def change(image: Pixels) -> Pixels:
        white = np.percentile(image, 97, axis=(0, 1))
        return np.clip(white * ((image + 1.0) / (white + 1)) ** strength, 0, 255).astype(np.uint8)

    return change


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


def turned(by: float) -> Callable[[Pixels], Pixels]:
    """Hue turned by a share of the circle."""

    def change(image: Pixels) -> Pixels:
        hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + 360 * by) % 360
        return np.clip(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255, 0, 255).astype(np.uint8)

    return change


def jpeg(quality: int) -> Callable[[Pixels], Pixels]:
    def change(image: Pixels) -> Pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer).convert("RGB"))

    return change


def scaled(factor: float) -> Callable[[Pixels], Pixels]:
    def change(image: Pixels) -> Pixels:
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        return np.asarray(
            cv2.resize(image, None, fx=factor, fy=factor, interpolation=how), np.uint8
        )

    return change


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
    "blue light": recoloured((0.8, 0.9, 1.1)),
    "yellow light": recoloured((1.1, 1.05, 0.75)),
    "exposure x 0.7": recoloured((0.7, 0.7, 0.7)),
    "exposure x 1.2": recoloured((1.2, 1.2, 1.2)),
    "stain x 0.6": restained(0.6),
    "stain x 1.6": restained(1.6),
    "JPEG quality 20": jpeg(20),
    "scale x 0.75": scaled(0.75),
    "scale x 1.25": scaled(1.25),
    "scale x 0.4": scaled(0.4),
    "stain x 0.4": restained(0.4),
    "purple red cells": dyed(PURPLE, 1),
    "dark purple red cells": dyed(PURPLE, 1.6),
    "pale red cells": dyed(RED_CELL, 0.45),
    "corners at 0.4 of the light": darkened(0.6),
    "black text": written((0, 0, 0)),
    "blue text": written((40, 40, 220)),
    "magenta text": written((220, 20, 200)),
    "yellow text": written((255, 230, 0)),
    "blue text, JPEG quality 75": lambda image: jpeg(75)(written((40, 40, 220))(image)),
    "magenta text, JPEG quality 75": lambda image: jpeg(75)(written((220, 20, 200))(image)),
}
