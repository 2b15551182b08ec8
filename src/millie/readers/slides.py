"""Whole slides: opened by OpenSlide, searched for the monolayer, cut into fields one at a time.

Owns the handle, the scale and colours that a slide states, and which fields are cut. Memory is that
of a field, however large the slide. Formats are those of OpenSlide (SVS, NDPI, MRXS, SCN, BIF, CZI,
DICOM, tiled TIFF with OME-XML); associated pictures, such as the label, are never read. A
handle belongs to the process that opened it. Needs the extra ``slides``; imported late.
"""

from __future__ import annotations

import importlib
from bisect import bisect_right
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageCms

from millie.errors import ImageError, ImageTooLargeError, MissingPackageError, ScaleError
from millie.readers.colour import Colours, to_srgb
from millie.readers.content import pixels_sha256
from millie.readers.decoding import decoder_boundary
from millie.readers.metadata import StatedScale, scale_of_ome, scale_of_sides
from millie.readers.monolayer import LOOK_UM_PX, Survey, edges, spread, survey
from millie.readers.outlines import NEAR_PX, outline_middles
from millie.types import Field, PixelSize, Place

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from millie.config import ReadingConfig
    from millie.types import ImageSource

FIELD_UM = 200.0
"""Side of a field's core; with its margin about what a 60x objective shows."""
MARGIN_UM = 12.5
"""Half a crop: a cell whose middle lies in the core is cut with all that is around it."""

_MOST_FIELD_PX = 3072  # of a field's core: 28 MB, on slides without a coarser level
_MOST_PLACES = 1_000_000  # 200 x 200 mm of glass; a slide has 76 x 26 (ISO 8037-1)
_MOST_TILE_BYTES = 256e6  # a tile is decoded whole, whatever is read of it
_AS_THEY_STAND = "colours are taken as they stand"
_CONVERT = (
    "convert it to a tiled pyramid, for example with "
    "`vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg`"
)


@dataclass(frozen=True, slots=True, eq=False)
class Slide:
    """An open slide.

    Attributes:
        name: for messages.
        handle: OpenSlide's.
        bounds: left, top, width and height of what was scanned, pixels of level 0.
        steps: pixels of level 0 along one pixel of each level, the finest first.
        scale: what the file says of level 0.
        colours: what it says of its colours.
        objective: magnification, as the file writes it; empty if it does not.
    """

    name: str
    handle: Any
    bounds: tuple[int, int, int, int]
    steps: tuple[float, ...]
    scale: StatedScale
    colours: Colours
    objective: str

    def read(
        self, left_px: int, top_px: int, width_px: float, height_px: float, step: float
    ) -> NDArray[np.uint8]:
        """A part of the slide, as the file has it, uint8 RGB (H, W, 3).

        Args:
            left_px: left edge, pixels of level 0.
            top_px: upper edge.
            width_px: of the part, pixels of level 0.
            height_px: of the part.
            step: pixels of level 0 along a pixel of the result; averaged where no level has it.

        Raises:
            ImageError: the part is damaged or missing.
        """
        level = max((i for i, own in enumerate(self.steps) if own <= step * 1.001), default=0)
        own = self.steps[level]
        size = max(1, round(width_px / own)), max(1, round(height_px / own))
        with decoder_boundary(self.name):
            region = self.handle.read_region((left_px, top_px), level, size)
        whole = Image.new("RGB", region.size, (255, 255, 255))  # what was not scanned is white
        whole.paste(region, mask=region.getchannel("A"))
        pixels = np.asarray(whole)
        if step <= own * 1.001:
            return pixels
        wanted = max(1, round(width_px / step)), max(1, round(height_px / step))
        shrunk = cv2.resize(pixels, wanted, interpolation=cv2.INTER_AREA)
        return np.asarray(shrunk, dtype=np.uint8)


@contextmanager
def open_slide(path: Path, name: str) -> Iterator[Slide]:
    """Open a slide; what it shows is read later, piece by piece.

    Raises:
        MissingPackageError: the extra is not installed.
        ImageError: no slide that OpenSlide reads.
        ImageTooLargeError: its tiles are too large to be decoded.
    """
    openslide = _openslide()
    with decoder_boundary(name):
        try:
            handle = openslide.OpenSlide(path)
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise ImageError(f"{name}: not a whole slide of a known format; {_CONVERT}") from error
        except openslide.OpenSlideError as error:
            why = str(error).replace(f"{path.parent}/", "")  # files beside it, without their place
            raise ImageError(
                f"{name}: the slide cannot be opened ({why}); copy it again, with all of its "
                f"files, or {_CONVERT}"
            ) from error
    with handle:
        with decoder_boundary(name):
            opened = _described(name, handle)
        yield opened


