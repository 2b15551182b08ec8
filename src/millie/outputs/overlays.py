"""Fields with boxes or outlines around their cells, and contact sheets of single-cell crops.

Owns drawing and the names of the picture files. Lines grow with the image; winning cells differ
from the rest by colour, by line and by a mark, never by colour alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from millie.errors import DataError, MissingError
from millie.files import write_bytes
from millie.outputs.gallery import Album, bar_length_um, jpeg_bytes
from millie.types import Cell, CellRegion, Field, ImageKind, SourceRecord

FieldReader = Callable[[str, SourceRecord], Field]
"""Decodes an image of a patient again, within the limits; raises DataError or MissingError."""

Pictures = Literal["none", "winners", "all"]
"""What is drawn of a patient: all fields and cells, those with winners, or none."""

CONTACT_SHEET = "cells.jpg"
LONGEST_SIDE_PX = 4096
"""Longer fields are shrunk: an overlay is for looking at, not for measuring."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the picture drawn on."""
Boxes = Mapping[int, Box]

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_NAME = 80
_FOR_RGB = (213, 94, 0)  # Okabe-Ito vermillion, blue; black with a white edge for the rest
_AGAINST_RGB = (0, 114, 178)
_REST_RGB = (30, 30, 30)
_CELL_RGB, _NUCLEUS_RGB = (86, 180, 233), (240, 228, 66)  # Okabe-Ito sky blue, yellow
_WHITE = (255, 255, 255)
_SHEET_CELL_PX = 128
_SHEET_COLUMNS = 10
_SHEET_CELLS = 300


@dataclass(frozen=True, slots=True)
class Mark:
    """A cell's name in one report.

    Attributes:
        text: a number for cells that speak for the focus, a letter for those against; both for a
            cell that is the maximum of features of either kind.
        supports: whether the cell speaks for the class in focus.
    """

    text: str
    supports: bool


