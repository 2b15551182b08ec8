"""Colours stated by a file -> sRGB: ICC profiles, PNG's gamma, primaries and cICP, EXIF.

Owns what a file says about its colours and their conversion (littlecms, relative colorimetric).
A file that says nothing, or sRGB in whatever words, keeps each byte; pixels are never asked.
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageCms

if TYPE_CHECKING:
    from collections.abc import Sequence


class Colours(NamedTuple):
    """What a file says about its colours.

    Attributes:
        profile: an ICC profile, or None for sRGB and for nothing stated.
        note: what is stated and not understood; empty otherwise.
    """

    profile: bytes | None = None
    note: str = ""


class _Primaries(NamedTuple):
    """CIE xy of white, red, green and blue."""

    white: tuple[float, float]
    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]


_D65 = (0.3127, 0.3290)
_SRGB = _Primaries(_D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_ADOBE_RGB = _Primaries(_D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
_PRIMARIES = {  # ITU-T H.273, ColourPrimaries
    1: _SRGB,
    9: _Primaries(_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: _Primaries(_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_EXPONENTS = {4: 2.2, 5: 2.8, 8: 1.0, 13: None}  # H.273, TransferCharacteristics; None: sRGB's
_ADOBE_EXPONENT = 563 / 256  # Adobe RGB (1998), 4.3.1.2
_SRGB_EXPONENTS = (2.1, 2.3)  # what programs write into gAMA for sRGB, which is no pure power
_EXPONENT_LIMITS = (0.2, 5.0)

_EXIF_IFD, _COLOUR_SPACE, _INTEROP_IFD, _INTEROP_INDEX = 0x8769, 0xA001, 0xA005, 1  # Exif 2.32
_WHITE_POINT, _PRIMARY_CHROMATICITIES = 318, 319  # TIFF 6.0, section 20
_IS_SRGB_LEVELS = 3
"""A profile that moves no colour by more is sRGB: its variants round their figures differently."""

_REMEDY = "colours are taken as they stand: export the image as sRGB if they look wrong"


def stated_colours(image: Image.Image, data: bytes) -> Colours:
    """What an opened file says; a profile goes before all other words.

    Args:
        image: the opened file, not yet turned or converted.
        data: its bytes.
    """
    embedded = _bmp_profile(image, data)
    if embedded is not None or "icc_profile" in image.info:
        profile = image.info.get("icc_profile", embedded)
        return Colours(profile) if profile else _unusable("its colour profile is incomplete")
    if image.format == "PNG":
        found = _from_png(image, data)
        if found is not None:
            return found
    return _from_exif(image)


def to_srgb(image: Image.Image, colours: Colours) -> tuple[Image.Image, str]:
    """Decoded pixels in sRGB (RGB or RGBA), or as they were where nothing is to be converted.

    Returns:
        The image, and a note if colours were stated that could not be used.
    """
    if colours.profile is None:
        return image, colours.note
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    plain = image.convert("L" if image.mode in {"1", "L", "LA", "La"} else "RGB")
    plain = image if image.mode == "CMYK" else plain
    try:
        if plain.mode == "L" and _space(colours.profile) == "RGB":
            plain = plain.convert("RGB")
        transform = _transform(colours.profile, plain.mode)
        converted = None if transform is None else ImageCms.applyTransform(plain, transform)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        return image, _unusable(f"its colour profile cannot be used ({error})").note
    if converted is None:
        return image, ""
    if alpha is not None:
        converted.putalpha(alpha)
    return converted, ""


def _unusable(why: str) -> Colours:
    return Colours(None, f"{why}; {_REMEDY}")


def _space(profile: bytes) -> str:
    """Colour space of a profile's pixels: RGB, GRAY, CMYK, ... (ICC.1, 7.2.8)."""
    return profile[16:20].decode("latin-1").strip()


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """To sRGB from pixels of a mode; None if the profile is sRGB itself.

    Raises:
        ValueError: the profile is for pixels of another kind.
        PyCMSError, OSError: it is damaged.
    """
    spaces = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
    if spaces.get(_space(profile)) != mode:
        raise ValueError(f"it is for {_space(profile)!r}, the pixels are {mode}")
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    if mode == "CMYK":
        return transform
    probe = _probe(mode)
    moved = np.asarray(ImageCms.applyTransform(probe, transform), dtype=int)
    still = np.asarray(probe.convert("RGB"), dtype=int)
    return None if np.abs(moved - still).max() <= _IS_SRGB_LEVELS else transform


