"""Tiles of a field or a whole slide, in the numbering of Deep Zoom: level 0 is one pixel.

A photograph is decoded once, by the same reader and under the same limits as for the analysis, cut
into JPEG tiles of every level, and kept in a cache of bounded size. A slide has its own levels:
OpenSlide reads each tile when it is asked for, in the memory of that tile.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import simplejpeg

from millie.config import ReadingConfig
from millie.errors import ImageError
from millie.readers.decoding import decoder_boundary
from millie.readers.images import read_image
from millie.readers.slides import open_slide
from millie.types import ImageSource

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE_PX = 512
CACHE_BYTES = 2 * 2**30
_QUALITY = 90
_OPEN_SLIDES = 2
_ONE_AT_A_TIME = Lock()  # decoded photographs: the memory of one, however many readers wait


def top_level(width_px: int, height_px: int) -> int:
    """The level at full resolution; each below has half its sides, rounded up."""
    return (max(width_px, height_px) - 1).bit_length()


def lowest_level(width_px: int, height_px: int) -> int:
    """The finest level that fits one tile: a viewer needs nothing coarser."""
    top = top_level(width_px, height_px)
    return min(top, TILE_PX.bit_length() - 1)


def photograph_tile(path: Path, name: str, cache: Path, tile: tuple[int, int, int]) -> bytes:
    """A tile of an image that is read whole.

    Args:
        path: the file, named by its SHA-256.
        name: for messages.
        cache: folder of all tiles.
        tile: level, column, row.

    Raises:
        FileNotFoundError: no such tile.
        DataError, MissingFileError: the image cannot be read.
    """
    folder = cache / path.stem
    if not folder.is_dir():
        with _ONE_AT_A_TIME:
            if not folder.is_dir():
                _cut_all(read_image(ImageSource(path, name), ReadingConfig()).image, folder)
                _prune(cache, folder)
    level, column, row = tile
    return (folder / str(level) / f"{column}_{row}.jpg").read_bytes()


def slide_tile(path: Path, name: str, tile: tuple[int, int, int]) -> bytes:
    """A tile (level, column, row) of a whole slide, as JPEG.

    Raises:
        FileNotFoundError: the slide has no such tile.
        ImageError: the file is damaged or no slide.
        MissingPackageError: OpenSlide is not installed.
    """
    level, column, row = tile
    generator = _slide(path, name)
    try:
        with decoder_boundary(name):
            image = generator.get_tile(level, (column, row))
    except ValueError as error:
        raise FileNotFoundError(f"{name}: no tile {tile}") from error
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=_QUALITY, subsampling=0)
    return stream.getvalue()


def slide_size(path: Path, name: str) -> tuple[int, int]:
    """Width and height of a slide at full resolution, px; raises as :func:`slide_tile`."""
    width, height = _slide(path, name).level_dimensions[-1]
    return width, height


@lru_cache(maxsize=_OPEN_SLIDES)
def _slide(path: Path, name: str) -> Any:
    with open_slide(path, name):  # the same checks as before an analysis
        pass
    import openslide  # noqa: PLC0415 - of the extra `slides`, whose absence open_slide has told
    from openslide.deepzoom import DeepZoomGenerator  # noqa: PLC0415

    return DeepZoomGenerator(openslide.OpenSlide(path), TILE_PX, overlap=0, limit_bounds=False)


def _cut_all(pixels: NDArray[np.uint8], folder: Path) -> None:
    """All tiles of all levels, there at once when the folder is."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix="new-", dir=folder.parent))
    height, width = pixels.shape[:2]
    try:
        for level in range(top_level(width, height), lowest_level(width, height) - 1, -1):
            _cut_level(pixels, new / str(level))
            half = ((pixels.shape[1] + 1) // 2, (pixels.shape[0] + 1) // 2)
            pixels = np.asarray(cv2.resize(pixels, half, interpolation=cv2.INTER_AREA), np.uint8)
        new.rename(folder)
    except OSError as error:
        raise ImageError(
            f"no tiles could be written ({error.strerror}): is the disk full?"
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _cut_level(pixels: NDArray[np.uint8], folder: Path) -> None:
    folder.mkdir()
    for top in range(0, pixels.shape[0], TILE_PX):
        for left in range(0, pixels.shape[1], TILE_PX):
            part = np.ascontiguousarray(pixels[top : top + TILE_PX, left : left + TILE_PX])
            encoded = simplejpeg.encode_jpeg(
                part, quality=_QUALITY, colorspace="RGB", colorsubsampling="444"
            )
            (folder / f"{left // TILE_PX}_{top // TILE_PX}.jpg").write_bytes(encoded)


def _prune(cache: Path, keep: Path) -> None:
    """Remove the images whose tiles were cut longest ago, until the cache is small enough."""
    folders = sorted((f for f in cache.iterdir() if f != keep), key=lambda f: f.stat().st_mtime)
    sizes = {f: sum(tile.stat().st_size for tile in f.rglob("*.jpg")) for f in [*folders, keep]}
    room = CACHE_BYTES - sum(sizes.values())
    for folder in folders:
        if room >= 0:
            return
        shutil.rmtree(folder, ignore_errors=True)
        room += sizes[folder]
