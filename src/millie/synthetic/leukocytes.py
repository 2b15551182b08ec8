"""Leukocytes: what each type looks like, and how one is painted.

Owns the table :data:`RECIPES` (one row a type: size, nucleus, chromatin, cytoplasm, granules) and
the painter that turns a row into amounts of dye. Positions in a field belong to
:mod:`millie.synthetic.film`.

Source: B. J. Bain, Blood Cells: A Practical Guide, 6th ed. (2022), ch. 3, and B. J. Bain,
M. Béné, Morphological and immunophenotypic clues to the WHO categories of acute myeloid
leukaemia, Acta Haematol 141 (2019) 232, for sizes, nuclear-cytoplasmic ratios and granules; J. M.
Bennett et al., Br J Haematol 33 (1976) 451 (FAB), for lymphoblasts and hypergranular APL.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import cv2
import numpy as np

from millie.synthetic import nuclei
from millie.synthetic.shapes import capsule, coverage, ellipse, pack, scatter, specks, square_grid
from millie.synthetic.stain import Dye

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from millie.synthetic.shapes import Grid, Noise, Plane

    Span = tuple[float, float]
    NucleusForm = Callable[[Grid, float, np.random.Generator], Plane]


class CellType(StrEnum):
    """Types of leukocytes that can be drawn."""

    LYMPHOCYTE = "lymphocyte"
    SEGMENTED_NEUTROPHIL = "segmented_neutrophil"
    BAND_NEUTROPHIL = "band_neutrophil"
    MONOCYTE = "monocyte"
    EOSINOPHIL = "eosinophil"
    BASOPHIL = "basophil"
    LYMPHOBLAST = "lymphoblast"
    MYELOBLAST = "myeloblast"
    PROMYELOCYTE = "promyelocyte"
    APL_PROMYELOCYTE = "apl_promyelocyte"
    SMUDGE = "smudge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Granules:
    """Granules of one kind.

    Attributes:
        per_um2: how many, range.
        diameter_um: size.
        dye: what they bind.
        amount: of dye at the middle of a granule.
        over_nucleus: share that lies over the nucleus, 0 none to 1 as dense as elsewhere.
        packed: side by side like cobbles, not at random.
    """

    per_um2: Span
    diameter_um: float
    dye: Dye
    amount: float
    over_nucleus: float = 0.0
    packed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a type of leukocyte looks; ranges are drawn from uniformly.

    Attributes:
        diameter_um: of the cell, flattened on the glass.
        nucleus: diameter of the nucleus as a share of the cell's.
        form: its shape.
        eccentric: how far it moves to the side, 0 central to 1 touching the membrane.
        chromatin: amount of dye.
        clumps: contrast of coarse clumps, 0 to 1.
        grain: contrast of the fine network, 0 to 1.
        nucleoli: number, range.
        nucleolus_contrast: how much paler they are, 0 to 1.
        basophilia: amount of blue dye in the cytoplasm.
        eosin: amount of pink dye in the cytoplasm.
        mottling: unevenness of the cytoplasm, 0 to 1.
        hof: paleness beside the nucleus (Golgi zone), 0 to 1.
        granules: kinds of granules.
        vacuoles: number, range.
        rods: probability of Auer rods; and their number, range.
        ragged: waviness of the outline, um.
    """

    diameter_um: Span
    nucleus: Span
    form: NucleusForm
    eccentric: Span = (0.1, 0.7)
    chromatin: float = 1.0
    clumps: float = 0.3
    grain: float = 0.1
    nucleoli: tuple[int, int] = (0, 0)
    nucleolus_contrast: float = 0.45
    basophilia: Span = (0.4, 0.8)
    eosin: float = 0.0
    mottling: float = 0.15
    hof: float = 0.0
    granules: tuple[Granules, ...] = ()
    vacuoles: tuple[int, int] = (0, 0)
    rods: tuple[float, int, int] = (0.0, 0, 0)
    ragged: float = 0.15


_NEUTROPHIL_GRANULES = (
    Granules(per_um2=(4.0, 8.0), diameter_um=0.3, dye=Dye.AZUROPHIL, amount=0.15),
    Granules(per_um2=(0.0, 0.4), diameter_um=0.38, dye=Dye.AZUROPHIL, amount=0.3),
)