def _probe(mode: str) -> Image.Image:
    """Colours that show what a profile does: all greys, or a lattice of 17 levels a channel."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.append(np.arange(0, 256, 16), 255).astype(np.uint8)
    lattice = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
    return Image.fromarray(lattice.reshape(17, -1, 3))


def _bmp_profile(image: Image.Image, data: bytes) -> bytes | None:
    """The profile in a BITMAPV5HEADER; empty if it only names a file; None if there is none."""
    if image.format != "BMP" or int.from_bytes(data[14:18], "little") != 124:
        return None
    space, start, length = data[70:74], *struct.unpack_from("<II", data, 126)
    if space == b"DEBM":  # PROFILE_EMBEDDED, little-endian
        profile = data[14 + start : 14 + start + length]
        return profile if len(profile) == length else b""
    return b"" if space == b"KNIL" else None  # PROFILE_LINKED


def _from_png(image: Image.Image, data: bytes) -> Colours | None:
    """CICP, sRGB, gAMA and cHRM in the order of PNG 3, 4.3; None if it has none of them."""
    place = data.find(b"cICP", 0, max(0, data.find(b"IDAT")))
    if place > 0:
        primaries, curve = data[place + 4], data[place + 5]
        if primaries not in _PRIMARIES or curve not in _EXPONENTS:
            return _unusable(f"its colours (cICP {primaries}/{curve}) are not supported")
        return Colours(matrix_profile(_PRIMARIES[primaries], _EXPONENTS[curve]))
    if "srgb" in image.info:
        return Colours()
    gamma, xy = image.info.get("gamma"), image.info.get("chromaticity")
    if gamma is None and xy is None:
        return None
    exponent: float | None = None
    if gamma is not None:
        low, high = _EXPONENT_LIMITS
        if not (1 / high <= gamma <= 1 / low):
            return _unusable(f"its gamma of {gamma:g} is not possible")
        exponent = None if _SRGB_EXPONENTS[0] < 1 / gamma < _SRGB_EXPONENTS[1] else 1 / gamma
    return _with_primaries(xy, exponent)


def _with_primaries(xy: Sequence[float] | None, exponent: float | None) -> Colours:
    """Colours by the chromaticities of white, red, green and blue; sRGB's where not given."""
    if xy is None:
        return Colours(matrix_profile(_SRGB, exponent)) if exponent else Colours()
    pairs = [(float(x), float(y)) for x, y in zip(xy[::2], xy[1::2], strict=True)]
    try:
        return Colours(matrix_profile(_Primaries(*pairs), exponent))
    except (ValueError, OverflowError, struct.error, np.linalg.LinAlgError, TypeError):
        return _unusable("its primary colours are not possible")


def _from_exif(image: Image.Image) -> Colours:
    """ColorSpace and DCF's mark of Adobe RGB; primaries where the file states them."""
    try:
        exif = image.getexif()
        space = exif.get_ifd(_EXIF_IFD).get(_COLOUR_SPACE)
        index = exif.get_ifd(_INTEROP_IFD).get(_INTEROP_INDEX)
        xy = (*exif.get(_WHITE_POINT, ()), *exif.get(_PRIMARY_CHROMATICITIES, ()))
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error):
        return Colours()  # broken notes of a camera: nothing is stated
    if space == 2 or str(index).startswith("R03"):
        return Colours(matrix_profile(_ADOBE_RGB, _ADOBE_EXPONENT))
    if len(xy) == 8:
        return _with_primaries(xy, None)
    if space in {None, 1}:
        return Colours()
    return _unusable(f"its EXIF names a colour space without its profile (ColorSpace {space})")


@lru_cache(maxsize=16)
def matrix_profile(primaries: _Primaries, exponent: float | None) -> bytes:
    """An ICC profile (version 2, matrix and curve) for RGB of these primaries.

    Args:
        primaries: xy of white and of the three colours.
        exponent: of the curve from value to light; None for the curve of sRGB.

    Raises:
        ValueError: the primaries span no colours.
    """
    columns = np.array([_xyz(xy) for xy in primaries[1:]]).T
    white = _xyz(primaries.white)
    scaled = columns * np.linalg.solve(columns, white)
    cone = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    d50 = np.array([0.9642, 1.0, 0.8249])
    to_d50 = np.linalg.solve(cone, np.diag((cone @ d50) / (cone @ white)) @ cone)  # Bradford
    adapted = to_d50 @ scaled
    if not np.isfinite(adapted).all() or np.abs(adapted).max() > 100:
        raise ValueError("these primaries span no colours")
    curve = _curve(exponent)
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 7) + b"stated\0" + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": _xyz_tag(d50),
        **{name: _xyz_tag(adapted[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4xI", start + len(body), 0x02100000) + b"mntrRGB XYZ " + bytes(12)
    head += b"acsp" + bytes(28) + struct.pack(">3i", *(round(v * 65536) for v in d50))
    return head.ljust(128, b"\0") + table + body


def _xyz(xy: tuple[float, float]) -> np.ndarray:
    x, y = xy
    if not 0 < y <= 1:
        raise ValueError("a chromaticity outside the possible")
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _xyz_tag(xyz: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(float(v) * 65536) for v in xyz))


def _curve(exponent: float | None) -> bytes:
    if exponent is not None:
        return b"curv" + bytes(4) + struct.pack(">IH", 1, round(exponent * 256))
    value = np.linspace(0, 1, 1024)
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    steps = [round(float(step) * 65535) for step in light]
    return b"curv" + bytes(4) + struct.pack(">I1024H", 1024, *steps)
