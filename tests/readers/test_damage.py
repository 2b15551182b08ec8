"""Damage that decoders forgive ends as a named error; what is whole is never taken for damaged."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from millie.config import Config, ReadingConfig
from millie.errors import ImageError, ImageTooLargeError
from millie.pipeline import read_cohort
from millie.pipeline.patient import PatientTask, segment_patient
from millie.readers.images import read_image
from millie.types import ImageSource

KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 16},
    "full colour": {"subsampling": 0},
}


def picture(side: int = 256) -> np.ndarray:
    """Smooth shapes with a little noise, as of a camera."""
    rows, columns = np.mgrid[0:side, 0:side]
    waves = np.sin(rows / 9) + np.cos(columns / 7)
    noise = np.random.default_rng(0).normal(0, 4, (side, side, 3))
    return (np.dstack([waves * 40 + 150, waves * 30 + 120, waves * 20 + 180]) + noise).astype(
        np.uint8
    )


def encoded(mode: str = "RGB", image_format: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    options = {"quality": 90, **options} if image_format == "JPEG" else options
    Image.fromarray(picture()).convert(mode).save(buffer, image_format, **options)
    return buffer.getvalue()


def read(folder: Path, data: bytes) -> np.ndarray:
    path = folder / "photo.jpg"
    path.write_bytes(data)
    return read_image(ImageSource(path, path.name), ReadingConfig()).image


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_whole_files_are_read(tmp_path: Path, kind: str, mode: str) -> None:
    data = encoded(mode, **KINDS[kind])
    assert read(tmp_path, data).shape == (256, 256, 3)
    assert read(tmp_path, data + b"notes of the camera" + bytes(64)).shape == (256, 256, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("share", [0.3, 0.55, 0.9, 0.98])
def test_cut_with_an_end_marker_behind_it(
    tmp_path: Path, kind: str, mode: str, share: float
) -> None:
    data = encoded(mode, **KINDS[kind])
    with pytest.raises(ImageError, match=r"photo\.jpg.*(lost|truncated)"):
        read(tmp_path, data[: int(len(data) * share)] + b"\xff\xd9")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sector", [64, 512, 4096])
def test_sectors_of_zeros(tmp_path: Path, kind: str, sector: int) -> None:
    data = encoded(**KINDS[kind])
    begin = data.index(b"\xff\xda") + 14
    for start in range(begin, len(data) - sector - 2, len(data) // 6):
        zeroed = data[:start] + bytes(sector) + data[start + sector :]
        with pytest.raises(ImageError, match=r"photo\.jpg.*(lost|truncated)"):
            read(tmp_path, zeroed)


OVERWRITTEN = r"photo\.jpg: part of the picture is lost \(overwritten"


@pytest.mark.parametrize("image_format", ["BMP", "TIFF"])
@pytest.mark.parametrize("value", [0, 0xFF])
@pytest.mark.parametrize("lost", [(20, 21), (40, 48)])
def test_overwritten_sectors_among_uncompressed_pixels(
    tmp_path: Path, image_format: str, value: int, lost: tuple[int, int]
) -> None:
    data = encoded("RGB", image_format)
    first, stop = (512 * sector for sector in lost)
    filled = data[:first] + bytes([value]) * (stop - first) + data[stop:]
    with pytest.raises(ImageError, match=OVERWRITTEN):
        read(tmp_path, filled)


@pytest.mark.parametrize("image_format", ["BMP", "TIFF"])
@pytest.mark.parametrize("kept", [20_000, 100_001, 300 * 512])
def test_an_uncompressed_file_whose_rest_was_never_copied(
    tmp_path: Path, image_format: str, kept: int
) -> None:
    data = encoded("RGB", image_format)
    with pytest.raises(ImageError, match=OVERWRITTEN):
        read(tmp_path, data[:kept] + bytes(len(data) - kept))


@pytest.mark.parametrize("image_format", ["BMP", "TIFF"])
@pytest.mark.parametrize("offset", [0, 30, 54])
def test_black_that_belongs_to_a_picture_is_no_damage(
    tmp_path: Path, image_format: str, offset: int
) -> None:
    """A round mask, bars and a frame of pure black, with rows as long as whole sectors."""
    rows, columns = np.mgrid[0:512, 0:512]
    for black in (
        (rows - 256) ** 2 + (columns - 256) ** 2 > (200 + offset) ** 2,
        rows >= 400 + offset,
        columns < 171 + offset,
        (rows < 20) | (columns >= 512 - 20),
    ):
        pixels = np.where(black[..., None], np.uint8(0), picture(512))
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, image_format)
        assert (read(tmp_path, buffer.getvalue()) == pixels).all()
        tifffile.imwrite(tmp_path / "aligned.tif", pixels, photometric="rgb", align=512)
        assert (read(tmp_path, (tmp_path / "aligned.tif").read_bytes()) == pixels).all()


def test_a_progressive_file_cut_between_two_scans(tmp_path: Path) -> None:
    data = encoded(progressive=True)
    scans = [i for i in range(len(data)) if data[i : i + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for place in scans[1:]:
        with pytest.raises(ImageError, match="scans are missing"):
            read(tmp_path, data[:place] + b"\xff\xd9")


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}])
def test_blank_borders_are_no_damage(tmp_path: Path, level: int, options: dict[str, Any]) -> None:
    """Optimised tables write a blank surround as zero bits."""
    pixels = np.full((1200, 1200, 3), level, np.uint8)
    pixels[500:756, 500:756] = picture()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, **options)
    assert read(tmp_path, buffer.getvalue()).shape == (1200, 1200, 3)


def test_a_camera_s_padding_before_the_end_is_no_damage(tmp_path: Path) -> None:
    data = encoded()
    assert read(tmp_path, data[:-2] + b"\0\0" + b"\xff\xd9").shape == (256, 256, 3)


def test_broken_notes_do_not_hide_lost_data(tmp_path: Path) -> None:
    data = encoded(icc_profile=bytes(300)).replace(
        b"ICC_PROFILE\0\x01\x01", b"ICC_PROFILE\0\x09\x01"
    )
    cut = data[: int(len(data) * 0.55)] + b"\xff\xd9"
    with pytest.raises(ImageError, match="lost"):
        read(tmp_path, cut)


def test_thousands_of_scans_are_refused(tmp_path: Path) -> None:
    data = encoded(progressive=True)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(ImageTooLargeError, match="scans"):
        read(tmp_path, data[:-2] + data[last:-2] * 10_000 + b"\xff\xd9")


@pytest.mark.parametrize("quality", [75, 95])
def test_jpeg_inside_tiff(tmp_path: Path, quality: int) -> None:
    data = encoded("RGB", "TIFF", compression="jpeg", quality=quality)
    assert read(tmp_path, data).shape == (256, 256, 3)
    with Image.open(io.BytesIO(data)) as image:
        start, length = (image.tag_v2[tag][-1] for tag in (273, 279))  # type: ignore[attr-defined]
    middle = start + length // 2
    zeroed = data[:middle] + bytes(start + length - 2 - middle) + data[start + length - 2 :]
    with pytest.raises(ImageError, match="lost"):
        read(tmp_path, zeroed)


@pytest.mark.parametrize("value", [0, 0xF6, 0xFF])
@pytest.mark.parametrize("compression", ["jpeg", "tiff_adobe_deflate"])
def test_overwritten_sectors_inside_packed_tiff(
    tmp_path: Path, compression: str, value: int
) -> None:
    data = encoded("RGB", "TIFF", compression=compression)
    for start in range(1024, len(data) - 1024, len(data) // 8):
        filled = data[:start] + bytes([value]) * 512 + data[start + 512 :]
        with pytest.raises(ImageError, match=r"photo\.jpg.*(lost|truncated|damaged)"):
            read(tmp_path, filled)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_each_byte_of_a_png_counts(tmp_path: Path, mode: str) -> None:
    data = encoded(mode, "PNG")
    read(tmp_path, data)
    for place in range(data.index(b"IDAT") + 10, len(data) - 30, len(data) // 12):
        flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(ImageError, match=r"photo\.jpg.*check sum"):
            read(tmp_path, flipped)


def test_millions_of_chunks_are_refused(tmp_path: Path) -> None:
    data = encoded("RGB", "PNG")
    chunk = struct.pack(">I", 0) + b"tEXt" + struct.pack(">I", zlib.crc32(b"tEXt"))
    with pytest.raises(ImageTooLargeError, match="chunks"):
        read(tmp_path, data[:33] + chunk * 200_000 + data[33:])


def test_the_patient_goes_on_without_the_damaged_file(
    tmp_path: Path, films: Path, tiny_config: Config
) -> None:
    patient = read_cohort([films]).patients[0]
    data = encoded()
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(data[: int(len(data) * 0.55)] + b"\xff\xd9")
    images = (ImageSource(cut, cut.name), *patient.images)
    task = PatientTask(replace(patient, images=images), tmp_path / "store", tiny_config)
    result = segment_patient(task)
    assert result["n_images"] == len(patient.images)
    (lost,) = [p for p in result["problems"] if p["source"] == "cut.jpg"]
    assert lost["error"] == "ImageError"
    assert not lost["note"]
