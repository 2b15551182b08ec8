"""Pixel size out of a file's metadata: believed only where a microscope could have given it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from millie.config import ReadingConfig
from millie.readers.images import read_image
from millie.readers.metadata import StatedScale, stated_scale
from millie.types import ImageSource, PixelSize

NANOMETRES = 'PhysicalSizeX="110" PhysicalSizeXUnit="nm" PhysicalSizeY="110" PhysicalSizeYUnit="nm"'


def reopened(image_format: str, **options: Any) -> Image.Image:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, image_format, **options)
    return Image.open(buffer)


def um_px(image: Image.Image) -> float | None:
    size = stated_scale(image).pixel_size
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
    [
        ("micron", 10.0), ("um", 10.0), ("nm", 0.01), ("mm", 10_000.0), ("\\u00B5m", 10.0),
        ("micrometers", 10.0), ("cm", 100_000.0), ("inch", 254_000.0),
    ],
)  # fmt: skip
def test_imagej_units(unit: str, per_unit: float) -> None:
    assert um_px(imagej(unit, per_unit)) == pytest.approx(0.1)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_imagej_mu_in_either_encoding(encoding: str) -> None:
    assert um_px(with_description("ImageJ=1.53t\nunit=µm\n".encode(encoding), 10)) == 0.1


@pytest.mark.parametrize(("stated", "expected"), [("0.2520", 0.252), (" .1", 0.1)])
def test_aperio(stated: str, expected: float) -> None:
    text = f"Aperio Image Library v12.0.15\r\n640x480 |AppMag = 40|MPP = {stated}|Date = 01/02/20"
    assert um_px(with_description(text.encode(), 1)) == pytest.approx(expected)
    wrong = with_description(text.replace(stated, "0,25").encode(), 1)
    assert "not understood" in stated_scale(wrong).note


def test_imagej_unknown_unit_is_named_and_no_resolution_is_no_scale() -> None:
    found = stated_scale(imagej("furlong", 10.0))
    assert found.pixel_size is None
    assert "unit 'furlong'" in found.note
    assert um_px(reopened("TIFF", description="ImageJ=1.53t\nunit=um")) is None
    assert stated_scale(imagej("pixel", 1.0)) == StatedScale()


@pytest.mark.parametrize(
    ("unit", "per_unit"), [(2, 254_000), (3, 100_000), (4, 10_000), (5, 10)]
)  # inch, cm, mm, um
def test_every_unit_of_the_resolution_tags(unit: int, per_unit: int) -> None:
    tags = {282: per_unit, 283: per_unit, 296: unit}
    assert um_px(reopened("TIFF", tiffinfo=tags)) == pytest.approx(0.1)
    del tags[283]
    assert um_px(reopened("TIFF", tiffinfo=tags)) == pytest.approx(0.1)


def with_description(text: bytes, per_unit: float = 1.0) -> Image.Image:
    """A TIFF whose ImageDescription holds exactly these bytes."""
    buffer, pixels = io.BytesIO(), np.zeros((8, 8, 3), np.uint8)
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None, "resolutionunit": 1}
    tifffile.imwrite(buffer, pixels, description=text, resolution=(per_unit, per_unit), **options)
    return Image.open(buffer)


def ome(attributes: str, encoding: str = "utf-8") -> Image.Image:
    text = f'<?xml version="1.0" encoding="UTF-8"?><OME><Pixels {attributes}/></OME>'
    return with_description(text.encode(encoding))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ('PhysicalSizeX="0.11" PhysicalSizeY="0.11"', 0.11),
        (NANOMETRES, 0.11),
        ('PhysicalSizeX="0.11"', 0.11),
        ('PhysicalSizeY="0.11"', 0.11),
        ('PhysicalSizeX="0.11" PhysicalSizeXUnit="µm"', 0.11),
        ('PhysicalSizeX="0.11" PhysicalSizeXUnit="&#181;m"', 0.11),
        ('PhysicalSizeX="0.11" PhysicalSizeXUnit="&#xB5;m"', 0.11),
        ("PhysicalSizeX = '1.1E-1'\n PhysicalSizeXUnit = 'μm'", 0.11),
        ('PhysicalSizeX="0.11" PhysicalSizeXUnit="Âµm"', 0.11),
    ],
)  # fmt: skip
def test_ome_physical_size(attributes: str, expected: float | None) -> None:
    assert um_px(ome(attributes)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("unit", "um"),
    [("m", 1e6), ("dm", 1e5), ("cm", 1e4), ("mm", 1e3), ("nm", 1e-3), ("pm", 1e-6), ("fm", 1e-9),
     ("km", 1e9), ("Mm", 1e12), ("Pm", 1e21), ("dam", 1e7), ("Å", 1e-4), ("\u212b", 1e-4),
     ("in", 25400), ("thou", 25.4), ("li", 25400 / 12), ("ft", 304800), ("yd", 914400),
     ("pt", 25400 / 72), ("mi", 1.609344e9), ("inch", 25400), ("Micrometers", 1.0)],
)  # fmt: skip
def test_every_length_unit_of_ome(unit: str, um: float) -> None:
    stated = f'PhysicalSizeX="{0.1 / um!r}" PhysicalSizeXUnit="{unit}"'
    assert um_px(ome(stated)) == pytest.approx(0.1)


def test_ome_in_latin_1_is_read_too() -> None:
    assert um_px(ome('PhysicalSizeX="0.11" PhysicalSizeXUnit="µm"', "latin-1")) == 0.11


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ('PhysicalSizeX="0.11" PhysicalSizeXUnit="cubit"', "unit 'cubit'"),
        ('PhysicalSizeX="0,11"', "'0,11'"),
        ('PhysicalSizeX="nan" PhysicalSizeY="nan"', "nan"),
        ('PhysicalSizeX="-0.1"', "-0.1"),
        ('PhysicalSizeX="0.11" PhysicalSizeY="0.22"', "square"),
        ('PhysicalSizeX="25"', "possible for cells"),
        ('PhysicalSizeX="0.11"><Pixels', "broken"),
    ],
)  # fmt: skip
def test_a_stated_scale_that_is_not_understood_is_said(attributes: str, why: str) -> None:
    found = stated_scale(ome(attributes))
    assert found.pixel_size is None
    assert "states a scale that is not understood" in found.note
    assert why in found.note
    assert "um_px" in found.note


def test_pixels_as_unit_state_nothing() -> None:
    stated = 'PhysicalSizeX="1" PhysicalSizeXUnit="pixel" PhysicalSizeY="1"'
    assert stated_scale(ome(stated)) == StatedScale()
    assert stated_scale(ome('SizeX="8"')) == StatedScale()


def test_entities_of_ome_xml_are_not_expanded() -> None:
    text = b'<!DOCTYPE x [<!ENTITY a "0.1">]><OME><Pixels PhysicalSizeX="&a;"/></OME>'
    assert "document type" in stated_scale(with_description(text)).note


def test_the_pixels_of_this_size_are_taken() -> None:
    text = (
        b'<o:OME xmlns:o="x"><o:Pixels SizeX="99" SizeY="99" PhysicalSizeX="0.9"/>'
        b'<o:Pixels SizeX="8" SizeY="8" PhysicalSizeX="0.1"/></o:OME>'
    )
    assert um_px(with_description(text)) == 0.1


@pytest.mark.parametrize(
    "size",
    [{"PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "µm"}, {"PhysicalSizeX": 100.0,
     "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 100.0, "PhysicalSizeYUnit": "nm"}],
)  # fmt: skip
def test_ome_tiff_as_tifffile_writes_it(tmp_path: Path, size: dict[str, Any]) -> None:
    path = tmp_path / "field.ome.tif"
    pixels = np.zeros((40, 56, 3), np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", metadata={"axes": "YXS", **size})
    field = read_image(ImageSource(path, path.name), ReadingConfig())
    assert field.pixel_size == PixelSize(0.1)
    assert field.notes == ()


def test_the_note_stands_with_the_field_unless_the_scale_is_given(tmp_path: Path) -> None:
    path = tmp_path / "field.tif"
    text = '<OME><Pixels PhysicalSizeX="1" PhysicalSizeXUnit="ell"/></OME>'
    Image.new("RGB", (40, 56)).save(path, description=text)
    source = ImageSource(path, path.name)
    (told,) = read_image(source, ReadingConfig()).notes
    assert "unit 'ell'" in told
    given = read_image(replace(source, pixel_size=PixelSize(0.1)), ReadingConfig())
    assert given.notes == ()
