"""Colours stated by a file become sRGB; sRGB in whatever words changes no byte."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from millie.config import ReadingConfig
from millie.readers.colour import _ADOBE_RGB, _PRIMARIES, _SRGB, matrix_profile
from millie.readers.images import read_image
from millie.types import Field, ImageSource

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
OWN_SRGB = matrix_profile(_SRGB, None)
ADOBE = matrix_profile(_ADOBE_RGB, 563 / 256)
WIDE = matrix_profile(_PRIMARIES[9], 1.8)
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                   [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip
ADOBE_TO_XYZ = np.array([[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529],
                         [0.02703, 0.07069, 0.99134]])  # fmt: skip


def picture() -> np.ndarray:
    """Muted colours, as of a stained film: inside each of the spaces."""
    rows, columns = np.mgrid[0:40, 0:56]
    return np.dstack([90 + rows * 3, 80 + columns * 2, 200 - rows]).astype(np.uint8)


def by_formula(pixels: np.ndarray, to_xyz: np.ndarray, exponent: float) -> np.ndarray:
    """The same conversion from the standards' own figures (white stays white: both are D65)."""
    light = (pixels / 255.0) ** exponent @ to_xyz.T @ np.linalg.inv(TO_XYZ).T
    light = np.clip(light, 0, 1)
    value = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(value * 255))


def read(path: Path) -> Field:
    return read_image(ImageSource(path, path.name), ReadingConfig())


def saved(path: Path, pixels: np.ndarray | None = None, **options: Any) -> Path:
    lossless = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}
    Image.fromarray(picture() if pixels is None else pixels).save(path, **lossless, **options)
    return path


def with_chunks(path: Path, *chunks: tuple[bytes, bytes], pixels: np.ndarray | None = None) -> Path:
    """A PNG with these chunks behind its header."""
    buffer = io.BytesIO()
    Image.fromarray(picture() if pixels is None else pixels).save(buffer, "PNG")
    data = buffer.getvalue()
    for name, body in chunks:
        chunk = struct.pack(">I", len(body)) + name + body
        data = data[:33] + chunk + struct.pack(">I", zlib.crc32(name + body)) + data[33:]
    path.write_bytes(data)
    return path


def chrm(primaries: tuple[tuple[float, float], ...]) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(v * 100_000) for xy in primaries for v in xy))


def gama(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(value * 100_000))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_an_adobe_rgb_profile_is_converted(tmp_path: Path, suffix: str) -> None:
    plain = read(saved(tmp_path / f"plain{suffix}")).image
    field = read(saved(tmp_path / f"adobe{suffix}", icc_profile=ADOBE))
    expected = by_formula(plain, ADOBE_TO_XYZ, 563 / 256)
    assert np.abs(field.image - expected).max() <= 2
    assert np.abs(field.image.astype(int) - plain).max() > 15
    assert field.notes == ()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("profile", [SRGB, OWN_SRGB], ids=["littlecms", "matrix"])
def test_an_srgb_profile_changes_no_byte(tmp_path: Path, suffix: str, profile: bytes) -> None:
    field = read(saved(tmp_path / f"srgb{suffix}", icc_profile=profile))
    np.testing.assert_array_equal(field.image, read(saved(tmp_path / f"plain{suffix}")).image)
    assert field.notes == ()


def test_the_order_of_primaries_and_the_wide_gamut(tmp_path: Path) -> None:
    pixels = np.full((20, 20, 3), (60, 200, 60), np.uint8)
    red, green, blue = read(saved(tmp_path / "w.png", pixels, icc_profile=WIDE)).image[0, 0]
    assert green > 200
    assert max(red, blue) < 60


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "L"])
def test_other_modes_keep_white_and_alpha(tmp_path: Path, mode: str) -> None:
    layer = np.dstack([picture(), np.full((40, 56), 255, np.uint8)])
    layer[:10, :, 3] = 0
    image = Image.fromarray(layer).convert("RGB" if mode in {"P", "L"} else "RGBA").convert(mode)
    image.save(tmp_path / "a.png", icc_profile=ADOBE)
    image.save(tmp_path / "plain.png")
    found, plain = read(tmp_path / "a.png"), read(tmp_path / "plain.png")
    assert found.notes == ()
    if "A" in mode:
        assert (found.image[:10] == 255).all()
    expected = by_formula(plain.image[10:], ADOBE_TO_XYZ, 563 / 256)
    assert np.abs(found.image[10:] - expected).max() <= 2


