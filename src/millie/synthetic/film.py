"""A field of a blood film with known truth.

Owns the settings of a film, where things lie, and the truth (types, places, boxes, label images).
How things look belongs to the modules beside it. Everything is laid out in um and painted at one
scale near 0.1 um/px, then brought to the camera's, so cells look the same at any magnification.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy import ndimage

from millie.errors import ConfigError
from millie.synthetic.elements import paint_debris, paint_platelets, paint_red_cell
from millie.synthetic.layout import separate, spread_red_cells
from millie.synthetic.leukocytes import CellType, paint
from millie.synthetic.shapes import draw_noise
from millie.synthetic.stain import Dye, PatientStyle, photograph, strips

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from millie.synthetic.leukocytes import Stamp
    from millie.synthetic.shapes import Noise

    _Slices = tuple[slice, slice]

_RED_CELL_FORMS = 40  # drawn per field and laid down again, turned
_SMALL_FORMS = 32  # the same for each of platelets, giants, clumps and debris


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmConfig:
    """What a field shows, apart from its leukocytes.

    Attributes:
        width_px: of the image, 32 to 8192.
        height_px: of the image, 32 to 8192.
        um_px: um per pixel, 0.05 to 0.5 (0.12: 100x objective; 0.25: 40x).
        red_cell_coverage: their area over the film's, 0 to 0.8; 0.4 is a good monolayer.
        red_cell_diameter_um: mean, 4 to 12; 7.2 in dried films of healthy adults.
        red_cell_spread: standard deviation over mean of the diameter, 0 to 0.3.
        rouleaux: share of red cells stacked to rolls, 0 to 1.
        misshapen: share of crenated and drawn-out red cells, 0 to 1.
        platelets_per_red_cell: 0 to 1; 0.05 is normal (250 against 5000 per nl).
        giant_platelets: share of platelets of 5 to 8 um, 0 to 1.
        platelet_clumps: expected number in 10,000 um2.
        debris: expected number of spots of precipitate or dust in 10,000 um2.
        style: stain, light and camera.

    Raises:
        ConfigError: a value lies outside its range.
    """

    width_px: int = 1024
    height_px: int = 768
    um_px: float = 0.12
    red_cell_coverage: float = 0.42
    red_cell_diameter_um: float = 7.2
    red_cell_spread: float = 0.06
    rouleaux: float = 0.06
    misshapen: float = 0.03
    platelets_per_red_cell: float = 0.06
    giant_platelets: float = 0.03
    platelet_clumps: float = 0.15
    debris: float = 1.0
    style: PatientStyle = field(default_factory=PatientStyle)

    def __post_init__(self) -> None:
        ranges = {
            "width_px": (32, 8192), "height_px": (32, 8192), "um_px": (0.05, 0.5),
            "red_cell_coverage": (0, 0.8), "red_cell_diameter_um": (4, 12),
            "red_cell_spread": (0, 0.3), "rouleaux": (0, 1), "misshapen": (0, 1),
            "platelets_per_red_cell": (0, 1), "giant_platelets": (0, 1),
            "platelet_clumps": (0, 20), "debris": (0, 100),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(
                    f"FilmConfig.{name}={value}: expected {low} to {high}; "
                    "choose a value in that range"
                )

    @property
    def size_um(self) -> tuple[float, float]:
        """Width and height of the field, um."""
        return self.width_px * self.um_px, self.height_px * self.um_px


@dataclass(frozen=True, slots=True)
class TrueCell:
    """A leukocyte that was drawn; everything concerns its part inside the image.

    Attributes:
        type: what it is.
        x_px: centroid, pixels from the left edge.
        y_px: centroid, from the top edge.
        left_px: box; also ``top_px``, ``width_px``, ``height_px``.
        area_px: area in pixels.
        at_border: cut by the edge of the image.
    """

    type: CellType
    x_px: float
    y_px: float
    left_px: int
    top_px: int
    width_px: int
    height_px: int
    area_px: int
    at_border: bool


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticField:
    """A drawn field and its truth.

    Attributes:
        image: uint8 RGB (H, W, 3).
        um_px: um per pixel.
        cells: the leukocytes; smudge cells are among them.
        cell_labels: uint16 (H, W); i + 1 where ``cells[i]`` lies, 0 elsewhere.
        nucleus_labels: the same for nuclei.
    """

    image: NDArray[np.uint8]
    um_px: float
    cells: tuple[TrueCell, ...]
    cell_labels: NDArray[np.uint16]
    nucleus_labels: NDArray[np.uint16]


def draw_field(
    config: FilmConfig, composition: Mapping[CellType, int], rng: np.random.Generator
) -> SyntheticField:
    """Draw a field of view.

    Args:
        config: the film; its style is the patient's.
        composition: how many leukocytes of each type.
        rng: draws everything; the same state, the same field to the byte.

    Raises:
        ConfigError: an unknown type, a negative number, or more cells than the field has room for.
    """
    kinds = _kinds(composition)
    canvas = _Canvas(config, rng)
    stamps = [paint(kind, canvas.scale, canvas.noise, rng) for kind in kinds]
    radii = np.array([stamp.radius_um for stamp in stamps])
    _check_room(config, radii)
    places = separate(config.size_um, radii, rng)
    return _finish(canvas, kinds, stamps, places)


def draw_cell(
    kind: CellType, um_px: float, size_px: int, rng: np.random.Generator,
    style: PatientStyle | None = None,
) -> SyntheticField:  # fmt: skip
    """Draw a square crop with one leukocyte in its centre, red cells around it.

    Args:
        kind: its type.
        um_px: um per pixel, 0.05 to 0.5.
        size_px: side of the crop.
        rng: draws everything.
        style: stain, light and camera; None: the ordinary one.

    Raises:
        ConfigError: a value lies outside its range.
    """
    config = FilmConfig(
        width_px=size_px, height_px=size_px, um_px=um_px, style=style or PatientStyle()
    )
    canvas = _Canvas(config, rng)
    stamp = paint(_kinds({kind: 1})[0], canvas.scale, canvas.noise, rng)
    centre = np.array([config.size_um]) / 2
    return _finish(canvas, [kind], [stamp], centre)


def _kinds(composition: Mapping[CellType, int]) -> list[CellType]:
    kinds: list[CellType] = []
    for name, count in composition.items():
        if name not in set(CellType):
            known = ", ".join(CellType)
            raise ConfigError(f"unknown type of cell '{name}'; expected one of: {known}")
        if count < 0:
            raise ConfigError(f"{count} cells of type {name}: expected 0 or more")
        kinds += [CellType(name)] * count
    return kinds


def _check_room(config: FilmConfig, radii_um: NDArray[np.float64]) -> None:
    width, height = config.size_um
    share = float(np.pi * np.square(radii_um).sum()) / (width * height)
    if share > 0.8:
        raise ConfigError(
            f"{len(radii_um)} leukocytes cover {share:.0%} of a field of {width:.0f} x "
            f"{height:.0f} um: expected at most 80%; draw fewer or a larger field"
        )


class _Canvas:
    """A field while it is drawn: absorbances, haemoglobin, labels."""

    def __init__(self, config: FilmConfig, rng: np.random.Generator) -> None:
        shape = (config.height_px, config.width_px)
        self.config = config
        self.rng = rng
        self.scale = config.um_px if 0.08 <= config.um_px <= 0.13 else 0.1
        self.noise: Noise = draw_noise(self.scale, rng)
        self.absorbances = config.style.absorbances()
        self.optical = np.zeros((*shape, 3), dtype=np.float32)
        self.haemoglobin = np.zeros(shape, dtype=np.float32)
        self.cells = np.zeros(shape, dtype=np.uint16)
        self.nuclei = np.zeros(shape, dtype=np.uint16)

    def absorbance_of(self, amounts: NDArray[np.float32]) -> NDArray[np.float32]:
        """Absorbance (h, w, 3) at the field's scale of amounts at the drawing scale."""
        return self.rescaled(np.tensordot(amounts, self.absorbances, axes=(0, 0)))

    def rescaled(self, plane: NDArray[np.float32]) -> NDArray[np.float32]:
        """A plane from the drawing scale to the field's."""
        ratio = self.scale / self.config.um_px
        if ratio == 1:
            return plane
        side = max(1, round(plane.shape[0] * ratio))
        how = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(plane, (side, side), interpolation=how), dtype=np.float32)

    def window(self, place_um: NDArray[np.float64], side: int) -> tuple[_Slices, _Slices]:
        """Where a square patch of ``side`` px lies in the field, and which part of it does."""
        parts = []
        for middle, length in zip(place_um[::-1], self.cells.shape, strict=True):
            start = round(float(middle) / self.config.um_px - side / 2)
            low, high = max(start, 0), max(min(start + side, length), 0)
            low = min(low, high)
            parts.append((slice(low, high), slice(low - start, high - start)))
        (rows, own_rows), (columns, own_columns) = parts
        return (rows, columns), (own_rows, own_columns)


