"""Whole slides: fields of the monolayer, scale, colours, and what cannot be read."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from millie.config import Config, ReadingConfig
from millie.errors import DataError, ImageError, ImageTooLargeError, MissingPackageError, ScaleError
from millie.readers.colour import _ADOBE_RGB, Colours, matrix_profile, to_srgb
from millie.readers.fields import is_slide, read_fields
from millie.readers.slides import _grid, field_at, open_slide
from millie.synthetic import draw_field
from millie.synthetic.film import FilmConfig
from millie.synthetic.slide import BLOCK_PX, SlideConfig, write_slide
from millie.types import Field, ImageKind, ImageSource, PixelSize

if TYPE_CHECKING:
    from tests.conftest import DrawnSlide

openslide = pytest.importorskip("openslide", reason="pip install 'millie[slides]'")

READING = Config().reading


def source_of(path: Path, um_px: float | None = None) -> ImageSource:
    size = PixelSize(um_px) if um_px else None
    return ImageSource(path, path.name, kind=ImageKind.SLIDE, pixel_size=size)


def fields(path: Path, um_px: float | None = None, config: ReadingConfig = READING) -> list[Field]:
    return list(read_fields(source_of(path, um_px), config))


def write_film(path: Path, **options: Any) -> NDArray[np.uint8]:
    """A tiled TIFF of one drawn field, 1024 x 768 px."""
    film = FilmConfig(width_px=1024, height_px=768, um_px=0.25)
    image = draw_field(film, {}, np.random.default_rng(0)).image
    pages = options.pop("pages", 0)
    with tifffile.TiffWriter(path, ome=options.pop("ome", None)) as file:
        layout = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib"}
        file.write(image, subifds=pages or None, **layout, **options)
        for level in range(1, pages + 1):
            step = 2**level
            small = np.ascontiguousarray(image[::step, ::step])
            file.write(small, subfiletype=1, **layout)
    return image


def test_fields_lie_in_the_monolayer_and_nowhere_else(drawn_slide: DrawnSlide) -> None:
    found = fields(drawn_slide.path)
    config = drawn_slide.config
    start = config.thick * BLOCK_PX
    stop = start + config.monolayer * BLOCK_PX
    cores = [one.place.core for one in found if one.place]
    assert len(cores) == len(found) >= 4
    assert all(start <= (left + right) / 2 <= stop for left, _, right, _ in cores)
    covered = sum((right - left) * (bottom - top) for left, top, right, bottom in cores)
    assert covered > 0.5 * (stop - start) * config.rows * BLOCK_PX
    assert len(set(cores)) == len(cores)


def test_a_field_is_the_file_pixel_by_pixel(drawn_slide: DrawnSlide) -> None:
    whole = tifffile.imread(drawn_slide.path, key=0)
    for one in fields(drawn_slide.path)[:2]:
        place = one.place
        assert place is not None
        assert place.step == 1
        part = whole[
            place.top_px : place.top_px + place.height_px,
            place.left_px : place.left_px + place.width_px,
        ]
        np.testing.assert_array_equal(one.image, part)
        assert one.pixel_size == PixelSize(0.25)
        again = field_at(source_of(drawn_slide.path, 0.25), place)
        assert (again.sha256, again.pixel_size) == (one.sha256, one.pixel_size)


def test_fields_are_cut_at_the_coarsest_level_that_is_fine_enough(drawn_slide: DrawnSlide) -> None:
    coarse = READING.model_copy(update={"slide_um_px": 1.0})
    (one, *_) = fields(drawn_slide.path, config=coarse)
    assert one.place is not None
    assert one.pixel_size == PixelSize(1.0)
    assert one.place.step == 4
    assert one.image.shape[1] == pytest.approx(one.place.width_px / 4, abs=1)


def test_at_most_so_many_fields_and_the_same_ones_again(drawn_slide: DrawnSlide) -> None:
    few = READING.model_copy(update={"slide_fields": 3})
    first, again = (fields(drawn_slide.path, config=few) for _ in range(2))
    assert [one.place for one in first] == [one.place for one in again]
    assert [one.place and one.place.n_fields for one in first] == [3, 3, 3]


def test_what_is_read_at_a_time_does_not_grow_with_the_slide(
    drawn_slide: DrawnSlide, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, int]] = []
    read = openslide.OpenSlide.read_region
    monkeypatch.setattr(
        openslide.OpenSlide,
        "read_region",
        lambda self, at, level, size: (sizes.append(size), read(self, at, level, size))[1],
    )
    fields(drawn_slide.path)
    side = (200 + 2 * 12.5) / 0.25 * 1.5  # a core is at most half as large again as wanted
    assert max(max(size) for size in sizes) <= side
    assert sum(max(size) < 250 for size in sizes) == 8 * 3  # looks, on the level of 1 um/px


def test_without_smaller_levels_the_same_places_are_found(
    drawn_slide: DrawnSlide, tmp_path: Path
) -> None:
    path = tmp_path / "flat.tif"
    with tifffile.TiffFile(drawn_slide.path) as file:
        image = file.pages[0].asarray()
    tifffile.imwrite(
        path, image, tile=(256, 256), photometric="rgb", resolution=(4e4, 4e4), resolutionunit=3
    )
    with open_slide(path, "flat") as slide:
        assert slide.steps == (1.0,)
    assert [f.place for f in fields(path)] == [f.place for f in fields(drawn_slide.path)]


@pytest.mark.parametrize(
    ("options", "um_px"),
    [
        ({"resolution": (4e4, 4e4), "resolutionunit": 3}, 0.25),
        ({"resolution": (101_600, 101_600), "resolutionunit": 2}, 0.25),
        ({"resolution": (72, 72), "resolutionunit": 2}, None),
        ({}, None),
        (
            {
                "ome": True,
                "pages": 2,
                "metadata": {
                    "axes": "YXS",
                    "PhysicalSizeX": 250.0,
                    "PhysicalSizeXUnit": "nm",
                    "PhysicalSizeY": 250.0,
                    "PhysicalSizeYUnit": "nm",
                },
            },
            0.25,
        ),
    ],
)
def test_scale_is_what_the_file_states(
    options: dict[str, Any], um_px: float | None, tmp_path: Path
) -> None:
    path = tmp_path / "a.tif"
    image = write_film(path, **options)
    if um_px is None:
        with pytest.raises(ScaleError, match=r"a\.tif: the slide states no scale.*um_px"):
            fields(path)
        assert fields(path, 0.5)[0].pixel_size == PixelSize(0.5)
        (assumed, *_) = read_fields(source_of(path), READING, PixelSize(0.3))
        assert assumed.pixel_size == PixelSize(0.3)
        return
    (one,) = fields(path)
    assert one.pixel_size is not None
    assert one.pixel_size.um_px == pytest.approx(um_px)
    np.testing.assert_array_equal(one.image, image)
    assert any("no colour profile" in text for text in one.notes)


def test_the_manifest_goes_before_the_file(tmp_path: Path) -> None:
    write_film(tmp_path / "a.tif", resolution=(4e4, 4e4), resolutionunit=3)
    assert fields(tmp_path / "a.tif", 0.3)[0].pixel_size == PixelSize(0.3)


def test_the_colour_profile_is_applied(tmp_path: Path) -> None:
    profile = matrix_profile(_ADOBE_RGB, 563 / 256)
    image = write_film(
        tmp_path / "a.tif", resolution=(4e4, 4e4), resolutionunit=3, iccprofile=profile
    )
    (one,) = fields(tmp_path / "a.tif")
    wanted, _ = to_srgb(Image.fromarray(image), Colours(profile))
    np.testing.assert_array_equal(one.image, np.asarray(wanted))
    assert np.abs(one.image.astype(int) - image).max() > 3
    assert one.notes == ()


def test_a_damaged_tile_is_an_error_that_names_the_slide(
    drawn_slide: DrawnSlide, tmp_path: Path
) -> None:
    path = tmp_path / "broken.tif"
    data = bytearray(drawn_slide.path.read_bytes())
    with tifffile.TiffFile(drawn_slide.path) as file:
        page = file.pages[0]
        for tile in range(8, len(page.dataoffsets), 24):
            data[page.dataoffsets[tile] : page.dataoffsets[tile] + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"broken\.tif: .*damaged or truncated"):
        fields(path)


@pytest.mark.parametrize("share", [0.999, 0.5, 0.01])
def test_a_slide_that_was_cut_short_is_an_error_that_names_it(
    share: float, drawn_slide: DrawnSlide, tmp_path: Path
) -> None:
    path = tmp_path / "cut.svs"
    data = drawn_slide.path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=r"cut\.svs: "):
        fields(path)


@pytest.mark.parametrize(
    ("zones", "message"),
    [
        ({"glass": 2}, "nothing on it but empty glass or a few cells"),
        ({"feathered": 2}, "nothing on it but empty glass or a few cells"),
        ({"thick": 2}, "too thick or uneven everywhere, or this is tissue"),
    ],
)
def test_slides_without_a_monolayer_are_told(
    zones: dict[str, int], message: str, tmp_path: Path
) -> None:
    none = dict.fromkeys(("thick", "monolayer", "feathered", "glass"), 0)
    write_slide(tmp_path / "a.tif", SlideConfig(**{**none, **zones}, rows=1))
    with pytest.raises(ImageError, match=rf"a\.tif: no monolayer.*{message}"):
        fields(tmp_path / "a.tif")


def test_what_is_no_slide_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes(b"no slide")
    with pytest.raises(ImageError, match=r"a\.svs: not a whole slide of a known format; convert"):
        fields(tmp_path / "a.svs")


def test_huge_tiles_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((16, 16, 3), np.uint8), tile=(16, 16), photometric="rgb")
    with tifffile.TiffFile(path, mode="r+b") as file:
        for tag in ("TileWidth", "TileLength"):
            file.pages[0].tags[tag].overwrite(16_384)
    with pytest.raises(ImageError, match="tiles of 16384 x 16384 px"):
        fields(path)


def test_without_the_extra_the_message_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.svs").write_bytes(b"slide")
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'millie\[slides\]'"):
        fields(tmp_path / "a.svs")


def test_which_files_are_slides(drawn_slide: DrawnSlide, tmp_path: Path) -> None:
    small = READING.model_copy(update={"max_field_megapixels": 10})
    plain = ImageSource(drawn_slide.path, "a")
    assert is_slide(plain, small)
    assert not is_slide(plain, READING)  # 12.6 MP are a field still
    assert is_slide(source_of(drawn_slide.path), READING)
    striped = tmp_path / "striped.tif"
    tifffile.imwrite(striped, np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    assert not is_slide(source_of(striped), READING)
    assert not is_slide(source_of(tmp_path / "missing.tif"), READING)


def test_a_stated_size_that_no_slide_has_is_refused(drawn_slide: DrawnSlide) -> None:
    with open_slide(drawn_slide.path, "a.tif") as slide:
        huge = replace(slide, bounds=(0, 0, 2 * 10**9, 10**9))
        with pytest.raises(ImageTooLargeError, match=r"a\.tif: .*500,000 x 250,000 mm"):
            _grid(huge, PixelSize(0.25), 1.0)