RECIPES: dict[CellType, Recipe] = {
    CellType.LYMPHOCYTE: Recipe(
        diameter_um=(8.5, 11.0), nucleus=(0.78, 0.9), form=nuclei.dented, chromatin=0.99,
        clumps=0.38, grain=0.12, basophilia=(0.45, 0.9),
        granules=(Granules(per_um2=(0.0, 0.06), diameter_um=0.5, dye=Dye.AZUROPHIL, amount=0.7),),
    ),
    CellType.SEGMENTED_NEUTROPHIL: Recipe(
        diameter_um=(11.5, 14.0), nucleus=(0.68, 0.78), form=nuclei.segmented, chromatin=0.96,
        clumps=0.41, grain=0.12, eccentric=(0.0, 0.5), basophilia=(0.06, 0.14), eosin=0.28,
        mottling=0.2, granules=_NEUTROPHIL_GRANULES,
    ),
    CellType.BAND_NEUTROPHIL: Recipe(
        diameter_um=(11.5, 14.0), nucleus=(0.66, 0.76), form=nuclei.banded, chromatin=0.90,
        clumps=0.38, grain=0.12, eccentric=(0.0, 0.4), basophilia=(0.06, 0.14), eosin=0.28,
        mottling=0.2, granules=_NEUTROPHIL_GRANULES,
    ),
    CellType.MONOCYTE: Recipe(
        diameter_um=(14.5, 18.0), nucleus=(0.68, 0.8), form=nuclei.folded, chromatin=0.71,
        clumps=0.25, grain=0.17, basophilia=(0.42, 0.62), eosin=0.2, mottling=0.16, ragged=0.45,
        granules=(Granules(per_um2=(1.0, 3.0), diameter_um=0.26, dye=Dye.AZUROPHIL, amount=0.14),),
        vacuoles=(0, 7),
    ),
    CellType.EOSINOPHIL: Recipe(
        diameter_um=(12.0, 14.5), nucleus=(0.6, 0.7), form=nuclei.two_lobed, chromatin=0.90,
        clumps=0.38, grain=0.12, basophilia=(0.1, 0.2), eosin=0.5,
        granules=(Granules(per_um2=(2.2, 2.9), diameter_um=0.66, dye=Dye.ORANGE, amount=0.8,
                           over_nucleus=0.08, packed=True),),
    ),
    CellType.BASOPHIL: Recipe(
        diameter_um=(10.5, 13.0), nucleus=(0.7, 0.8), form=nuclei.two_lobed, chromatin=0.73,
        clumps=0.29, grain=0.12, basophilia=(0.2, 0.35), eosin=0.35, mottling=0.3,
        granules=(Granules(per_um2=(0.7, 1.3), diameter_um=0.8, dye=Dye.CHROMATIN, amount=1.1,
                           over_nucleus=0.9),),
    ),
    CellType.LYMPHOBLAST: Recipe(
        diameter_um=(10.5, 14.5), nucleus=(0.86, 0.93), form=nuclei.clefted, chromatin=0.82,
        clumps=0.14, grain=0.13, nucleoli=(0, 1), nucleolus_contrast=0.2, basophilia=(0.7, 1.2),
        eccentric=(0.3, 1.0), ragged=0.28,
    ),
    CellType.MYELOBLAST: Recipe(
        diameter_um=(14.0, 18.0), nucleus=(0.76, 0.87), form=nuclei.dented, chromatin=0.65,
        clumps=0.08, grain=0.19, nucleoli=(2, 4), basophilia=(0.7, 1.15), eccentric=(0.2, 0.8),
        hof=0.25, mottling=0.2, ragged=0.3, rods=(0.2, 1, 1),
        granules=(Granules(per_um2=(0.0, 0.12), diameter_um=0.4, dye=Dye.AZUROPHIL, amount=0.6),),
    ),
    CellType.PROMYELOCYTE: Recipe(
        diameter_um=(15.5, 19.5), nucleus=(0.6, 0.68), form=nuclei.round_form, chromatin=0.73,
        clumps=0.18, grain=0.19, nucleoli=(1, 2), eccentric=(0.75, 1.0), basophilia=(0.7, 1.05),
        hof=0.65, mottling=0.2,
        granules=(Granules(per_um2=(0.9, 1.6), diameter_um=0.46, dye=Dye.AZUROPHIL, amount=0.75,
                           over_nucleus=0.25),),
    ),
    CellType.APL_PROMYELOCYTE: Recipe(
        diameter_um=(15.0, 20.0), nucleus=(0.68, 0.8), form=nuclei.dumbbell, chromatin=0.69,
        clumps=0.14, grain=0.19, nucleoli=(0, 1), nucleolus_contrast=0.25, eccentric=(0.4, 1.0),
        basophilia=(0.45, 0.8), eosin=0.4, mottling=0.2, ragged=0.35, rods=(0.35, 3, 9),
        granules=(Granules(per_um2=(5.0, 10.0), diameter_um=0.36, dye=Dye.AZUROPHIL, amount=0.52,
                           over_nucleus=0.25),
                  Granules(per_um2=(0.1, 0.7), diameter_um=0.58, dye=Dye.AZUROPHIL, amount=0.6,
                           over_nucleus=0.4)),
    ),
}  # fmt: skip
"""How each type looks; a smudge cell has no form of its own and is painted apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Stamp:
    """A painted cell, ready to be laid on a field.

    Attributes:
        amounts: float32 (dyes, H, W), amount of each dye.
        cell: float32 (H, W), share of each pixel covered by the cell.
        nucleus: the same for the nucleus.
        radius_um: of a disc with the cell's area.
    """

    amounts: NDArray[np.float32]
    cell: Plane
    nucleus: Plane
    radius_um: float


@dataclass(slots=True, eq=False)
class _Sketch:
    """A cell while it is painted; ``centre`` and ``radius_um`` are the nucleus's."""

    grid: Grid
    noise: Noise
    rng: np.random.Generator
    recipe: Recipe
    amounts: NDArray[np.float32]
    cell: Plane
    nucleus: Plane
    centre: tuple[float, float]
    radius_um: float


