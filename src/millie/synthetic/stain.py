"""Dyes, light and camera: from amounts of dye to a picture.

Owns the physics of the image: dyes absorb (Beer-Lambert: absorbances add, transmittances
multiply), the lamp and the camera colour, shade, blur and disturb what passes. One
:class:`PatientStyle` holds for all fields of a patient, because one smear is stained and
photographed in one go. A style is never drawn from the diagnosis.

Source: A. C. Ruifrok, D. A. Johnston, Quantification of histochemical staining by color
deconvolution, Anal Quant Cytol Histol 23 (2001) 291, for absorbance vectors of dyes; B. J. Bain,
Dacie and Lewis Practical Haematology, 12th ed. (2017), ch. 4, for the Romanowsky colours. The
numbers of the vectors are chosen to match photographs by eye.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING

import cv2
import numpy as np

from millie.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


class Dye(IntEnum):
    """What absorbs light in a Romanowsky-stained film; the index of its amount in a patch."""

    CHROMATIN = 0
    """Azure B with eosin on DNA: purple."""
    BASOPHIL = 1
    """Azure B on the RNA of cytoplasm: blue."""
    EOSIN = 2
    """Eosin on basic protein: pink."""
    AZUROPHIL = 3
    """Primary granules and Auer rods: red-purple."""
    ORANGE = 4
    """Granules of eosinophils: orange-red."""
    HAEMOGLOBIN = 5
    """Red cells: eosin on haemoglobin."""
    SOOT = 6
    """Dust and dirt: grey."""


# Natural-log absorbance in red, green, blue of a unit amount: at blue and at red end of the stain.
_BLUE_END = np.array([[1.52, 1.92, 0.50], [0.62, 0.44, 0.09], [0.10, 0.33, 0.20],
                      [1.05, 1.90, 0.65], [0.30, 0.85, 0.80], [0.40, 0.62, 0.50],
                      [0.80, 0.80, 0.80]], dtype=np.float32)  # fmt: skip
_RED_END = np.array([[1.05, 2.15, 0.92], [0.50, 0.45, 0.15], [0.05, 0.36, 0.24],
                     [0.68, 2.00, 0.95], [0.16, 0.85, 1.00], [0.15, 0.52, 0.48],
                     [0.80, 0.80, 0.80]], dtype=np.float32)  # fmt: skip

_RANGES: dict[str, tuple[float, float]] = {
    "strength": (0.3, 2.0), "redness": (0.0, 1.0), "red_cell_redness": (0.0, 1.0),
    "red_cell_strength": (0.2, 2.0), "pallor": (0.0, 1.0), "plasma": (0.0, 0.3),
    "exposure": (0.3, 1.0), "warmth": (-1.0, 1.0), "tint": (-1.0, 1.0), "vignette": (0.0, 0.6),
    "gradient": (0.0, 0.5), "gradient_angle": (-6.3, 6.3), "blur_um": (0.0, 2.0),
    "noise": (0.0, 30.0), "jpeg_quality": (0, 100),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientStyle:
    """Stain, light and camera, the same in all fields of a patient.

    Attributes:
        strength: factor on all absorbances; 1 is a well stained film.
        redness: 0 alkaline, blue-purple nuclei (Giemsa) to 1 acid, red-purple (Wright).
        red_cell_redness: 0 purple-grey red cells to 1 pink ones.
        red_cell_strength: factor on their absorbance.
        pallor: depth of the central pallor of red cells, 0 none to 1 empty.
        plasma: absorbance of the dried plasma between the cells.
        exposure: brightness of the empty field, 1 is just not overexposed.
        warmth: colour of the lamp, -1 bluish to 1 yellowish.
        tint: -1 green to 1 magenta.
        vignette: loss of light in the corners, fraction.
        gradient: loss of light from one side to the other, fraction.
        gradient_angle: where to, radians.
        blur_um: standard deviation of the optical blur, um.
        noise: standard deviation of the camera's noise at full light, of 255 levels.
        jpeg_quality: 1 to 100; 0: no JPEG artefacts.

    Raises:
        ConfigError: a value lies outside its range.
    """

    strength: float = 1.0
    redness: float = 0.5
    red_cell_redness: float = 0.5
    red_cell_strength: float = 1.0
    pallor: float = 0.55
    plasma: float = 0.02
    exposure: float = 0.95
    warmth: float = 0.2
    tint: float = 0.0
    vignette: float = 0.05
    gradient: float = 0.02
    gradient_angle: float = 0.0
    blur_um: float = 0.1
    noise: float = 1.5
    jpeg_quality: int = 92

    def __post_init__(self) -> None:
        for item in fields(self):
            low, high = _RANGES[item.name]
            value = getattr(self, item.name)
            if not low <= value <= high:
                raise ConfigError(
                    f"PatientStyle.{item.name}={value}: expected {low} to {high}; "
                    "choose a value in that range"
                )

    def absorbances(self) -> NDArray[np.float32]:
        """Absorbance (natural log) of a unit of each dye, float32 (dyes, 3 of RGB)."""
        share = np.full((len(Dye), 1), self.redness, dtype=np.float32)
        share[Dye.HAEMOGLOBIN] = self.red_cell_redness
        table = (1 - share) * _BLUE_END + share * _RED_END
        table[Dye.HAEMOGLOBIN] *= self.red_cell_strength
        return np.asarray(table * self.strength, dtype=np.float32)

    def background_rgb(self) -> tuple[float, float, float]:
        """Colour of the empty film in the middle of a field, 0 to 255."""
        warm, tint = self.warmth, self.tint
        light = np.array([
            1 - 0.09 * max(-warm, 0) - 0.03 * max(-tint, 0),
            1 - 0.06 * abs(warm) - 0.05 * max(tint, 0),
            1 - 0.17 * max(warm, 0) - 0.03 * max(-tint, 0),
        ])  # fmt: skip
        red, green, blue = (light * self.exposure * 255).tolist()
        return red, green, blue


def draw_style(rng: np.random.Generator) -> PatientStyle:
    """A style as laboratories differ: pale to dark, blue to red, warm to cold, sharp to soft."""
    return PatientStyle(
        strength=float(rng.uniform(0.85, 1.2)),
        redness=float(rng.uniform(0.1, 0.95)),
        red_cell_redness=float(rng.uniform(0.0, 1.0)),
        red_cell_strength=float(rng.uniform(0.75, 1.2)),
        pallor=float(rng.uniform(0.25, 0.75)),
        plasma=float(rng.uniform(0.0, 0.05)),
        exposure=float(rng.uniform(0.84, 0.99)),
        warmth=float(rng.uniform(-0.5, 0.9)),
        tint=float(rng.uniform(-0.5, 0.5)),
        vignette=float(rng.uniform(0.0, 0.14)),
        gradient=float(rng.uniform(0.0, 0.08)),
        gradient_angle=float(rng.uniform(-np.pi, np.pi)),
        blur_um=float(rng.uniform(0.08, 0.17)),
        noise=float(rng.uniform(0.6, 2.2)),
        jpeg_quality=int(rng.integers(86, 97)),
    )


def photograph(
    absorbance: NDArray[np.float32], um_px: float, style: PatientStyle, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The camera's picture of a film.

    Args:
        absorbance: float32 (H, W, 3), natural log, of everything on the glass; overwritten.
        um_px: um per pixel.
        style: light and camera.
        rng: draws the noise.

    Returns:
        uint8 RGB (H, W, 3).
    """
    np.negative(absorbance, out=absorbance)
    light = np.exp(absorbance, out=absorbance)
    sigma_px = style.blur_um / um_px
    if sigma_px > 0.2:
        cv2.GaussianBlur(light, (0, 0), sigma_px, dst=light)
    colour = np.array(style.background_rgb(), dtype=np.float32)
    image = np.empty(light.shape, dtype=np.uint8)
    for rows in strips(light.shape[0]):
        part = light[rows]
        part *= colour
        part *= _illumination(light.shape[0], light.shape[1], rows, style)[..., None]
        # Shot noise: the variance is proportional to the light.
        grain = rng.standard_normal(part.shape, dtype=np.float32)
        grain *= np.sqrt(part * np.float32(style.noise**2 / 255))
        part += grain
        image[rows] = np.clip(np.rint(part, out=part), 0, 255, out=part)
    return _jpeg(image, style.jpeg_quality) if style.jpeg_quality else image


def strips(height: int, rows: int = 64) -> Iterator[slice]:
    """Slices of rows that together are the image: small enough to stay in the cache."""
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def _illumination(height: int, width: int, rows: slice, style: PatientStyle) -> NDArray[np.float32]:
    """Light on some rows of the field relative to its middle, float32 (rows, W)."""
    half = np.float32(max(height, width) / 2)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
    y = (y - np.float32(height / 2)) / half
    x = (np.arange(width, dtype=np.float32)[None, :] - np.float32(width / 2)) / half
    slope = np.float32(np.cos(style.gradient_angle)) * x
    slope = slope + np.float32(np.sin(style.gradient_angle)) * y
    corner2 = np.float32(max((height**2 + width**2) / max(height, width) ** 2, 1e-9))
    return (1 - np.float32(style.vignette) * (x * x + y * y) / corner2) * (
        1 - np.float32(style.gradient) * np.float32(0.5) * (1 + slope)
    )


def _jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)
