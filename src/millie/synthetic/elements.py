"""What lies between the leukocytes: red cells, platelets, dirt.

Owns their shapes and painting. They have no truth of their own: a method that looks for
leukocytes has to leave them alone.

Source: E. Evans, Y.-C. Fung, Microvasc Res 4 (1972) 335, for the biconcave profile; B. J. Bain,
Blood Cells, 6th ed. (2022), ch. 3, for platelets (1 to 3 um, giant ones above a red cell's size).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from millie.synthetic.shapes import coverage, ellipse, join, specks, square_grid
from millie.synthetic.stain import Dye

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from millie.synthetic.shapes import Noise, Plane

CRENATED_SHARE = 0.35
"""Of poikilocytes; the rest are drawn out to ovals and drops."""


def paint_red_cell(
    diameter_um: float, pallor: float, um_px: float, noise: Noise, rng: np.random.Generator,
    *, misshapen: bool = False,
) -> Plane:  # fmt: skip
    """Haemoglobin of one red cell, float32 (H, W); 1 is the full thickness of a normal one.

    Args:
        diameter_um: of a disc of its area.
        pallor: depth of the central pallor, 0 to 1.
        um_px: um per pixel of the drawing.
        noise: textures at that scale.
        rng: draws the form.
        misshapen: crenated or drawn out.
    """
    grid = square_grid(int(np.ceil((diameter_um * 1.5 + 1.5) / um_px)), um_px)
    bend = [noise.take(noise.broad, grid, rng) * np.float32(0.14) for _ in range(2)]
    warped = grid.warped(bend[0], bend[1])
    radius = diameter_um / 2
    long = float(np.exp(abs(rng.normal(0, 0.045))))
    crenated = misshapen and rng.random() < CRENATED_SHARE
    if misshapen and not crenated:
        long = rng.uniform(1.15, 1.35)
    axes = (radius * long, radius / long)
    distance = ellipse(warped, (0, 0), axes, rng.uniform(0, np.pi))
    if crenated:
        angle = np.arctan2(grid.y, grid.x)
        spikes = np.float32(0.3) * np.cos(angle * int(rng.integers(9, 13)))
        distance = distance + spikes * np.exp(-np.square(distance / np.float32(0.8)))
    return _profile(distance, radius, pallor * rng.uniform(0.45, 1.25), rng)


def _profile(distance: Plane, radius_um: float, pallor: float, rng: np.random.Generator) -> Plane:
    """Thickness across the cell: a rim, a pale middle, as it dries on the glass."""
    reach = np.clip(distance / np.float32(radius_um) + 1, 0, None)
    width = rng.uniform(0.32, 0.5)
    dimple = np.exp(-np.power(reach / np.float32(width), 3))
    rim = np.float32(0.15) * np.exp(-np.square((distance + np.float32(0.45)) / np.float32(0.35)))
    body = np.float32(0.92) + rim - np.float32(min(pallor, 0.95)) * dimple
    return np.asarray(body * coverage(distance, 0.3) * rng.uniform(0.88, 1.1), dtype=np.float32)


def paint_platelets(
    n: int, diameter_um: float, um_px: float, noise: Noise, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Amounts of dye (dyes, H, W) of one platelet, or of a clump of ``n``.

    Each has a lilac body with a frayed edge and a centre of purple granules.
    """
    spread = 0.0 if n == 1 else 0.62 * diameter_um * np.sqrt(n)
    grid = square_grid(int(np.ceil((2 * spread + diameter_um * 1.8 + 1.5) / um_px)), um_px)
    fray = noise.take(noise.coarse, grid, rng) * np.float32(0.13)
    body, granulomere = None, np.zeros_like(grid.x)
    for _ in range(n):
        place = rng.normal(0, 0.5 * spread, 2) if n > 1 else np.zeros(2)
        size = diameter_um / 2 * (rng.uniform(0.75, 1.2) if n > 1 else 1.0)
        long = rng.uniform(1.0, 1.3)
        centre = (float(place[0]), float(place[1]))
        one = ellipse(grid, centre, (size * long, size / long), rng.uniform(0, np.pi)) + fray
        body = one if body is None else join(body, one, 0.3)
        count = int(rng.integers(5, 10) * max(1.0, diameter_um / 2.5) ** 2)
        spots = place + rng.normal(0, 0.36 * size, (count, 2))
        granulomere += specks(grid, spots, rng.uniform(0.25, 0.6, count), 0.2)
    amounts = np.zeros((len(Dye), *grid.x.shape), dtype=np.float32)
    cover = coverage(body if body is not None else grid.x, 0.45)
    amounts[Dye.BASOPHIL] = np.float32(0.38) * cover
    amounts[Dye.AZUROPHIL] = np.float32(0.1) * cover + np.float32(0.42) * granulomere * cover
    amounts[Dye.CHROMATIN] = np.float32(0.14) * granulomere * cover
    return amounts


def paint_debris(um_px: float, noise: Noise, rng: np.random.Generator) -> NDArray[np.float32]:
    """Amounts of dye (dyes, H, W) of a spatter of stain precipitate or of a speck of dust."""
    grid = square_grid(int(np.ceil(14.0 / um_px)), um_px)
    amounts = np.zeros((len(Dye), *grid.x.shape), dtype=np.float32)
    if rng.random() < 0.75:
        n = int(rng.integers(3, 30))
        points = rng.normal(0, rng.uniform(0.6, 2.0), (n, 2))
        inside = points[np.abs(points).max(axis=1) < 6.0]
        weights = rng.uniform(0.3, 1.3, len(inside))
        amounts[Dye.CHROMATIN] = specks(grid, inside, weights, rng.uniform(0.12, 0.28))
    else:
        fray = noise.take(noise.coarse, grid, rng) * np.float32(0.3)
        size = rng.uniform(0.5, 1.8)
        distance = ellipse(grid, (0, 0), (size, size * 0.7), rng.uniform(0, np.pi)) + fray
        amounts[Dye.SOOT] = np.float32(rng.uniform(0.2, 0.8)) * coverage(distance, 1.2)
    return amounts