def paint(kind: CellType, um_px: float, noise: Noise, rng: np.random.Generator) -> Stamp:
    """Paint one leukocyte of the given type.

    Args:
        kind: its type.
        um_px: um per pixel of the drawing, 0.08 to 0.13.
        noise: textures at that scale.
        rng: draws everything else.
    """
    if kind is CellType.SMUDGE:
        return _paint_smudge(um_px, noise, rng)
    sketch = _outline(RECIPES[kind], um_px, noise, rng)
    cell, nucleus = coverage(sketch.cell, 0.3), coverage(sketch.nucleus, 0.3)
    _cytoplasm(sketch, cell, nucleus)
    _chromatin(sketch, nucleus)
    for granules in sketch.recipe.granules:
        _granules(sketch, granules, cell, nucleus)
    _rods(sketch, cell, nucleus)
    radius_um = float(np.sqrt(cell.sum() / np.pi)) * um_px
    return Stamp(sketch.amounts, cell, np.minimum(cell, nucleus), radius_um)


def _outline(recipe: Recipe, um_px: float, noise: Noise, rng: np.random.Generator) -> _Sketch:
    diameter = rng.uniform(*recipe.diameter_um)
    grid = square_grid(int(np.ceil((diameter * 1.25 + 2.0) / um_px)), um_px)
    long = rng.uniform(1.0, 1.09)
    wave = noise.take(noise.broad, grid, rng) * np.float32(recipe.ragged)
    axes = (diameter / 2 * long, diameter / 2 / long)
    cell = ellipse(grid, (0, 0), axes, rng.uniform(0, np.pi)) + wave
    radius = diameter / 2 * rng.uniform(*recipe.nucleus)
    shift = (diameter / 2 - radius) * rng.uniform(*recipe.eccentric)
    angle = rng.uniform(0, 2 * np.pi)
    centre = (shift * float(np.cos(angle)), shift * float(np.sin(angle)))
    bend = [
        noise.take(noise.broad, grid, rng) * np.float32(0.05 * radius)
        + noise.take(noise.coarse, grid, rng) * np.float32(0.03)
        for _ in range(2)
    ]
    around = grid.warped(bend[0] - np.float32(centre[0]), bend[1] - np.float32(centre[1]))
    nucleus = np.maximum(recipe.form(around, radius, rng), cell + np.float32(0.3))
    amounts = np.zeros((len(Dye), *cell.shape), dtype=np.float32)
    return _Sketch(grid, noise, rng, recipe, amounts, cell, nucleus, centre, radius)