def fields_of(
    source: ImageSource, config: ReadingConfig, assumed: PixelSize | None = None
) -> Generator[Field, None, None]:
    """Cut fields out of the monolayer, one after another, spread evenly over it.

    Of a slide with outlines those fields are cut in which a cell was drawn. The same slide gives
    the same fields in the same order. Notes are the first one's.

    Args:
        source: the slide; its pixel size, if known, goes before the file's.
        config: ``slide_um_px`` and ``slide_fields``, which does not count for outlines.
        assumed: scale of slides that state none.

    Raises:
        ScaleError: the scale of the slide is not known.
        ImageError: no slide, no monolayer, or damaged; the fields before the damage are good.
        DataError: its outlines cannot be used.
        MissingPackageError: the extra is not installed.
    """
    with open_slide(source.path, source.name) as slide:
        scale = source.pixel_size or slide.scale.pixel_size or assumed
        if scale is None:
            raise ScaleError(_no_scale(slide))
        step = _step(slide, scale, config.slide_um_px)
        grid = _grid(slide, scale, step)
        wanted, told = _wanted(slide, source, scale, grid, config)
        pixel_size = PixelSize(scale.um_px * step)
        for number, index in enumerate(wanted):
            place = _placed(slide, scale, step, grid.core(index), len(wanted))
            pixels, note = _cut(slide, place)
            notes = tuple(filter(None, (slide.scale.note, note, *told))) if number == 0 else ()
            yield _field(source, pixels, pixel_size, place, notes)


def field_at(source: ImageSource, place: Place) -> Field:
    """A field again, as :func:`fields_of` cut it.

    Args:
        source: the slide; its pixel size is taken for that of the field.
        place: of the field.

    Raises:
        ImageError: the slide is damaged.
        MissingPackageError: the extra is not installed.
    """
    with open_slide(source.path, source.name) as slide:
        return _field(source, _cut(slide, place)[0], source.pixel_size, place)


def _openslide() -> Any:
    try:
        return importlib.import_module("openslide")
    except (ImportError, OSError) as error:  # OSError: its library is missing or broken
        raise MissingPackageError(
            "whole slides need OpenSlide: pip install 'millie[slides]'"
        ) from error


def _described(name: str, handle: Any) -> Slide:
    facts: Mapping[str, str] = handle.properties
    tile = [int(facts.get(f"openslide.level[0].tile-{side}", 0)) for side in ("width", "height")]
    if tile[0] * tile[1] * 4 > _MOST_TILE_BYTES:
        raise ImageTooLargeError(f"{name}: tiles of {tile[0]} x {tile[1]} px; {_CONVERT}")
    whole = (0, 0, *handle.dimensions)
    sides = ("x", "y", "width", "height")
    bounds = [
        int(facts.get(f"openslide.bounds-{side}", of_all))
        for side, of_all in zip(sides, whole, strict=True)
    ]
    return Slide(
        name=name,
        handle=handle,
        bounds=(bounds[0], bounds[1], bounds[2], bounds[3]),
        steps=tuple(float(step) for step in handle.level_downsamples),
        scale=_stated(facts, handle.dimensions),
        colours=_colours(handle),
        objective=facts.get("openslide.objective-power", ""),
    )


def _colours(handle: Any) -> Colours:
    try:
        profile = handle.color_profile
    except (ImageCms.PyCMSError, OSError) as error:
        return Colours(None, f"its colour profile cannot be used ({error}): {_AS_THEY_STAND}")
    if profile is None:
        return Colours(None, f"the slide has no colour profile: {_AS_THEY_STAND}")
    return Colours(profile.tobytes())


def _stated(facts: Mapping[str, str], size: tuple[int, int]) -> StatedScale:
    """What a slide says of its scale; OME-XML goes before resolution tags."""
    ome = scale_of_ome(facts.get("tiff.ImageDescription", ""), size)
    if ome is not None:
        return ome
    sides = [facts.get(f"openslide.mpp-{axis}") for axis in "xy"]
    if None in sides:
        return StatedScale()
    stated = scale_of_sides(*(float(side) for side in sides if side is not None))
    if facts.get("openslide.vendor") == "generic-tiff" and stated.pixel_size is None:
        return StatedScale()  # resolution tags of programs that write 72 or 96 dpi into each file
    return stated


def _step(slide: Slide, scale: PixelSize, wanted_um_px: float) -> float:
    """The coarsest level that is as fine as wanted, else the finest there is."""
    fine = [step for step in slide.steps if scale.um_px * step <= wanted_um_px * 1.01]
    return max(fine, default=slide.steps[0])


_Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels of level 0