@dataclass(frozen=True, slots=True)
class _Pen:
    """Sizes for one picture, in its pixels; ``inside``: marks stand within their boxes."""

    width: int
    halo: int
    font: ImageFont.FreeTypeFont
    inside: bool = False

    @classmethod
    def for_size(cls, longest_px: int) -> _Pen:
        width = max(2, round(longest_px / 450))
        return cls(width, max(1, width // 2), _font(max(12, longest_px // 56)))


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans Bold, which comes with matplotlib: the same picture on every machine."""
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"
    return ImageFont.truetype(str(path), size_px)


def overlay_names(sources: Sequence[SourceRecord]) -> dict[int, str]:
    """File name of each field's overlay, by index of the source; single-cell crops have none."""
    fields = [i for i, source in enumerate(sources) if source.kind is not ImageKind.CELL]
    names = safe_names([sources[i].title for i in fields], ".jpg")
    taken = {CONTACT_SHEET.lower()}
    return {
        i: f"field-{name}" if name.lower() in taken else name
        for i, name in zip(fields, names, strict=True)
    }


def safe_names(names: Iterable[str], suffix: str) -> list[str]:
    """One distinct file name for each of the given names, in order, equal for equal input.

    A name keeps the readable part (letters, digits, ``-`` and ``_``) of its last component; where
    that loses a character or two names fall together, eight hexadecimal digits of the whole name's
    SHA-256 are added.

    Args:
        names: distinct names as the user wrote them, with ``/`` between folders.
        suffix: ending of every file name, with its dot.
    """
    given = list(names)
    plain = [_without_ending(name.rpartition("/")[2]) for name in given]
    stems = [_UNSAFE.sub("-", name).strip("-")[:_LONGEST_NAME] for name in plain]
    lowered = [stem.lower() for stem in stems]
    return [
        (stem if stem and stem == own and lowered.count(stem.lower()) == 1 else _hashed(stem, name))
        + suffix
        for name, own, stem in zip(given, plain, stems, strict=True)
    ]


def _hashed(stem: str, name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{stem}-{digest}" if stem else digest


def _without_ending(name: str) -> str:
    stem, _, ending = name.rpartition(".")
    return stem if stem and len(ending) <= 5 else name


def write_overlays(
    folder: Path,
    album: Album,
    marks: Mapping[int, Mark],
    order: Sequence[int],
    read_field: FieldReader | None,
    pictures: Pictures = "all",
) -> list[str]:
    """Write fields with their boxes, and one contact sheet of the single-cell crops.

    Args:
        folder: where the pictures go.
        album: the patient's cells.
        marks: of the cells that carry one, by index in the bag.
        order: indices of all cells, strongest evidence first.
        read_field: gives the fields' pixels; None: only the contact sheet is drawn.
        pictures: ``winners``: only fields and crops with marked cells.

    Returns:
        names of the fields that could not be read again or have changed since.
    """
    lost: list[str] = []
    if pictures == "none" or album.bag.holds_vectors:
        return lost
    winning = {album.cells[number].source for number in marks}
    for index, name in overlay_names(album.sources).items():
        if pictures == "winners" and index not in winning:
            continue
        record = album.sources[index]
        image = _unchanged(album.bag.patient_id, record, read_field)
        if image is None:
            lost.append(record.title)
            continue
        cells = {n: _drawn(c, record) for n, c in enumerate(album.cells) if c.source == index}
        _save(folder / name, draw_boxes(image, cells, marks, record.um_px))
    crops = {i for i, s in enumerate(album.sources) if s.kind is ImageKind.CELL}
    single = [
        n for n in order if album.cells[n].source in crops and (n in marks or pictures == "all")
    ]
    if single:
        _save(folder / CONTACT_SHEET, contact_sheet(album, single[:_SHEET_CELLS], marks))
    return lost


def _drawn(cell: Cell, record: SourceRecord) -> Cell:
    """A cell of a bag in pixels of its field."""
    return cell if record.place is None else record.place.in_field(cell)


def _unchanged(
    patient: str, record: SourceRecord, read_field: FieldReader | None
) -> NDArray[np.uint8] | None:
    if read_field is None:
        return None
    try:
        found = read_field(patient, record)
    except (DataError, MissingError):
        return None
    return found.image if found.sha256 == record.sha256 else None


def draw_boxes(
    image: NDArray[np.uint8],
    cells: Mapping[int, Cell],
    marks: Mapping[int, Mark],
    um_px: float | None = None,
) -> Image.Image:
    """Draw a field's cells.

    Args:
        image: uint8 RGB (H, W, 3).
        cells: cells of this field by index in the bag; boxes in pixels of ``image``.
        marks: marks of winning cells by index in the bag.
        um_px: scale of ``image``; a scale bar is drawn where it is known.

    Returns:
        a picture of the same shape, shrunk where a side exceeds :data:`LONGEST_SIDE_PX`.
    """
    picture, factor, draw, pen = _begun(image)
    boxes = {number: _box(cell, factor) for number, cell in cells.items()}
    # Cells with marks come last, so that no thin box crosses a mark.
    for number in sorted(boxes, key=lambda n: (n in marks, n)):
        _draw_cell(draw, boxes[number], marks.get(number), pen)
    if um_px is not None:
        _draw_scale_bar(draw, picture.size, um_px / factor, boxes, pen)
    return picture


def draw_outlines(
    image: NDArray[np.uint8], regions: Sequence[CellRegion], um_px: float | None = None
) -> Image.Image:
    """Draw the outlines of cells and nuclei; smudges are named.

    Args:
        image: uint8 RGB (H, W, 3).
        regions: cells of this field, in pixels of ``image``.
        um_px: scale of ``image``; a scale bar is drawn where it is known.

    Returns:
        a picture of the same shape, shrunk where a side exceeds :data:`LONGEST_SIDE_PX`.
    """
    picture, factor, draw, pen = _begun(image)
    width = max(1, pen.width // 2)
    for region in regions:
        for mask, colour in ((region.cell_mask, _CELL_RGB), (region.nucleus_mask, _NUCLEUS_RGB)):
            for line in _outlines(mask, region.cell, factor):
                draw.line(line, fill=_REST_RGB, width=3 * width, joint="curve")
                draw.line(line, fill=colour, width=width, joint="curve")
    boxes = {number: _box(region.cell, factor) for number, region in enumerate(regions)}
    for number, region in enumerate(regions):
        if region.cell.smudge:
            _draw_label(draw, boxes[number], "smudge?", _REST_RGB, pen)
    if um_px is not None:
        _draw_scale_bar(draw, picture.size, um_px / factor, boxes, pen)
    return picture


def _outlines(
    mask: NDArray[np.bool_], cell: Cell, factor: float
) -> Iterator[list[tuple[float, float]]]:
    """Closed lines around what is in a mask at a cell's box, in pixels of the picture."""
    found, _ = cv2.findContours(
        np.ascontiguousarray(mask).view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    for contour in found:
        points = (contour[:, 0] + (cell.left_px + 0.5, cell.top_px + 0.5)) * factor
        closed = np.concatenate([points, points[:1]])
        yield [(float(x), float(y)) for x, y in closed]


def _begun(
    image: NDArray[np.uint8],
) -> tuple[Image.Image, float, ImageDraw.ImageDraw, _Pen]:
    """The picture, its size over the image's, and what draws on it how thickly."""
    factor = min(1.0, LONGEST_SIDE_PX / max(image.shape[:2]))
    picture = Image.fromarray(image)
    if factor < 1:
        size = (round(picture.width * factor), round(picture.height * factor))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return picture, factor, ImageDraw.Draw(picture), _Pen.for_size(max(picture.size))


def _box(cell: Cell, factor: float) -> Box:
    """Corners of a cell's box after the picture was scaled by ``factor``."""
    return (
        round(cell.left_px * factor),
        round(cell.top_px * factor),
        round((cell.left_px + cell.width_px) * factor),
        round((cell.top_px + cell.height_px) * factor),
    )


def _draw_cell(draw: ImageDraw.ImageDraw, box: Box, mark: Mark | None, pen: _Pen) -> None:
    if mark is None:
        thin = max(1, pen.width // 2)
        draw.rectangle(_grown(box, pen.width + thin), outline=_WHITE, width=3 * thin)
        draw.rectangle(_grown(box, pen.width), outline=_REST_RGB, width=thin)
        return
    colour = _FOR_RGB if mark.supports else _AGAINST_RGB
    thick = 2 * pen.width
    draw.rectangle(
        _grown(box, pen.width + thick + pen.halo), outline=_WHITE, width=thick + 2 * pen.halo
    )
    if mark.supports:
        draw.rectangle(_grown(box, pen.width + thick), outline=colour, width=thick)
    else:
        _dashed(draw, _grown(box, pen.width + thick), colour, thick)
    _draw_label(draw, _grown(box, pen.width + thick), mark.text, colour, pen)


def _grown(box: Box, by: int) -> Box:
    return box[0] - by, box[1] - by, box[2] + by, box[3] + by


def _dashed(
    draw: ImageDraw.ImageDraw,
    box: Box,
    colour: tuple[int, int, int],
    width: int,
) -> None:
    left, top, right, bottom = box
    dash = 4 * width
    for x in range(left, right, 2 * dash):
        end = min(x + dash, right)
        draw.rectangle((x, top, end, top + width - 1), fill=colour)
        draw.rectangle((x, bottom - width + 1, end, bottom), fill=colour)
    for y in range(top, bottom, 2 * dash):
        end = min(y + dash, bottom)
        draw.rectangle((left, y, left + width - 1, end), fill=colour)
        draw.rectangle((right - width + 1, y, right, end), fill=colour)


def _draw_label(
    draw: ImageDraw.ImageDraw,
    box: Box,
    text: str,
    colour: tuple[int, int, int],
    pen: _Pen,
) -> None:
    """White text on a filled tab above the box, or inside its top where there is no room."""
    x0, y0, x1, y1 = draw.textbbox((0, 0), text, font=pen.font)
    pad = 2 * pen.width
    width, height = round(x1 - x0) + 2 * pad, round(y1 - y0) + 2 * pad
    left = max(0, box[0])
    above = box[1] >= height and not pen.inside
    top = box[1] - height if above else max(0, box[1])
    tab = (left, top, left + width, top + height)
    draw.rectangle(_grown(tab, pen.halo), fill=_WHITE)
    draw.rectangle(tab, fill=colour)
    origin = (left + pad - x0, top + pad - y0)
    draw.text(origin, text, font=pen.font, fill=_WHITE)


def _draw_scale_bar(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], um_px: float, boxes: Boxes, pen: _Pen
) -> None:
    """Draw a scale bar in the corner that hides the fewest cells."""
    length_um = bar_length_um(size[0] * um_px / 2)
    length_px = round(length_um / um_px)
    pad = 4 * pen.width
    text = f"{length_um} µm"
    x0, y0, x1, y1 = draw.textbbox((0, 0), text, font=pen.font)
    width = max(length_px, round(x1 - x0)) + 2 * pad
    height = round(y1 - y0) + 3 * pad + 2 * pen.width
    right, bottom = size[0] - pad - width, size[1] - pad - height
    corners = ((pad, bottom), (right, bottom), (pad, pad), (right, pad))
    left, top = min(corners, key=lambda c: _hidden(boxes, (*c, c[0] + width, c[1] + height)))
    draw.rectangle((left, top, left + width, top + height), fill=_WHITE)
    bar_left, bar_top = left + (width - length_px) // 2, top + height - pad - 2 * pen.width
    draw.rectangle(
        (bar_left, bar_top, bar_left + length_px, bar_top + 2 * pen.width), fill=_REST_RGB
    )
    text_left = left + (width - (x1 - x0)) / 2 - x0
    draw.text((text_left, top + pad - y0), text, font=pen.font, fill=_REST_RGB)


def _hidden(boxes: Boxes, area: Box) -> int:
    """How many boxes the area touches."""
    left, top, right, bottom = area
    return sum(
        box[0] <= right and box[2] >= left and box[1] <= bottom and box[3] >= top
        for box in boxes.values()
    )


def contact_sheet(album: Album, numbers: Sequence[int], marks: Mapping[int, Mark]) -> Image.Image:
    """Crops in rows, in the given order, winning cells framed and marked."""
    columns = min(_SHEET_COLUMNS, len(numbers))
    rows = -(-len(numbers) // columns)
    gap, side = 12, _SHEET_CELL_PX
    step = side + gap
    sheet = Image.new("RGB", (columns * step + gap, rows * step + gap), _WHITE)
    draw = ImageDraw.Draw(sheet)
    pen = _Pen(1, 1, _font(15), inside=True)
    for place, number in enumerate(numbers):
        left, top = gap + place % columns * step, gap + place // columns * step
        crop = Image.fromarray(album.bag.image(number))
        sheet.paste(crop.resize((side, side), Image.Resampling.LANCZOS), (left, top))
        if number in marks:
            _draw_cell(draw, (left, top, left + side - 1, top + side - 1), marks[number], pen)
    return sheet


def _save(path: Path, picture: Image.Image) -> None:
    write_bytes(path, jpeg_bytes(picture, quality=85))
