"""Bytes of one image file -> uint8 RGB, with every limit checked on the header first.

Owns the allow-list of formats (by content, never by extension), the limits, and the conversion of
what the formats can hold (grey, palette, alpha, CMYK, 16 bit, EXIF orientation) to RGB; what the
colours mean is colour.py, what is damaged damage.py. One decoder, Pillow, for all formats. Does
not open files and does not know patients.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from millie.errors import ImageError, ImageTooLargeError, MillieError, no_warnings
from millie.readers.colour import stated_colours, to_srgb
from millie.readers.damage import check_coded, check_sectors, check_structure
from millie.readers.heif import is_heif, teach_pillow
from millie.readers.libtiff import hush
from millie.readers.limits import check_cost, coded_bytes
from millie.readers.tiff import EXPORT, MAX_PAGES, check_layout, layout_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from millie.config import ReadingConfig

SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"BM", "BMP"),
)
"""First bytes of the formats that are decoded (BigTIFF included)."""

_ZIP = b"PK\x03\x04"

HARMLESS_BYTES = 1_000_000
"""Decoded bytes below which the expansion limit does not apply: a blank 500 x 500 px crop."""

_COLOURED = frozenset({"RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "P", "LAB"})
_LIT_SHARE = 0.01
"""Share of a film's pixels that is brighter than half, pure white and the most frequent of these
colours left out; it is most of them."""
_NEW_SUBFILE_TYPE, _BITS_PER_SAMPLE = 254, 258  # TIFF 6.0 tags


@contextmanager
def decoder_boundary(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises on a damaged file into one ImageError, warnings to silence.

    Args:
        name: the file, for the message.

    Raises:
        ImageTooLargeError: the decoder itself refused the size, or memory ran out.
        ImageError: for anything else that is not raised on purpose.
    """
    try:
        with no_warnings():
            yield
    except MillieError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(f"{name}: {error}; not decoded. Split it into fields") from error
    except MemoryError as error:
        raise ImageTooLargeError(
            f"{name}: more memory is needed than there is, or than such an image may take; not "
            "decoded. Split it into fields, or save it anew"
        ) from error
    except Exception as error:  # decoders raise anything on hostile bytes
        raise ImageError(
            f"{name}: cannot be decoded ({type(error).__name__}: {error}); "
            "the file is damaged or truncated: export or copy it again"
        ) from error