def _finish(
    canvas: _Canvas, kinds: list[CellType], stamps: list[Stamp], places: NDArray[np.float64]
) -> SyntheticField:
    """Lay everything on the glass and photograph it."""
    for label, (stamp, place) in enumerate(zip(stamps, places, strict=True), start=1):
        _lay_leukocyte(canvas, stamp, place, label)
    radii = np.array([stamp.radius_um for stamp in stamps])
    n_red_cells = _lay_red_cells(canvas, places, radii)
    _lay_platelets_and_debris(canvas, n_red_cells)
    _lay_plasma(canvas)
    config = canvas.config
    image = photograph(canvas.optical, config.um_px, config.style, canvas.rng)
    cells = _truth(canvas.cells, kinds)
    return SyntheticField(image, config.um_px, cells, canvas.cells, canvas.nuclei)


def _lay_leukocyte(canvas: _Canvas, stamp: Stamp, place: NDArray[np.float64], label: int) -> None:
    absorbance = canvas.absorbance_of(stamp.amounts)
    cell, nucleus = canvas.rescaled(stamp.cell), canvas.rescaled(stamp.nucleus)
    where, own = canvas.window(place, cell.shape[0])
    free = canvas.cells[where] == 0  # a neighbour that was there first pushes in this one
    canvas.optical[where] += absorbance[own] * free[..., None]
    inside = free & (cell[own] > 0.5)
    if not inside.any():
        raise ConfigError(
            "a leukocyte found no room in the field: draw fewer leukocytes or a larger field"
        )
    canvas.cells[where][inside] = label
    canvas.nuclei[where][inside & (nucleus[own] > 0.5)] = label


