"""Reading one image: every kind of good and bad file ends as a Field or one typed error."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from millie.config import ReadingConfig
from millie.errors import ImageError, ImageTooLargeError, ManifestError, MissingFileError
from millie.readers.images import find_images, image_kind, kind_of_size, read_image
from millie.types import Field, ImageKind, ImageSource, PixelSize

CONFIG = ReadingConfig()
FORMATS = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "BMP": ".bmp"}


def picture(height: int = 40, width: int = 56) -> np.ndarray:
    """A smooth picture whose corners differ, so that turning it shows."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = rows * 255 // height, columns * 255 // width
    return np.dstack([red, green, 255 - red // 2]).astype(np.uint8)


def read(path: Path, **kwargs: object) -> Field:
    return read_image(ImageSource(path, path.name, **kwargs), CONFIG)  # type: ignore[arg-type]


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds next to nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("image_format", FORMATS)
def test_each_format_gives_rgb_and_the_digest_of_its_bytes(
    tmp_path: Path, image_format: str
) -> None:
    path = tmp_path / f"cell{FORMATS[image_format]}"
    Image.fromarray(picture()).save(path, image_format, quality=95)
    field = read(path)
    assert field.image.shape == (40, 56, 3)
    assert field.image.dtype == np.uint8
    assert field.image.flags.writeable
    assert np.abs(field.image.astype(int) - picture()).max() <= (
        12 if image_format == "JPEG" else 0
    )
    assert field.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert field.pixel_size is None


def test_content_decides_not_the_extension(tmp_path: Path) -> None:
    path = tmp_path / "cell.jpg"
    Image.fromarray(picture()).save(path, "PNG")
    np.testing.assert_array_equal(read(path).image, picture())


def test_grey_is_repeated(tmp_path: Path) -> None:
    grey = picture()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read(tmp_path / "grey.png").image, np.dstack([grey] * 3))


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "YCbCr"])
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "cell.tif"
    Image.fromarray(picture()).convert(mode).save(path)
    image = read(path).image
    assert image.shape == (40, 56, 3)
    if mode in {"CMYK", "YCbCr"}:
        assert np.abs(image.astype(int) - picture()).max() <= 3


def test_adobe_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    path = tmp_path / "cmyk.jpg"
    Image.fromarray(picture()).convert("CMYK").save(path, quality=100)
    assert np.abs(read(path).image.astype(int) - picture()).mean() < 6


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_lies_over_white(tmp_path: Path, suffix: str) -> None:
    layer = np.dstack([picture(), np.full((40, 56), 255, np.uint8)])
    layer[:10, :, 3] = 0
    path = tmp_path / f"alpha{suffix}"
    Image.fromarray(layer).save(path)
    image = read(path).image
    assert (image[:10] == 255).all()
    np.testing.assert_array_equal(image[10:], picture()[10:])


def test_transparent_palette_lies_over_white(tmp_path: Path) -> None:
    path = tmp_path / "palette.png"
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.save(path, transparency=1)
    assert (read(path).image == 255).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_keeps_the_upper_8(tmp_path: Path, suffix: str) -> None:
    deep = picture()[..., 1].astype(np.uint16) * 257
    path = tmp_path / f"deep{suffix}"
    Image.fromarray(deep).save(path)
    np.testing.assert_array_equal(read(path).image[..., 0], picture()[..., 1])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_12_bit_in_16_is_refused_not_read_as_black(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"camera{suffix}"
    Image.fromarray(picture()[..., 1].astype(np.uint16) * 16).save(path)
    with pytest.raises(ImageError, match=f"camera{suffix}.*rescale it to the full range"):
        read(path)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_32_bit_is_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "float.tif"
    Image.new(mode, (30, 30)).save(path)
    with pytest.raises(ImageError, match=r"32-bit.*export as 8-bit or 16-bit"):
        read(path)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(picture()).save(path, exif=exif)
    np.testing.assert_array_equal(read(path).image, np.rot90(picture(), k=-1))


def test_several_pages_are_refused_reduced_copies_are_not(tmp_path: Path) -> None:
    full, small = Image.fromarray(picture()), Image.fromarray(picture()).resize((28, 20))
    full.save(tmp_path / "stack.tif", save_all=True, append_images=[full])
    with pytest.raises(ImageError, match=r"stack\.tif: a TIFF of several pages.*each page"):
        read(tmp_path / "stack.tif")
    small.encoderinfo = {"tiffinfo": {254: 1}}
    full.save(tmp_path / "pyramid.tif", save_all=True, append_images=[small])
    np.testing.assert_array_equal(read(tmp_path / "pyramid.tif").image, picture())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (b"patient,label\n", "not a readable image"),
        (b"GIF89a" + b"\0" * 50, "expected JPEG, PNG, TIFF or BMP"),
        (b"\xff\xd8\xff\xe0", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"II*\x00", "damaged in its header"),
        (b"BM", "damaged in its header"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 64, "truncated"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"broken\.jpg.*{message}"):
        read(path)


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_cut_short_is_never_padded(tmp_path: Path, image_format: str, share: float) -> None:
    path = tmp_path / "cut"
    Image.fromarray(picture()).save(path, image_format)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match="cut"):
        read(path)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