def _cytoplasm(sketch: _Sketch, cell: Plane, nucleus: Plane) -> None:
    recipe, grid, rng = sketch.recipe, sketch.grid, sketch.rng
    blue = rng.uniform(*recipe.basophilia)
    mottle = sketch.noise.take(sketch.noise.coarse, grid, rng) * np.float32(0.6)
    mottle = mottle + sketch.noise.take(sketch.noise.fine, grid, rng) * np.float32(0.6)
    body = 1 + np.float32(recipe.mottling) * mottle
    # Basophilia deepens towards the membrane.
    body = body * (1 + np.float32(0.45 * min(blue, 1.0)) * np.exp(sketch.cell / np.float32(0.7)))
    if recipe.hof > 0:
        body = body * (1 - np.float32(recipe.hof) * _golgi_zone(sketch))
    body = np.clip(body, 0, None) * cell
    for _ in range(int(rng.integers(recipe.vacuoles[0], recipe.vacuoles[1] + 1))):
        body = body * (1 - np.float32(0.85) * _vacuole(sketch, cell, nucleus))
    under = 1 - np.float32(0.6) * nucleus
    sketch.amounts[Dye.BASOPHIL] += np.float32(blue) * body * under
    sketch.amounts[Dye.EOSIN] += np.float32(recipe.eosin * rng.uniform(0.7, 1.3)) * body * under


def _golgi_zone(sketch: _Sketch) -> Plane:
    """Pale zone on the open side of the nucleus."""
    x, y = sketch.centre
    length = max(float(np.hypot(x, y)), 1e-6)
    reach = 0.8 * sketch.radius_um
    place = (x - x / length * reach, y - y / length * reach)
    size = 0.45 * sketch.radius_um
    distance = ellipse(sketch.grid, place, (size, size))
    zone = np.exp(-np.square(np.clip(distance / np.float32(size) + 1, 0, None)))
    return np.asarray(zone, dtype=np.float32)


def _vacuole(sketch: _Sketch, cell: Plane, nucleus: Plane) -> Plane:
    points = scatter(cell * (1 - nucleus), sketch.grid, 1, sketch.rng)
    if not len(points):
        return np.zeros_like(cell)
    size = sketch.rng.uniform(0.25, 0.75)
    return coverage(ellipse(sketch.grid, tuple(points[0].tolist()), (size, size)), 0.3)


def _chromatin(sketch: _Sketch, nucleus: Plane) -> None:
    recipe, grid, rng, noise = sketch.recipe, sketch.grid, sketch.rng, sketch.noise
    clumps = np.tanh(np.float32(1.4) * noise.take(noise.coarse, grid, rng))
    network = noise.take(noise.fine, grid, rng)
    depth = np.clip(-sketch.nucleus, 0, None)
    density = 1 + np.float32(recipe.clumps) * clumps + np.float32(recipe.grain) * network
    density = density + np.float32(0.1) * noise.take(noise.broad, grid, rng)
    # The nuclear membrane, and a nucleus that is thicker in its middle.
    density = density + np.float32(0.28) * np.exp(-np.square((depth - 0.15) / np.float32(0.28)))
    density = density * (np.float32(0.86) + np.float32(0.14) * np.minimum(depth, 1.5) / 1.5)
    for _ in range(int(rng.integers(recipe.nucleoli[0], recipe.nucleoli[1] + 1))):
        density, blue = _nucleolus(sketch, density, depth)
        sketch.amounts[Dye.BASOPHIL] += np.float32(0.5) * blue * nucleus
    amount = recipe.chromatin * rng.uniform(0.9, 1.12)
    sketch.amounts[Dye.CHROMATIN] += np.float32(amount) * np.clip(density, 0.12, None) * nucleus


def _nucleolus(sketch: _Sketch, density: Plane, depth: Plane) -> tuple[Plane, Plane]:
    rng, contrast = sketch.rng, np.float32(sketch.recipe.nucleolus_contrast)
    points = scatter((depth > 1.3).astype(np.float32), sketch.grid, 1, rng)
    if not len(points):
        return density, np.zeros_like(density)
    size = rng.uniform(0.75, 1.3)
    axes = (size * rng.uniform(1.0, 1.25), size)
    distance = ellipse(sketch.grid, tuple(points[0].tolist()), axes, rng.uniform(0, np.pi))
    inside = coverage(distance, 0.5)
    ring = np.exp(-np.square((distance - np.float32(0.2)) / np.float32(0.25)))
    blue = contrast * inside
    return density * (1 - blue) + np.float32(0.22) * contrast * ring, blue