def test_16_bit_grey_goes_through_its_profile(tmp_path: Path) -> None:
    deep = picture()[..., 1].astype(np.uint16) * 257
    linear = matrix_profile(_SRGB, 1.0)
    found = read(saved(tmp_path / "deep.png", deep, icc_profile=linear)).image
    assert np.abs(found - by_formula(np.dstack([deep >> 8] * 3), TO_XYZ, 1.0)).max() <= 2


@pytest.mark.parametrize(
    "profile", [b"no profile at all", ADOBE[:200], ADOBE[:16] + b"CMYK" + ADOBE[20:]]
)
def test_a_profile_that_cannot_be_used_is_said(tmp_path: Path, profile: bytes) -> None:
    field = read(saved(tmp_path / "bad.tif", icc_profile=profile))
    np.testing.assert_array_equal(field.image, picture())
    assert "colour profile cannot be used" in field.notes[0]
    assert "export the image as sRGB" in field.notes[0]


def test_a_profile_of_which_a_part_is_missing_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "part.jpg", icc_profile=ADOBE)
    data = bytearray(path.read_bytes())
    place = data.index(b"ICC_PROFILE\0") + 12
    data[place + 1] = 2  # of two parts, the first
    path.write_bytes(data)
    assert "colour profile is incomplete" in read(path).notes[0]


def test_profile_in_a_bitmap(tmp_path: Path) -> None:
    rows = np.ascontiguousarray(
        np.pad(picture()[::-1, :, ::-1], ((0, 0), (0, 0), (0, 0)))
    ).tobytes()
    head = struct.pack("<IiiHHIIiiII", 124, 56, 40, 1, 24, 0, len(rows), 0, 0, 0, 0)

    def bitmap(space: bytes) -> bytes:
        rest = bytes(16) + space + bytes(48)
        rest += struct.pack("<IIII", 4, 124 + len(rows), len(ADOBE), 0)
        start = struct.pack("<2sIII", b"BM", 14 + 124 + len(rows) + len(ADOBE), 0, 14 + 124)
        return start + head + rest + rows + ADOBE

    (tmp_path / "v5.bmp").write_bytes(bitmap(b"DEBM"))
    found = read(tmp_path / "v5.bmp")
    assert np.abs(found.image - by_formula(picture(), ADOBE_TO_XYZ, 563 / 256)).max() <= 2
    (tmp_path / "v5.bmp").write_bytes(bitmap(b"KNIL"))
    assert "incomplete" in read(tmp_path / "v5.bmp").notes[0]
    (tmp_path / "v5.bmp").write_bytes(bitmap(b"BGRs"))
    np.testing.assert_array_equal(read(tmp_path / "v5.bmp").image, picture())


@pytest.mark.parametrize(
    "chunks",
    [[], [gama(0.45455)], [gama(0.45455), chrm(_SRGB)], [chrm(_SRGB)], [(b"sRGB", b"\0"), gama(1)],
     [(b"cICP", bytes([1, 13, 0, 1]))]],
)  # fmt: skip
def test_srgb_in_words_of_png_changes_no_byte(
    tmp_path: Path, chunks: list[tuple[bytes, bytes]]
) -> None:
    field = read(with_chunks(tmp_path / "a.png", *chunks))
    np.testing.assert_array_equal(field.image, picture())
    assert field.notes == ()