def test_jpeg_whose_tail_is_zeros_is_cut_short(tmp_path: Path, options: dict[str, object]) -> None:
    path = tmp_path / "zeros.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (120, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, quality=100, **options)  # type: ignore[arg-type]
    data = path.read_bytes()
    path.write_bytes(data[:2000] + bytes(len(data) - 2000))
    with pytest.raises(ImageError, match="truncated"):
        read(path)


def test_end_marker_of_a_thumbnail_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "thumb.jpg"
    Image.fromarray(picture()).save(path)
    data = path.read_bytes()
    thumbnail = b"\xff\xd8\xff\xd9"
    segment = b"\xff\xe5" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    with_thumbnail = data[:2] + b"\xff" + segment + data[2:]
    path.write_bytes(with_thumbnail + b"notes of the camera")
    assert read(path).image.shape == (40, 56, 3)
    path.write_bytes(with_thumbnail[:-2])
    with pytest.raises(ImageError, match="truncated"):
        read(path)


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (12_000, 8_000)])
def test_huge_header_is_refused_before_decoding(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(width, height))
    with pytest.raises(ImageTooLargeError, match=r"huge\.png"):
        read(path)


def test_bomb_is_refused_by_its_ratio(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("RGB", (4000, 4000)).save(path)
    with pytest.raises(ImageTooLargeError, match=r"bomb\.png: .* the limit is 200 : 1"):
        read(path)
    Image.new("RGB", (360, 363)).save(path)
    assert read(path).image.shape == (363, 360, 3)


def test_every_limit_of_the_configuration_counts(tmp_path: Path) -> None:
    path = tmp_path / "cell.bmp"
    Image.fromarray(picture(700, 700)).save(path)
    source = ImageSource(path, path.name)
    for setting in ("max_field_megapixels", "max_file_megabytes"):
        with pytest.raises(ImageTooLargeError, match=setting):
            read_image(source, ReadingConfig(**{setting: 0.001}))
    Image.fromarray(picture(700, 700)).save(path, "PNG")
    with pytest.raises(ImageTooLargeError, match=r"limit is 1\.5 : 1"):
        read_image(source, ReadingConfig(max_expansion=1.5))


def test_missing_folder_and_device_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"gone\.jpg"):
        read(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="folder or device"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="folder or device"):
        read(tmp_path / "pipe.jpg")


def test_a_name_that_the_system_refuses_is_an_image_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        read(tmp_path / ("x" * 300))


def test_pixel_size_of_the_source_goes_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cell.png"
    Image.fromarray(picture()).save(path, dpi=(254_000, 254_000))
    own = read(path).pixel_size
    assert own is not None
    assert own.um_px == pytest.approx(0.1, rel=1e-4)
    assert read(path, pixel_size=PixelSize(0.2)).pixel_size == PixelSize(0.2)


def test_kind_is_decided_by_physical_size_where_known() -> None:
    assert kind_of_size(365, 360, None, CONFIG) is ImageKind.CELL
    assert kind_of_size(365, 440, None, CONFIG) is ImageKind.FIELD
    assert kind_of_size(365, 440, PixelSize(0.1), CONFIG) is ImageKind.CELL
    assert kind_of_size(365, 360, PixelSize(0.5), CONFIG) is ImageKind.FIELD
    assert (
        kind_of_size(100, 100, PixelSize(0.1), ReadingConfig(max_cell_side_um=5)) is ImageKind.FIELD
    )
    assert kind_of_size(100, 100, None, ReadingConfig(max_cell_side_px=64)) is ImageKind.FIELD


def test_kind_of_the_source_goes_first(tmp_path: Path) -> None:
    path = tmp_path / "cell.png"
    Image.fromarray(picture()).save(path)
    assert image_kind(read(path), CONFIG) is ImageKind.CELL
    assert image_kind(read(path, kind=ImageKind.FIELD), CONFIG) is ImageKind.FIELD


def test_find_images_sorts_and_passes_over_litter(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.tiff", "a.png", ".hidden.jpg", ".git/x.jpg", "Thumbs.db",
                 "__MACOSX/y.jpg", "notes.txt"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a/z.tiff", "a.png", "b.JPG"]
    with pytest.raises(MissingFileError, match="no such folder"):
        find_images(tmp_path / "gone")


def test_links_out_of_the_folder_are_refused_links_inside_passed_over(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root, outside):
        folder.mkdir()
        (folder / "x.jpg").write_bytes(b"x")
    (root / "again.jpg").symlink_to(root / "x.jpg")
    assert find_images(root) == [root / "x.jpg"]
    (root / "deep").symlink_to(outside)
    with pytest.raises(ManifestError, match=r"deep: a link that points outside.*copy"):
        find_images(root)
    (root / "deep").unlink()
    (root / "y.jpg").symlink_to(outside / "x.jpg")
    with pytest.raises(ManifestError, match=r"y\.jpg: a link"):
        find_images(root)


@pytest.mark.realdata
def test_real_files_of_every_set_are_read(data_root: Path) -> None:
    folders = ("all_idb1/im", "all_idb2/img", "pbc_cells", "bone_marrow_cells", "wbc_masks", "bccd")
    for folder in folders:
        paths = find_images(data_root / folder)
        for path in paths[:: max(1, len(paths) // 5)]:
            assert read(path).image.ndim == 3, path
