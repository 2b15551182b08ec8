"""Damaged bytes: each mutated file ends decoded or refused with one typed error."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from millie.config import ReadingConfig
from millie.errors import ImageError
from millie.readers.fields import read_fields
from millie.readers.images import read_image
from millie.readers.slides import open_slide
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


def dicom(codec: str) -> bytes:
    """A field of view in DICOM."""
    pydicom = pytest.importorskip("pydicom", reason="pip install 'millie[slides]'")
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    dataset = pydicom.Dataset()
    dataset.SOPClassUID = pydicom.uid.VLMicroscopicImageStorage
    dataset.SOPInstanceUID, dataset.PatientID = "1.2.3", "p"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 24, 32, 3
    dataset.PhotometricInterpretation = "YBR_FULL_422" if codec else "RGB"
    dataset.PlanarConfiguration, dataset.PixelRepresentation = 0, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelSpacing = [1e-4, 1e-4]
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.PixelData = pixels.tobytes()
    if codec:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
        dataset.PixelData = pydicom.encaps.encapsulate([encoded("RGB", codec, {})])
        dataset["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def slide(compression: str) -> bytes:
    """A tiled TIFF with a smaller level, as OpenSlide reads them."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    layout: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb", "compression": compression}
    with tifffile.TiffWriter(buffer) as file:
        file.write(pixels, resolution=(1e5, 1e5), resolutionunit="CENTIMETER", **layout)
        file.write(np.ascontiguousarray(pixels[::2, ::2]), subfiletype=1, **layout)
    return buffer.getvalue()


def read_file(path: Path) -> None:
    field = read_image(ImageSource(path, "mutated"), ReadingConfig())
    assert field.image.dtype == np.uint8


def read_field(path: Path) -> None:
    (field,) = read_fields(ImageSource(path, "mutated"), ReadingConfig())
    assert field.image.shape[2] == 3


def read_slide(path: Path) -> None:
    pytest.importorskip("openslide", reason="pip install 'millie[slides]'")
    with open_slide(path, "mutated") as opened:
        assert opened.read(0, 0, 256, 256, 2).shape == (128, 128, 3)


FORMATS: dict[str, tuple[Callable[[Path], None], Callable[[], list[bytes]]]] = {
    **{
        name: (read_file, lambda name=name: [encoded(m, name, o) for m, o in SEEDS[name]])
        for name in SEEDS
    },
    "DICOM": (read_field, lambda: [dicom(""), dicom("JPEG")]),
    "slide": (read_slide, lambda: [slide("zlib"), slide("none")]),
}
"""How a file of each format is read, and what is mutated."""


def refused(image_format: str, count: int, path: Path) -> list[int]:
    """How many mutated files of each kind end with a typed error; all others are decoded."""
    read, seeds = FORMATS[image_format]
    found = []
    kinds = seeds()
    for number, data in enumerate(kinds):
        path.write_bytes(data)
        read(path)
        found.append(0)
        for damaged in mutations(data, np.random.default_rng(number), count // len(kinds)):
            path.write_bytes(damaged)
            try:
                read(path)
            except ImageError:
                found[-1] += 1
    return found


@pytest.mark.parametrize("image_format", FORMATS)
def test_mutated_files_end_decoded_or_refused(tmp_path: Path, image_format: str) -> None:
    assert min(refused(image_format, SHORT, tmp_path / "mutated.dcm")) > 0


@pytest.mark.long
@pytest.mark.parametrize("image_format", FORMATS)
def test_many_mutated_files_end_decoded_or_refused(tmp_path: Path, image_format: str) -> None:
    """By itself: ``pytest -m long tests/readers/test_mutated_files.py``."""
    assert min(refused(image_format, LONG, tmp_path / "mutated.dcm")) > 0
