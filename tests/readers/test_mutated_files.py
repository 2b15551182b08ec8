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

SEEDS: dict[str, tuple[str, str, dict[str, object]]] = {
    "jpeg": ("RGB", "JPEG", {}),
    "jpeg progressive": ("RGB", "JPEG", {"progressive": True}),
    "jpeg cmyk": ("CMYK", "JPEG", {}),
    "png": ("RGB", "PNG", {"dpi": (254_000, 254_000)}),
    "png palette": ("P", "PNG", {"transparency": 3}),
    "png alpha": ("RGBA", "PNG", {}),
    "tiff": ("RGB", "TIFF", {"description": "ImageJ=1.5\nunit=micron"}),
    "tiff lzw": ("RGB", "TIFF", {"compression": "tiff_lzw"}),
    "tiff jpeg": ("RGB", "TIFF", {"compression": "jpeg"}),
    "bmp": ("RGB", "BMP", {}),
}
PER_SEED = 32


def encoded(mode: str, image_format: str, options: dict[str, object]) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, image_format, **options)  # type: ignore[arg-type]
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


@pytest.mark.parametrize("seed", SEEDS)
def test_mutated_files_end_decoded_or_refused(tmp_path: Path, seed: str) -> None:
    rng = np.random.default_rng(list(SEEDS).index(seed))
    path = tmp_path / "mutated"
    source, config = ImageSource(path, "mutated"), ReadingConfig()
    refused = 0
    for damaged in mutations(encoded(*SEEDS[seed]), rng, PER_SEED):
        path.write_bytes(damaged)
        try:
            field = read_image(source, config)
        except ImageError:
            refused += 1
            continue
        assert field.image.ndim == 3
        assert field.image.dtype == np.uint8
    assert refused > 0
