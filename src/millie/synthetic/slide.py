"""A whole slide with known truth, as a tiled pyramid: thick film, monolayer, feathered edge, glass.

Owns the layout of the slide and its file; how a field looks is film.py. Drawn and written row by
row, so that memory does not grow with the slide. Needs tifffile, imported late.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from millie.errors import ConfigError, MissingPackageError
from millie.synthetic.film import FilmConfig, TrueCell, draw_field
from millie.synthetic.leukocytes import CellType
from millie.synthetic.stain import PatientStyle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

BLOCK_PX = 1024
"""Side of the square fields that a slide is put together from."""

_TILE_PX = 256
_STEP = 4  # from each level to the next
_LEAST_PX = 512  # longer side of the smallest level
_LAYERS = 3  # of red cells upon one another where the film is thick
_BANK = 2  # fields drawn for each zone without truth; turned and laid down again


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideConfig:
    """What a slide shows: a film drawn from left to right, as on a wedge smear.

    Attributes:
        thick: columns of fields of the thick part; also ``monolayer``, ``feathered`` and ``glass``.
        rows: of fields of 1024 x 1024 px.
        um_px: um per pixel of level 0.
        composition: leukocytes of each field of the monolayer.
        style: stain, light and camera.
        with_scale: write um/px into the file.
        pyramid: write smaller levels.
        seed: of the random draw.

    Raises:
        ConfigError: the slide has no field.
    """

    thick: int = 5
    monolayer: int = 7
    feathered: int = 3
    glass: int = 5
    rows: int = 20
    um_px: float = 0.25
    composition: Mapping[CellType, int] = field(
        default_factory=lambda: {CellType.LYMPHOCYTE: 3, CellType.SEGMENTED_NEUTROPHIL: 3}
    )
    style: PatientStyle = field(default_factory=PatientStyle)
    with_scale: bool = True
    pyramid: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.columns, self.rows) < 1:
            raise ConfigError(f"a slide of {self.columns} x {self.rows} fields; expected 1 or more")

    @property
    def columns(self) -> int:
        """Of fields, all zones."""
        return self.thick + self.monolayer + self.feathered + self.glass


def write_slide(path: Path, config: SlideConfig) -> list[TrueCell]:
    """Draw a slide into a tiled TIFF with its smaller levels.

    Args:
        path: the file to write.
        config: what it shows.

    Returns:
        The leukocytes of the monolayer, in pixels of level 0.

    Raises:
        MissingPackageError: tifffile is not installed.
    """
    try:
        tifffile = importlib.import_module("tifffile")
    except ImportError as error:
        raise MissingPackageError("drawing a slide needs tifffile: pip install tifffile") from error
    drawn = _Drawing(config)
    shape = (config.rows * BLOCK_PX, config.columns * BLOCK_PX, 3)
    layout = {
        "tile": (_TILE_PX, _TILE_PX), "photometric": "rgb", "compression": "zlib",
        "compressionargs": {"level": 1},
    }  # fmt: skip
    scale = {"resolution": (1e4 / config.um_px, 1e4 / config.um_px), "resolutionunit": 3}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        stated = scale if config.with_scale else {}
        file.write(drawn.tiles(), shape=shape, dtype=np.uint8, **layout, **stated)
        level = drawn.smaller
        while config.pyramid and max(level.shape) > _LEAST_PX:
            file.write(level, subfiletype=1, **layout)
            level = _shrunk(level)
    return drawn.cells


class _Drawing:
    """Rows of fields, and what has been drawn so far.

    Attributes:
        cells: leukocytes of the monolayer.
        smaller: the next level, uint8 RGB.
    """

    def __init__(self, config: SlideConfig) -> None:
        self.cells: list[TrueCell] = []
        side = BLOCK_PX // _STEP
        self.smaller = np.zeros((config.rows * side, config.columns * side, 3), np.uint8)
        self._config = config
        self._rng = np.random.default_rng(config.seed)
        film = FilmConfig(
            width_px=BLOCK_PX, height_px=BLOCK_PX, um_px=config.um_px, style=config.style
        )
        bare = replace(
            film, red_cell_coverage=0, platelets_per_red_cell=0, platelet_clumps=0, debris=0
        )
        self._film = film
        self._zones = {
            "thick": [self._thick(film) for _ in range(_BANK if config.thick else 0)],
            "feathered": self._bank(replace(film, red_cell_coverage=0.04), config.feathered),
            "glass": self._bank(bare, config.glass),
        }

    def tiles(self) -> Iterator[NDArray[np.uint8]]:
        """Tiles of level 0, row by row."""
        for row in range(self._config.rows):
            band = self._band(row)
            side = BLOCK_PX // _STEP
            self.smaller[row * side : (row + 1) * side] = _shrunk(band)
            for top in range(0, BLOCK_PX, _TILE_PX):
                for left in range(0, band.shape[1], _TILE_PX):
                    yield np.ascontiguousarray(band[top : top + _TILE_PX, left : left + _TILE_PX])

    def _band(self, row: int) -> NDArray[np.uint8]:
        config = self._config
        zones = ["thick"] * config.thick + ["monolayer"] * config.monolayer
        zones += ["feathered"] * config.feathered + ["glass"] * config.glass
        blocks = [
            self._monolayer(row, column) if zone == "monolayer" else self._laid_down(zone)
            for column, zone in enumerate(zones)
        ]
        return np.concatenate(blocks, axis=1)

    def _monolayer(self, row: int, column: int) -> NDArray[np.uint8]:
        found = draw_field(self._film, self._config.composition, self._rng)
        left, top = column * BLOCK_PX, row * BLOCK_PX
        self.cells += [
            replace(
                cell, x_px=cell.x_px + left, y_px=cell.y_px + top,
                left_px=cell.left_px + left, top_px=cell.top_px + top,
            )
            for cell in found.cells
        ]  # fmt: skip
        return found.image

    def _bank(self, film: FilmConfig, wanted: int) -> list[NDArray[np.uint8]]:
        return [draw_field(film, {}, self._rng).image for _ in range(_BANK if wanted else 0)]

    def _thick(self, film: FilmConfig) -> NDArray[np.uint8]:
        """Layers of red cells: each takes its share of the light that the others let through."""
        layer = replace(film, red_cell_coverage=0.6)
        images = [draw_field(layer, {}, self._rng).image for _ in range(_LAYERS)]
        glass = np.percentile(images[0], 99, axis=(0, 1))
        through = np.prod([image / glass for image in images], axis=0)
        return np.asarray(np.clip(through * glass, 0, 255), dtype=np.uint8)

    def _laid_down(self, zone: str) -> NDArray[np.uint8]:
        image = self._zones[zone][self._rng.integers(_BANK)]
        return np.rot90(image, int(self._rng.integers(4)))


def _shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    size = max(1, width // _STEP), max(1, height // _STEP)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