def image_format(data: bytes, name: str) -> str:
    """Name of the format by the first bytes, whatever the extension says.

    Raises:
        ImageError: the file is empty or none of JPEG, PNG, TIFF, BMP, HEIF.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes); copy it again")
    for signature, name_of_format in SIGNATURES:
        if data.startswith(signature):
            return name_of_format
    if data.startswith(_ZIP):
        raise ImageError(f"{name}: a ZIP archive; unpack it and give the folder")
    if is_heif(data):
        return "HEIF"
    raise ImageError(
        f"{name}: not a readable image, whatever its ending says; expected JPEG, PNG, TIFF or BMP: "
        "export it as one of these"
    )


def open_checked(data: bytes, name: str, config: ReadingConfig) -> Image.Image:
    """Read the header alone and check it; call inside :func:`decoder_boundary`.

    Raises:
        ImageError: no image, damaged, several pages, or an unsupported kind of pixel.
        ImageTooLargeError: more pixels or a higher expansion than the limits allow.
    """
    kind = image_format(data, name)
    check_cost(data, kind, name)
    check_structure(data, kind, name)
    if kind == "TIFF":
        hush()
        check_layout(data, name)
    image = _opened(data, kind, name)
    _check_limits(image, data, name, config)
    if image.mode in {"F", "I"}:
        raise ImageError(
            f"{name}: 32-bit pixels (mode {image.mode}) are not supported; "
            "export as 8-bit or 16-bit RGB"
        )
    if kind == "TIFF":
        _check_pages(image, name)
    return image


def _opened(data: bytes, kind: str, name: str) -> Image.Image:
    if kind == "HEIF":
        teach_pillow(name)
    try:
        return Image.open(io.BytesIO(data), formats=[kind])
    except UnidentifiedImageError:
        layout = layout_name(data) if kind == "TIFF" else None
        if layout is None:
            raise ImageError(
                f"{name}: the {kind} file is damaged in its header: copy it again"
            ) from None
        raise ImageError(f"{name}: a TIFF with {layout}: not supported; {EXPORT}") from None


def _check_limits(image: Image.Image, data: bytes, name: str, config: ReadingConfig) -> None:
    width, height = image.size
    megapixels = width * height / 1e6
    if megapixels > config.max_field_megapixels:
        raise ImageTooLargeError(
            f"{name}: its header states {width} x {height} px ({megapixels:.0f} MP); the limit is "
            f"{config.max_field_megapixels:g} MP. Split it into fields, or raise "
            "reading.max_field_megapixels if this is intended"
        )
    bytes_a_sample = 2 if image.mode.startswith("I;16") else 1
    decoded = width * height * max(3, len(image.getbands())) * bytes_a_sample
    if decoded <= HARMLESS_BYTES:
        return
    coded = coded_bytes(image, data)
    if decoded > config.max_expansion * coded:
        raise ImageTooLargeError(
            f"{name}: {coded} bytes of picture would decode to {decoded} bytes "
            f"({decoded / max(coded, 1):.0f} : 1); the limit is {config.max_expansion:g} : 1. "
            "A blood film never compresses like that (blank image or decompression bomb)"
        )


def _check_pages(image: Image.Image, name: str) -> None:
    """Refuse a TIFF with a second full page; reduced copies (bit 0 of tag 254) may follow."""
    for page in range(1, MAX_PAGES):
        try:
            image.seek(page)
        except EOFError:
            break
        if not _tag(image, _NEW_SUBFILE_TYPE, 0) & 1:
            if page == 1 and image.mode not in _COLOURED and _is_last_page(image, 2):
                raise ImageError(
                    f"{name}: a TIFF of three grey pages, probably the red, green and blue of one "
                    "picture: merge them into one RGB image (ImageJ: Image > Color > Merge "
                    "Channels, then Image > Type > RGB Color)"
                )
            raise ImageError(
                f"{name}: a TIFF of several pages (a stack or several fields), and it is unclear "
                "which one to use: save each page as its own file"
            )
    image.seek(0)


def _is_last_page(image: Image.Image, page: int) -> bool:
    """Whether there is such a page and none behind it."""
    try:
        image.seek(page)
    except EOFError:
        return False
    try:
        image.seek(page + 1)
    except EOFError:
        return True
    return False


def _tag(image: Image.Image, tag: int, default: int) -> int:
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return int(max(value) if isinstance(value, tuple) else value)


def to_rgb(image: Image.Image, data: bytes, name: str) -> tuple[NDArray[np.uint8], str]:
    """Decode an opened image; call inside :func:`decoder_boundary`.

    Alpha is laid over white, grey is repeated, colours that the file states are converted to sRGB,
    16 bit keeps its upper 8, EXIF orientation is applied and then dropped with all other metadata.

    Args:
        image: from :func:`open_checked`.
        data: the file's bytes.
        name: the file, for messages.

    Returns:
        uint8 (H, W, 3), and a note if stated colours could not be used.

    Raises:
        ImageError: lost data in a JPEG, or a 16 bit file that uses only its lower bits.
    """
    check_coded(image, data, name)
    check_sectors(image, data, name)
    deep = _is_16_bit(image, data)
    image.load()
    colours = stated_colours(image, data)
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    converted, note = to_srgb(upright, colours)
    pixels = np.array(_flatten(converted), dtype=np.uint8)
    if deep and not _uses_16_bits(pixels):
        raise ImageError(
            f"{name}: a 16-bit file whose values fill fewer than 16 bits (10, 12, 14 or 15, as "
            "cameras give), which would come out too dark; rescale it to the full range or "
            "export it as 8-bit"
        )
    return pixels, note


def _is_16_bit(image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":
        return data[24] == 16  # IHDR, bit depth
    return image.format == "TIFF" and _tag(image, _BITS_PER_SAMPLE, 8) == 16


def _uses_16_bits(pixels: NDArray[np.uint8]) -> bool:
    """Whether more than hot pixels and a bar of one colour lie above half of the range."""
    brightest = pixels.max(axis=2)
    lit = pixels[(brightest >= 128) & (brightest < 255)]
    codes = lit.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    bar = np.unique(codes, return_counts=True)[1].max(initial=0)
    return len(lit) - int(bar) > int(_LIT_SHARE * brightest.size)


def _flatten(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    layer = image.convert("RGBA")
    paper = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(paper, layer).convert("RGB")
