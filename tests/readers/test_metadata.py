"""Pixel size out of a file's metadata: believed only where a microscope could have given it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from millie.readers.metadata import pixel_size_of

NANOMETRES = 'PhysicalSizeX="110" PhysicalSizeXUnit="nm" PhysicalSizeY="110" PhysicalSizeYUnit="nm"'


def reopened(image_format: str, **options: Any) -> Image.Image:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, image_format, **options)
    return Image.open(buffer)


def um_px(image: Image.Image) -> float | None:
    size = pixel_size_of(image)
    return None if size is None else size.um_px


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "BMP"])
def test_resolution_tags_are_read(image_format: str) -> None:
    image = reopened(image_format, dpi=(254_000, 254_000))
    assert um_px(image) == pytest.approx(0.1, rel=1e-3)


def test_jfif_density_is_read() -> None:
    assert um_px(reopened("JPEG", dpi=(50_800, 50_800))) == pytest.approx(0.5)


@pytest.mark.parametrize("dpi", [72, 96, 144, 300, 25_000, 5_000_000])
def test_what_no_microscope_gives_is_no_scale(dpi: int) -> None:
    assert um_px(reopened("TIFF", dpi=(dpi, dpi))) is None


def test_pixels_that_are_not_square_have_no_scale() -> None:
    assert um_px(reopened("TIFF", dpi=(254_000, 200_000))) is None


def test_files_without_metadata_have_no_scale() -> None:
    assert um_px(reopened("PNG")) is None
    assert um_px(reopened("TIFF")) is None


def imagej(unit: str, per_unit: float) -> Image.Image:
    text = f"ImageJ=1.53t\nunit={unit}\nmin=0"
    return reopened("TIFF", description=text, x_resolution=per_unit, y_resolution=per_unit)


@pytest.mark.parametrize(
    ("unit", "per_unit"),
    [("micron", 10.0), ("um", 10.0), ("nm", 0.01), ("mm", 10_000.0), ("\\u00B5m", 10.0)],
)
def test_imagej_units(unit: str, per_unit: float) -> None:
    assert um_px(imagej(unit, per_unit)) == pytest.approx(0.1)


def test_imagej_unknown_unit_or_no_resolution_is_no_scale() -> None:
    assert um_px(imagej("furlong", 10.0)) is None
    assert um_px(reopened("TIFF", description="ImageJ=1.53t\nunit=um")) is None


def ome(attributes: str) -> Image.Image:
    return reopened("TIFF", description=f'<?xml version="1.0"?><OME><Pixels {attributes}/></OME>')


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ('PhysicalSizeX="0.11" PhysicalSizeY="0.11"', 0.11),
        (NANOMETRES, 0.11),
        ('PhysicalSizeX="0.11" PhysicalSizeY="0.22"', None),
        ('PhysicalSizeX="0.11"', None),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="pixel" PhysicalSizeY="1"', None),
        ('PhysicalSizeX="nan" PhysicalSizeY="nan"', None),
    ],
)  # fmt: skip
def test_ome_physical_size(attributes: str, expected: float | None) -> None:
    assert um_px(ome(attributes)) == expected