def _lay_red_cells(canvas: _Canvas, places: NDArray[np.float64], radii: NDArray[np.float64]) -> int:
    config, rng = canvas.config, canvas.rng
    spots = spread_red_cells(
        config.size_um, config.red_cell_diameter_um, config.red_cell_coverage,
        rouleaux=config.rouleaux, leukocytes=places, radii_um=radii, rng=rng,
    )  # fmt: skip
    n_forms = min(_RED_CELL_FORMS, len(spots))
    forms = [_red_cell_form(canvas, misshapen=False) for _ in range(n_forms)]
    odd = [_red_cell_form(canvas, misshapen=True) for _ in range(math.ceil(n_forms / 4))]
    for spot in spots:
        bank = odd if rng.random() < config.misshapen else forms
        form = bank[int(rng.integers(len(bank)))]
        form = np.rot90(form, int(rng.integers(4)))
        where, own = canvas.window(spot, form.shape[0])
        canvas.haemoglobin[where] += form[own]
    # What lies over another is seen through it, but a thick stack is flattened.
    for rows in strips(config.height_px):
        thick = canvas.haemoglobin[rows]
        stack = np.clip(thick - 1, 0, None)
        thick = np.where(stack > 0, 1 + np.float32(0.55) * np.log1p(stack), thick)
        thick[canvas.cells[rows] > 0] *= np.float32(0.35)
        canvas.optical[rows] += thick[..., None] * canvas.absorbances[Dye.HAEMOGLOBIN]
    return len(spots)


