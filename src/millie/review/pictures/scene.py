"""What a viewer must know of an image before it asks for tiles: its size, and what kind it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from millie.review.pictures.crops import open_bag
from millie.review.pictures.tiles import TILE_PX, lowest_level, slide_size, top_level

if TYPE_CHECKING:
    from pathlib import Path

    from millie.bags.store import BagReader
    from millie.types import SourceRecord


@dataclass(frozen=True, slots=True)
class Scene:
    """An image as a viewer of tiles takes it.

    Attributes:
        width_px: at full resolution; also ``height_px``.
        um_px: scale at full resolution; None: unknown.
        tile_px: side of a tile.
        lowest: coarsest level that is needed; also ``top``, the finest.
    """

    width_px: int
    height_px: int
    um_px: float | None
    tile_px: int
    lowest: int
    top: int


def image_name(source: SourceRecord) -> str:
    """Of the image that a record of a bag came from: ``S-.../image-1.jpg`` is ``image-1.jpg``."""
    return source.name.rpartition("/")[2].partition("_at_")[0]


def is_slide(folder: Path, name: str) -> bool:
    """Whether the analysis read an image as a whole slide.

    Raises:
        FileNotFoundError: the analysis did not use the image.
    """
    return _record(open_bag(folder), name).place is not None


def scene_of(folder: Path, name: str, path: Path) -> Scene:
    """Size and scale of an image.

    Args:
        folder: of the run.
        name: of the image in the sample.
        path: of the stored file; opened only if it is a slide.

    Raises:
        FileNotFoundError: the analysis did not use the image.
        DataError, MissingFileError: it cannot be read.
    """
    record = _record(open_bag(folder), name)
    width, height, um_px = record.width_px, record.height_px, record.um_px
    if record.place is not None:
        width, height = slide_size(path, name)
        um_px = um_px / record.place.step if um_px else None
    return Scene(
        width, height, um_px, TILE_PX, lowest_level(width, height), top_level(width, height)
    )


@lru_cache(maxsize=4096)
def _record(bag: BagReader, name: str) -> SourceRecord:
    for source in bag.sources:
        if image_name(source) == name:
            return source
    raise FileNotFoundError(f"{name} is not among the images of this analysis")