@pytest.mark.parametrize(
    ("chunks", "to_xyz", "exponent"),
    [
        ([gama(1.0)], TO_XYZ, 1.0),
        ([gama(1 / 1.8)], TO_XYZ, 1.8),
        ([gama(1.0), chrm(_ADOBE_RGB)], ADOBE_TO_XYZ, 1.0),
    ],
)
def test_gamma_and_primaries_of_png(
    tmp_path: Path, chunks: list[tuple[bytes, bytes]], to_xyz: np.ndarray, exponent: float
) -> None:
    field = read(with_chunks(tmp_path / "a.png", *chunks))
    assert np.abs(field.image - by_formula(picture(), to_xyz, exponent)).max() <= 2
    assert field.notes == ()


def test_display_p3_by_cicp_equals_its_profile(tmp_path: Path) -> None:
    stated = read(with_chunks(tmp_path / "a.png", (b"cICP", bytes([12, 13, 0, 1]))))
    profile = matrix_profile(_PRIMARIES[12], None)
    same = read(saved(tmp_path / "b.png", icc_profile=profile))
    np.testing.assert_array_equal(stated.image, same.image)
    assert np.abs(stated.image.astype(int) - picture()).max() > 5


@pytest.mark.parametrize(
    "chunk", [gama(0.0), gama(90.0), chrm(((0.3, 0.0),) * 4), chrm(((0.3, 0.3),) * 4),
              (b"cICP", bytes([9, 16, 0, 1]))],
)  # fmt: skip
def test_impossible_colours_of_png_are_said(tmp_path: Path, chunk: tuple[bytes, bytes]) -> None:
    field = read(with_chunks(tmp_path / "a.png", chunk))
    np.testing.assert_array_equal(field.image, picture())
    assert len(field.notes) == 1


def exif(space: int | None, index: str | None = None) -> Image.Exif:
    notes = Image.Exif()
    inner: dict[int, Any] = {} if space is None else {0xA001: space}
    if index:
        inner[0xA005] = {1: index}
    notes._ifds[0x8769] = inner
    return notes


@pytest.mark.parametrize(("space", "index"), [(2, None), (0xFFFF, "R03")])
def test_adobe_rgb_by_exif(tmp_path: Path, space: int, index: str | None) -> None:
    plain = read(saved(tmp_path / "plain.jpg")).image
    field = read(saved(tmp_path / "a.jpg", exif=exif(space, index)))
    assert np.abs(field.image - by_formula(plain, ADOBE_TO_XYZ, 563 / 256)).max() <= 2
    assert field.notes == ()


@pytest.mark.parametrize(("space", "notes"), [(1, 0), (None, 0), (0xFFFF, 1), (0xFFFD, 1)])
def test_other_colour_spaces_of_exif(tmp_path: Path, space: int | None, notes: int) -> None:
    field = read(saved(tmp_path / "a.jpg", exif=exif(space)))
    np.testing.assert_array_equal(field.image, read(saved(tmp_path / "plain.jpg")).image)
    assert len(field.notes) == notes


def test_a_profile_goes_before_exif(tmp_path: Path) -> None:
    field = read(saved(tmp_path / "a.jpg", exif=exif(2), icc_profile=SRGB))
    np.testing.assert_array_equal(field.image, read(saved(tmp_path / "plain.jpg")).image)


def test_primaries_of_tiff_tags(tmp_path: Path) -> None:
    values = [v for xy in _ADOBE_RGB for v in xy]
    tags = {318: tuple(values[:2]), 319: tuple(values[2:])}
    field = read(saved(tmp_path / "a.tif", tiffinfo=tags))
    same = read(saved(tmp_path / "b.tif", icc_profile=matrix_profile(_ADOBE_RGB, None)))
    np.testing.assert_array_equal(field.image, same.image)
    assert np.abs(field.image.astype(int) - picture()).max() > 5
