"""Damaged bytes: each mutated file ends decoded or refused with one typed error."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from millie.config import ReadingConfig
from millie.errors import ImageError
from millie.readers.images import read_image
from millie.types import ImageSource

SEEDS: dict[str, list[tuple[str, dict[str, object]]]] = {
    "JPEG": [("RGB", {}), ("RGB", {"progressive": True}), ("CMYK", {}), ("L", {})],
    "PNG": [
        ("RGB", {"dpi": (254_000, 254_000)}), ("P", {"transparency": 3}), ("RGBA", {}),
        ("I;16", {}),
    ],
    "TIFF": [
        ("RGB", {"description": "ImageJ=1.5\nunit=micron"}),
        ("RGB", {"compression": "tiff_lzw"}),
        ("RGB", {"compression": "jpeg"}),
        ("RGB", {"compression": "tiff_adobe_deflate"}),
    ],
    "BMP": [("RGB", {}), ("P", {}), ("L", {}), ("1", {})],
}  # fmt: skip
"""Of each format the kinds of file that are mutated: mode and how it is saved."""

SHORT, LONG = 500, 20_000
"""Mutated files a format."""


def encoded(mode: str, image_format: str, options: dict[str, object]) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image = (
        Image.fromarray(pixels[:, :, 0] * np.uint16(257)) if mode == "I;16" else image.convert(mode)
    )
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def mutations(data: bytes, rng: np.random.Generator, count: int) -> Iterator[bytes]:
    """Flipped, cut, zeroed, repeated and inserted bytes; half of them in the header."""
    for number in range(count):
        damaged = bytearray(data)
        reach = min(len(data), 200) if number % 2 else len(data)
        start = int(rng.integers(2, reach))
        length = int(rng.integers(1, 24))
        match number % 5:
            case 0:
                for position in rng.integers(2, reach, size=length):
                    damaged[position] = int(rng.integers(256))
            case 1:
                del damaged[start : start + length]
            case 2:
                damaged[start : start + length] = bytes(length)
            case 3:
                damaged[start:start] = damaged[start : start + length]
            case _:
                damaged[start : start + 4] = b"\xff\xff\xff\xff"
        yield bytes(damaged)


def check(image_format: str, count: int, path: Path) -> None:
    """Each mutated file ends decoded or refused; some of each kind of file are refused."""
    source, config = ImageSource(path, "mutated"), ReadingConfig()
    kinds = SEEDS[image_format]
    for number, (mode, options) in enumerate(kinds):
        rng = np.random.default_rng(number)
        refused = 0
        for damaged in mutations(encoded(mode, image_format, options), rng, count // len(kinds)):
            path.write_bytes(damaged)
            try:
                field = read_image(source, config)
            except ImageError:
                refused += 1
                continue
            assert field.image.ndim == 3
            assert field.image.dtype == np.uint8
        assert refused > 0


@pytest.mark.parametrize("image_format", SEEDS)
def test_mutated_files_end_decoded_or_refused(tmp_path: Path, image_format: str) -> None:
    check(image_format, SHORT, tmp_path / "mutated")


@pytest.mark.long
@pytest.mark.parametrize("image_format", SEEDS)
def test_many_mutated_files_end_decoded_or_refused(tmp_path: Path, image_format: str) -> None:
    """By itself: ``pytest -m long tests/readers/test_mutated_files.py``."""
    check(image_format, LONG, tmp_path / "mutated")
