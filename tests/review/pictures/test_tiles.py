from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from millie.errors import DataError
from millie.review.pictures import tiles
from millie.review.pictures.tiles import (
    TILE_PX,
    lowest_level,
    photograph_tile,
    slide_size,
    slide_tile,
    top_level,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def _smooth(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:height, 0:width]
    grain = np.random.default_rng(1).integers(0, 6, (height, width))  # not blank: no bomb
    return np.stack([x // 6 + grain, y // 6 + grain, (x + y) // 12], axis=2).astype(np.uint8)


def _decoded(content: bytes) -> NDArray[np.int64]:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB")).astype(np.int64)


@pytest.mark.parametrize(("size", "top"), [((1, 1), 0), ((512, 3), 9), ((513, 3), 10)])
def test_levels_halve_down_to_one_pixel(size: tuple[int, int], top: int) -> None:
    assert top_level(*size) == top
    assert -(-max(size) // 2 ** (top - lowest_level(*size))) <= TILE_PX


def test_the_tiles_of_a_level_are_the_image(tmp_path: Path) -> None:
    pixels = _smooth(700, 1100)
    path = tmp_path / "digest"
    Image.fromarray(pixels).save(path, "PNG")
    read = lambda *tile: _decoded(photograph_tile(path, "image-1.png", tmp_path / "t", tile))  # noqa: E731
    rows = [np.hstack([read(11, column, row) for column in range(3)]) for row in range(2)]
    whole = np.vstack(rows)
    assert whole.shape == pixels.shape
    assert np.abs(whole - pixels).mean() < 3
    assert read(9, 0, 0).shape == (175, 275, 3)
    with pytest.raises(FileNotFoundError):
        read(8, 0, 0)
    with pytest.raises(FileNotFoundError):
        read(11, 3, 0)


def test_an_image_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "digest"
    Image.fromarray(_smooth(60, 60)).save(path, "PNG")
    first = photograph_tile(path, "image-1.png", tmp_path / "t", (6, 0, 0))
    path.unlink()
    assert photograph_tile(path, "image-1.png", tmp_path / "t", (6, 0, 0)) == first


def test_the_cache_stays_below_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "t"
    for number in range(4):
        path = tmp_path / f"digest{number}"
        Image.fromarray(_smooth(300, 300)).save(path, "PNG")
        photograph_tile(path, "i.png", cache, (9, 0, 0))
        if number == 0:
            one = sum(tile.stat().st_size for tile in cache.rglob("*.jpg"))
            monkeypatch.setattr(tiles, "CACHE_BYTES", 2.5 * one)
    assert sorted(folder.name for folder in cache.iterdir()) == ["digest2", "digest3"]


def test_a_file_that_is_no_image_leaves_no_tiles(tmp_path: Path) -> None:
    path = tmp_path / "digest"
    path.write_bytes(b"<html>")
    with pytest.raises(DataError):
        photograph_tile(path, "image-1.png", tmp_path / "t", (0, 0, 0))
    assert not (tmp_path / "t").exists()


def test_a_slide_is_read_tile_by_tile(tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    tifffile = pytest.importorskip("tifffile")
    pixels = _smooth(900, 1400)
    path = tmp_path / "digest"
    with tifffile.TiffWriter(path) as file:
        for step in (1, 2):
            file.write(
                pixels[::step, ::step], tile=(256, 256), photometric="rgb", compression="deflate",
                subfiletype=int(step > 1),
            )  # fmt: skip
    assert slide_size(path, "image-1.svs") == (1400, 900)
    top = top_level(1400, 900)
    got = _decoded(slide_tile(path, "image-1.svs", (top, 2, 1)))
    assert np.abs(got - pixels[512:900, 1024:1400]).mean() < 3
    assert _decoded(slide_tile(path, "image-1.svs", (top - 2, 0, 0))).shape == (225, 350, 3)
    with pytest.raises(FileNotFoundError):
        slide_tile(path, "image-1.svs", (top, 9, 0))