def _red_cell_form(canvas: _Canvas, *, misshapen: bool) -> NDArray[np.float32]:
    config, rng = canvas.config, canvas.rng
    factor = max(1 + config.red_cell_spread * rng.normal(), 0.5)
    plane = paint_red_cell(config.red_cell_diameter_um * factor, config.style.pallor, canvas.scale,
                           canvas.noise, rng, misshapen=misshapen)  # fmt: skip
    return canvas.rescaled(plane)


def _lay_platelets_and_debris(canvas: _Canvas, n_red_cells: int) -> None:
    config, rng = canvas.config, canvas.rng
    area = config.size_um[0] * config.size_um[1] / 1e4
    n_platelets = int(rng.poisson(config.platelets_per_red_cell * n_red_cells))
    n_giants = int(rng.binomial(n_platelets, config.giant_platelets))
    n_clumps = int(rng.poisson(config.platelet_clumps * area))
    n_debris = int(rng.poisson(config.debris * area))
    counts: list[tuple[int, Callable[[], NDArray[np.float32]]]] = [
        (n_platelets - n_giants, lambda: _platelet(canvas, 1, rng.normal(2.4, 0.5))),
        (n_giants, lambda: _platelet(canvas, 1, rng.uniform(5.0, 8.0))),
        (n_clumps, lambda: _platelet(canvas, int(rng.integers(4, 16)), 2.4)),
        (n_debris, lambda: paint_debris(canvas.scale, canvas.noise, rng)),
    ]
    for count, draw in counts:
        forms = [canvas.absorbance_of(draw()) for _ in range(min(count, _SMALL_FORMS))]
        for index in range(count):
            absorbance = np.rot90(forms[index % _SMALL_FORMS], int(rng.integers(4)))
            where, own = canvas.window(_free_place(canvas), absorbance.shape[0])
            canvas.optical[where] += absorbance[own] * (canvas.cells[where] == 0)[..., None]


def _platelet(canvas: _Canvas, n: int, diameter_um: float) -> NDArray[np.float32]:
    size = max(diameter_um, 1.3)
    return paint_platelets(n, size, canvas.scale, canvas.noise, canvas.rng)


def _free_place(canvas: _Canvas) -> NDArray[np.float64]:
    """A random place, um, most often on bare glass."""
    height, width = canvas.cells.shape
    for _ in range(8):
        row, column = int(canvas.rng.integers(height)), int(canvas.rng.integers(width))
        if canvas.cells[row, column] == 0 and canvas.haemoglobin[row, column] < 0.1:
            break
    return np.array([column, row]) * canvas.config.um_px


def _lay_plasma(canvas: _Canvas) -> None:
    """Dried plasma: a faint veil, uneven over tens of um."""
    config, rng = canvas.config, canvas.rng
    height, width = canvas.cells.shape
    coarse = rng.random((math.ceil(config.size_um[1] / 30) + 2,
                         math.ceil(config.size_um[0] / 30) + 2), dtype=np.float32)  # fmt: skip
    veil = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    dye = canvas.absorbances[Dye.EOSIN] + canvas.absorbances[Dye.BASOPHIL]
    dye = dye / dye.mean() * np.float32(config.style.plasma)
    for rows in strips(height):
        canvas.optical[rows] += np.clip(veil[rows], 0, 1)[..., None] * dye


def _truth(labels: NDArray[np.uint16], kinds: list[CellType]) -> tuple[TrueCell, ...]:
    height, width = labels.shape
    cells = []
    for index, (kind, box) in enumerate(
        zip(kinds, ndimage.find_objects(labels, len(kinds)), strict=True), start=1
    ):
        rows, columns = np.nonzero(labels[box] == index)
        top, left = box[0].start, box[1].start
        cells.append(TrueCell(
            type=kind, x_px=float(columns.mean()) + left, y_px=float(rows.mean()) + top,
            left_px=left, top_px=top, width_px=box[1].stop - left, height_px=box[0].stop - top,
            area_px=len(rows),
            at_border=top == 0 or left == 0 or box[0].stop == height or box[1].stop == width,
        ))  # fmt: skip
    return tuple(cells)