def _granules(sketch: _Sketch, granules: Granules, cell: Plane, nucleus: Plane) -> None:
    rng, grid = sketch.rng, sketch.grid
    inside = coverage(sketch.cell + np.float32(granules.diameter_um / 2), 0.2)
    density = rng.uniform(*granules.per_um2)
    place = inside * (1 - nucleus)
    groups = [(place, 1.0), (inside * nucleus, granules.over_nucleus)]
    for area, share in groups:
        expected = density * share * float(area.sum()) * grid.um_px**2
        draw = pack if granules.packed else scatter
        points = draw(area, grid, int(rng.poisson(expected)), rng)
        weights = granules.amount * rng.uniform(0.5, 1.3, len(points))
        spots = specks(grid, points, weights, granules.diameter_um / 2.6)
        if granules.diameter_um > 0.6:  # big granules have an edge of their own
            spots = spots / np.float32(granules.amount)
            spots = np.float32(granules.amount) * np.tanh(np.float32(1.3) * spots * spots)
        sketch.amounts[granules.dye] += spots * cell


def _rods(sketch: _Sketch, cell: Plane, nucleus: Plane) -> None:
    probability, fewest, most = sketch.recipe.rods
    rng, grid = sketch.rng, sketch.grid
    if rng.random() >= probability:
        return
    start = scatter(coverage(sketch.cell + np.float32(1.5), 0.2) * (1 - nucleus), grid, 1, rng)
    if not len(start):
        return
    n = int(rng.integers(fewest, most + 1))
    inward = float(np.arctan2(-start[0, 1], -start[0, 0]))
    along = inward + rng.choice([-1, 1]) * rng.uniform(0.7, 1.6)  # beside the nucleus
    for _ in range(n):
        angle = along + (rng.normal(0, 0.3) if n > 1 else 0.0)
        half = rng.uniform(1.2, 2.4)
        middle = start[0] + (rng.normal(0, 0.7, 2) if n > 1 else 0.0)
        step = half * np.array([np.cos(angle), np.sin(angle)])
        distance = capsule(grid, tuple((middle - step).tolist()), tuple((middle + step).tolist()),
                           0.12)  # fmt: skip
        sketch.amounts[Dye.AZUROPHIL] += np.float32(0.8) * coverage(distance, 0.22) * cell


def _paint_smudge(um_px: float, noise: Noise, rng: np.random.Generator) -> Stamp:
    """A nucleus burst and smeared: no cytoplasm, streaks in one direction, frayed edge."""
    size = rng.uniform(5.5, 8.5)
    grid = square_grid(int(np.ceil((2.6 * size + 2) / um_px)), um_px)
    fray = noise.take(noise.broad, grid, rng) * np.float32(1.3)
    fray = fray + noise.take(noise.coarse, grid, rng) * np.float32(0.45)
    angle = rng.uniform(0, np.pi)
    distance = ellipse(grid, (0, 0), (size * rng.uniform(1.0, 1.3), size * 0.75), angle) + fray
    turn = cv2.getRotationMatrix2D(((grid.x.shape[0] - 1) / 2,) * 2, -np.degrees(angle), 1.0)
    turn[:, 0] = 1.9 * turn[:, 0]  # stretched along the smear
    streaks = cv2.warpAffine(
        np.ascontiguousarray(noise.take(noise.fine, grid, rng)), turn,
        grid.x.shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT,
    )  # fmt: skip
    body = coverage(distance, 1.0)
    texture = 0.66 + 0.13 * streaks + 0.12 * noise.take(noise.coarse, grid, rng)
    amounts = np.zeros((len(Dye), *body.shape), dtype=np.float32)
    amounts[Dye.CHROMATIN] = np.clip(texture, 0.1, None) * body * np.float32(rng.uniform(0.6, 1.0))
    amounts[Dye.AZUROPHIL] = np.float32(0.15) * body
    amounts[Dye.BASOPHIL] = np.float32(0.12) * coverage(distance - np.float32(1.5), 3.0)
    return Stamp(amounts, body, body, float(np.sqrt(body.sum() / np.pi)) * um_px)
