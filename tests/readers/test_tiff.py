"""Layouts of TIFF: read right, or refused by their true name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from millie.config import ReadingConfig
from millie.errors import ImageError
from millie.readers.images import read_image
from millie.types import ImageSource

ROWS, COLUMNS = np.mgrid[0:40, 0:56]
RGB = np.dstack([ROWS * 6, COLUMNS * 4, 255 - ROWS * 3]).astype(np.uint8)
DEEP = RGB.astype(np.uint16) * 257
PLANES = {"planarconfig": "separate", "photometric": "rgb"}
CHUNKY = {"photometric": "rgb"}


def read(path: Path) -> np.ndarray:
    return read_image(ImageSource(path, path.name), ReadingConfig()).image


def written(folder: Path, pixels: np.ndarray, **options: Any) -> Path:
    path = folder / "a.tif"
    tifffile.imwrite(path, pixels, **options)
    return path


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (RGB, CHUNKY),
        (DEEP, CHUNKY),
        (DEEP, {**CHUNKY, "compression": "zlib"}),
        (DEEP, {**CHUNKY, "compression": "zlib", "predictor": True}),
        (DEEP, {**CHUNKY, "tile": (16, 16)}),
        (DEEP, {**CHUNKY, "rowsperstrip": 7}),
        (RGB.transpose(2, 0, 1), PLANES),
        (RGB.transpose(2, 0, 1), {**PLANES, "rowsperstrip": 7}),
        (DEEP.transpose(2, 0, 1), {**PLANES, "compression": "zlib"}),
    ],
)
def test_read_right(
    tmp_path: Path, pixels: np.ndarray, options: dict[str, Any], byteorder: str
) -> None:
    np.testing.assert_array_equal(
        read(written(tmp_path, pixels, byteorder=byteorder, **options)), RGB
    )


def test_grey_in_which_white_is_0(tmp_path: Path) -> None:
    grey = read(written(tmp_path, RGB[..., 0], photometric="miniswhite"))
    np.testing.assert_array_equal(grey, np.dstack([255 - RGB[..., 0]] * 3))


def test_little_endian_bigtiff_is_read(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(written(tmp_path, RGB, bigtiff=True, **CHUNKY)), RGB)


@pytest.mark.parametrize(
    ("pixels", "options", "why"),
    [
        (DEEP.transpose(2, 0, 1), PLANES, "16-bit colours in separate planes"),
        (RGB, {**CHUNKY, "bigtiff": True, "byteorder": ">"}, "a big-endian BigTIFF"),
        (RGB.astype(np.float32), CHUNKY, "32-bit floating-point"),
        (RGB[..., 0].astype(np.float16), {}, "16-bit floating-point"),
        (RGB.astype(np.float64), CHUNKY, "64-bit floating-point"),
        (RGB.astype(np.int16), CHUNKY, "16-bit signed"),
        (RGB.astype(np.uint32), CHUNKY, "32-bit pixels"),
        (RGB[..., :2], {"photometric": "minisblack", "planarconfig": "contig"}, "two channels"),
        (DEEP[..., 0], {"photometric": "miniswhite"}, "16-bit grey in which white is 0"),
    ],
)
def test_refused_by_its_true_name(
    tmp_path: Path, pixels: np.ndarray, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(ImageError, match=rf"a\.tif: a TIFF with {why}.*export as"):
        read(written(tmp_path, pixels, **options))


@pytest.mark.parametrize(("code", "name"), [(33003, "JPEG 2000"), (33005, "JPEG 2000"),
    (34712, "JPEG 2000"), (50001, "WebP"), (50002, "JPEG XL"), (1234, "unknown")])  # fmt: skip
@pytest.mark.parametrize("big", [False, True])
def test_compressions_are_named(tmp_path: Path, code: int, name: str, big: bool) -> None:
    path = written(tmp_path, RGB, bigtiff=big, **CHUNKY)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["Compression"].overwrite(code)
    with pytest.raises(ImageError, match=f"{name}.* compression"):
        read(path)


@pytest.mark.parametrize(
    ("colours", "name"),
    [(4, "mask"), (9, "ICC Lab"), (32803, "colour filter array"), (34892, "linear raw"),
     (77, r"unknown \(77\)")],
)  # fmt: skip
def test_kinds_of_colour_are_named(tmp_path: Path, colours: int, name: str) -> None:
    path = written(tmp_path, RGB, **CHUNKY)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["PhotometricInterpretation"].overwrite(colours)
    with pytest.raises(ImageError, match=rf"a TIFF with 8-bit {name}.* in 3 channels.*export"):
        read(path)


def test_subsampled_colours_without_jpeg_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, RGB, photometric="ycbcr")
    assert read(path).shape == RGB.shape
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["YCbCrSubSampling"].overwrite((2, 2))
    with pytest.raises(ImageError, match="subsampled YCbCr"):
        read(path)


def test_colours_in_three_pages(tmp_path: Path) -> None:
    planes = RGB.transpose(2, 0, 1)
    with pytest.raises(ImageError, match=r"three grey pages.*Merge Channels"):
        read(written(tmp_path, planes, photometric="minisblack"))
    with pytest.raises(ImageError, match="several pages"):
        read(written(tmp_path, planes[:2], photometric="minisblack"))
    with pytest.raises(ImageError, match="several pages"):
        read(written(tmp_path, np.stack([RGB] * 3), **CHUNKY))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
@pytest.mark.parametrize("flaw", ["none", "hot pixel", "white bar", "pale bar"])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_depth_is_recognised(tmp_path: Path, bits: int, flaw: str, grey: bool, suffix: str) -> None:
    pixels = (DEEP >> (16 - bits))[..., 2]
    pixels = pixels if grey else np.dstack([pixels] * 3)
    if flaw == "hot pixel":
        pixels[3, 3] = 65_535
    elif flaw == "white bar":
        pixels[-6:] = 65_535
    elif flaw == "pale bar":
        pixels[-6:] = 60_000
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, pixels, photometric="minisblack" if grey else "rgb")
    elif grey:
        Image.fromarray(pixels).save(path)
    else:
        pytest.importorskip("cv2").imwrite(str(path), pixels)
    if bits == 16:
        assert read(path)[0, 0, 2] == 255
        return
    with pytest.raises(ImageError, match="fewer than 16 bits"):
        read(path)