class _Grid(NamedTuple):
    """Edges of the cores of all fields, pixels of level 0: they cover a slide without overlap."""

    columns: list[int]
    rows: list[int]

    def near(self, x: float, y: float, reach: float) -> set[int]:
        """The fields whose cores lie no farther from a point than ``reach``; most often one."""
        ends = []
        for value, marks in ((x, self.columns), (y, self.rows)):
            places = [bisect_right(marks, value + off) - 1 for off in (-reach, reach)]
            first, last = (min(max(place, 0), len(marks) - 2) for place in places)
            ends.append(range(first, last + 1))
        return {row * (len(self.columns) - 1) + column for row in ends[1] for column in ends[0]}

    def core(self, index: int) -> _Box:
        """The core of a field, counted row by row."""
        row, column = divmod(index, len(self.columns) - 1)
        return self.columns[column], self.rows[row], self.columns[column + 1], self.rows[row + 1]


def _grid(slide: Slide, scale: PixelSize, step: float) -> _Grid:
    left, top, width, height = slide.bounds
    side = min(scale.to_px(FIELD_UM), _MOST_FIELD_PX * step)
    if width * height > _MOST_PLACES * side**2:
        raise ImageTooLargeError(
            f"{slide.name}: its header states {width:,} x {height:,} px at {scale.um_px:g} um/px, "
            f"which is {scale.to_um(width) / 1e3:,.0f} x {scale.to_um(height) / 1e3:,.0f} mm and "
            "no slide; check the um/px, or copy the file again"
        )
    return _Grid(edges(left, width, side), edges(top, height, side))


def _wanted(
    slide: Slide, source: ImageSource, scale: PixelSize, grid: _Grid, config: ReadingConfig
) -> tuple[Sequence[int], tuple[str, ...]]:
    """Fields to be cut, in order, and what to tell of their choice."""
    if source.outlines:
        width, height = slide.handle.dimensions
        middles, told = outline_middles(source.outlines, source.name, (height, width), config)
        return sorted(set().union(*(grid.near(x, y, NEAR_PX) for x, y in middles.tolist()))), told
    found = survey(
        spread(len(grid.columns) - 1, len(grid.rows) - 1).tolist(),
        lambda index: _look(slide, scale, grid.core(index)),
    )
    if not found.places:
        raise ImageError(_no_monolayer(slide, found))
    return found.places[: config.slide_fields], ()


def _look(slide: Slide, scale: PixelSize, core: _Box) -> NDArray[np.uint8]:
    """A place on a small level."""
    left, top, right, bottom = core
    step = max(slide.steps[0], LOOK_UM_PX / scale.um_px)
    return slide.read(left, top, right - left, bottom - top, step)


def _placed(slide: Slide, scale: PixelSize, step: float, core: _Box, n_fields: int) -> Place:
    """A core with its margin, as far as the slide reaches."""
    margin = round(scale.to_px(MARGIN_UM))
    left, top, width, height = slide.bounds
    x0, y0 = max(left, core[0] - margin), max(top, core[1] - margin)
    x1, y1 = min(left + width, core[2] + margin), min(top + height, core[3] + margin)
    return Place(x0, y0, x1 - x0, y1 - y0, step, core, n_fields)


def _cut(slide: Slide, place: Place) -> tuple[NDArray[np.uint8], str]:
    """Pixels of a field in sRGB, and a note if stated colours could not be used."""
    pixels = slide.read(place.left_px, place.top_px, place.width_px, place.height_px, place.step)
    if slide.colours.profile is None:
        return pixels, slide.colours.note
    converted, note = to_srgb(Image.fromarray(pixels), slide.colours)
    return np.asarray(converted.convert("RGB")), note


def _field(
    source: ImageSource,
    pixels: NDArray[np.uint8],
    pixel_size: PixelSize | None,
    place: Place,
    notes: tuple[str, ...] = (),
) -> Field:
    return Field(pixels, source, pixel_size, pixels_sha256(pixels), notes, place)


def _no_scale(slide: Slide) -> str:
    objective = f" Its objective is {slide.objective}x." if slide.objective else ""
    why = f" ({slide.scale.note})" if slide.scale.note else ""
    return (
        f"{slide.name}: the slide states no scale{why}, and without one no fields can be cut; give "
        "um/px in the manifest (um_px) or with --set segmentation.um_px=0.25 (about 0.25 at 40x, "
        f"0.1 at 100x).{objective}"
    )


def _no_monolayer(slide: Slide, found: Survey) -> str:
    if found.thin == found.looked:
        what = "nothing on it but empty glass or a few cells"
    elif found.thick > found.thin:
        what = "the film is too thick or uneven everywhere, or this is tissue"
    else:
        what = (
            f"{found.thin:,} are (nearly) empty, {found.thick:,} too thick or uneven, as tissue is"
        )
    return (
        f"{slide.name}: no monolayer, where red cells lie side by side, in {found.looked:,} places "
        f"looked at: {what}; give a slide of a blood film, or images of single fields"
    )
