"""Pictures of single cells for a page: chosen crops as data URIs, with flags and scale.

Owns the encoding of pictures for HTML, the badges and the scale bar's length. It does not decide
which cells are evidence (:mod:`millie.outputs.patient.evidence`).
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from math import isnan

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from millie.bags.store import BagReader
from millie.errors import DataError
from millie.types import Cell, SourceRecord

_BADGES = (
    ("smudge", "smudge", "smudge cell"),
    ("at_border", "edge", "cut off at the image edge"),
    ("in_clump", "clump", "touches another leukocyte"),
)


@dataclass(frozen=True, slots=True)
class Badge:
    """A flag of a cell: a short word and what it means."""

    word: str
    meaning: str


@dataclass(frozen=True, slots=True)
class CellPicture:
    """One crop as a page shows it.

    Attributes:
        uri: JPEG as a data URI; empty: the cell came as a vector.
        number: index of the cell in its bag.
        source: the image it was cut from.
        position: ``x, y`` in whole pixels of that image; empty: not known.
        badges: its flags.
        bar_percent: width of the scale bar in percent of the crop's side; None: scale unknown.
        bar_um: length that the bar stands for; None: scale unknown.
    """

    uri: str
    number: int
    source: str
    position: str
    badges: tuple[Badge, ...]
    bar_percent: float | None
    bar_um: int | None


class Album:
    """The cells of an open bag as pictures; the bag's tables are read once.

    Args:
        bag: stays open as long as the album is used.

    Attributes:
        bag: the same.
        cells: its cells, in order.
        sources: its images.
    """

    def __init__(self, bag: BagReader) -> None:
        self.bag = bag
        self.cells: list[Cell] = bag.cells
        self.sources: tuple[SourceRecord, ...] = bag.sources

    def picture(self, number: int, side_px: int) -> CellPicture:
        """Encode one crop.

        Args:
            number: index of the cell in the bag.
            side_px: largest side of the encoded picture; a smaller crop keeps its pixels.

        Raises:
            DataError: the bag has no such cell.
        """
        if not 0 <= number < len(self.cells):
            raise DataError(
                f"{self.bag.patient_id}: cell {number} is listed as evidence, but the bag has "
                f"{len(self.cells)}; the bag store has changed: run the command again"
            )
        cell = self.cells[number]
        source = self.sources[cell.source]
        bar_um, bar_percent = None, None
        across_um = self._across_um(source)
        if across_um is not None:
            bar_um = bar_length_um(across_um)
            bar_percent = round(100 * bar_um / across_um, 2)
        return CellPicture(
            uri="" if self.bag.holds_vectors else jpeg_uri(shrunk(self.bag.image(number), side_px)),
            number=number,
            source=source.name,
            position="" if isnan(cell.x_px) else f"{cell.x_px:.0f}, {cell.y_px:.0f}",
            badges=badges(cell),
            bar_percent=bar_percent,
            bar_um=bar_um,
        )

    def _across_um(self, source: SourceRecord) -> float | None:
        """Side of a crop in um; None where the image's scale is unknown."""
        if source.um_px is None:
            return None
        return self.bag.meta.size_um or self.bag.meta.size_px * source.um_px


def badges(cell: Cell) -> tuple[Badge, ...]:
    """Flags of a cell in words."""
    found = [Badge(word, meaning) for name, word, meaning in _BADGES if getattr(cell, name)]
    if cell.quality == 0:
        found.append(Badge("no outline", "no cell outline found in this image"))
    return tuple(found)


def bar_length_um(across_um: float) -> int:
    """The longest of 1, 2, 5, 10, 20, 50... um that fills at most half of a picture's width."""
    best, step = 1, 1
    while step <= across_um:
        for factor in (1, 2, 5):
            if factor * step <= across_um / 2:
                best = factor * step
        step *= 10
    return best


def shrunk(image: NDArray[np.uint8], side_px: int) -> Image.Image:
    """The picture with its longer side at most ``side_px``; never enlarged."""
    shown = Image.fromarray(image)
    if max(shown.size) > side_px:
        shown.thumbnail((side_px, side_px), Image.Resampling.LANCZOS, reducing_gap=None)
    return shown


def jpeg_bytes(image: Image.Image, quality: int = 88) -> bytes:
    """Encode as JPEG; colour is kept at full resolution, for stain is what a reader looks at."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


def jpeg_uri(image: Image.Image, quality: int = 88) -> str:
    """A picture as a data URI."""
    return data_uri(jpeg_bytes(image, quality), "image/jpeg")


def data_uri(content: bytes, media_type: str) -> str:
    """Any content as a base64 data URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
