"""Pixel size (um/px) out of an image file's own metadata, where it can be believed.

Owns the units of OME-XML, ImageJ, Aperio and of resolution tags. Most cameras write 72 or 96 dpi
whatever the objective: such values are no scale at all. Where a microscope's program states a scale
that is not understood, a note says so. Nothing else of the metadata is read or kept.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

from millie.types import PixelSize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

PLAUSIBLE_UM_PX = (0.02, 1.0)
"""From a 100x objective on a camera of small pixels to a 10x one."""

_PREFIXES = {
    "Y": 24, "Z": 21, "E": 18, "P": 15, "T": 12, "G": 9, "M": 6, "k": 3, "h": 2, "da": 1, "": 0,
    "d": -1, "c": -2, "m": -3, "μ": -6, "n": -9, "p": -12, "f": -15, "a": -18, "z": -21, "y": -24,
}  # fmt: skip
_UM_PER_UNIT = {f"{prefix}m": 10.0 ** (power + 6) for prefix, power in _PREFIXES.items()} | {
    "Å": 1e-4, "thou": 25.4, "li": 25.4e3 / 12, "in": 25.4e3, "ft": 304.8e3, "yd": 914.4e3,
    "mi": 1.609344e9, "ua": 1.495978707e17, "ly": 9.4607304725808e21, "pc": 3.0856776e22,
    "pt": 25.4e3 / 72,
}  # fmt: skip
"""UnitsLength of OME 2016-06, case and all (``Mm`` is not ``mm``); mu as NFKC writes it."""

_UM_PER_WORD = {
    "um": 1.0, "micron": 1.0, "micrometer": 1.0, "micrometre": 1.0, "nanometer": 1e-3,
    "nanometre": 1e-3, "millimeter": 1e3, "millimetre": 1e3, "centimeter": 1e4, "centimetre": 1e4,
    "meter": 1e6, "metre": 1e6, "picometer": 1e-6, "picometre": 1e-6, "angstrom": 1e-4,
    "inch": 25.4e3, "inche": 25.4e3, "pixel": math.nan, "reference frame": math.nan,
}  # fmt: skip
"""Words of other programs, in lower case and without their plural's s; nan: no length at all."""

_UM_PER_RESOLUTION_UNIT = {2: 25.4e3, 3: 1e4, 4: 1e3, 5: 1.0}
"""ResolutionUnit: inch and cm (TIFF 6.0), mm and um (written by tifffile and others)."""

_IMAGE_DESCRIPTION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 270, 282, 283, 296  # TIFF 6.0
_MOST_CHARACTERS = 20_000_000  # of a description: OME-XML of a plate of 10,000 fields has fewer
_SAME = 0.01  # pixels whose sides differ by more are not square


@dataclass(frozen=True, slots=True)
class StatedScale:
    """What a file says about its scale.

    Attributes:
        pixel_size: None if nothing is stated, or nothing that can be used.
        note: why a stated scale is not used; empty otherwise.
    """

    pixel_size: PixelSize | None = None
    note: str = ""


class _NotUnderstood(Exception):  # noqa: N818  (never leaves this module)
    """A scale is stated and can't be used; the text says what was found."""


def stated_scale(image: Image.Image) -> StatedScale:
    """Pixel size by OME-XML, ImageJ, Aperio or resolution tags, in this order.

    Args:
        image: an opened image; its pixels are not decoded.
    """
    tags = getattr(image, "tag_v2", {})
    try:
        description = _description(tags)
        sides = (
            _from_ome(description, image.size)
            or _from_imagej(description, tags)
            or _from_aperio(description)
        )
        if sides is not None:
            return StatedScale(_believable(*sides))
        return _from_tags(image, tags)
    except _NotUnderstood as found:
        return _unused(found)


def scale_of_sides(x_um: float, y_um: float) -> StatedScale:
    """What a file says of the sides of a pixel, um, where it names them in so many words."""
    try:
        return StatedScale(_believable(x_um, y_um))
    except _NotUnderstood as found:
        return _unused(found)


def scale_of_ome(description: str, size: tuple[int, int]) -> StatedScale | None:
    """What OME-XML says; None where a text is none, or states no scale.

    Args:
        description: text of the file's ImageDescription.
        size: width and height of the image, px.
    """
    try:
        sides = _from_ome(description, size)
        return None if sides is None else StatedScale(_believable(*sides))
    except _NotUnderstood as found:
        return _unused(found)


def _unused(found: _NotUnderstood) -> StatedScale:
    return StatedScale(
        None,
        f"the file states a scale that is not understood ({found}); taken as unknown: give "
        "um/px in the manifest (um_px) or with --set segmentation.um_px=0.1",
    )


def _believable(x_um: float, y_um: float) -> PixelSize:
    low, high = PLAUSIBLE_UM_PX
    if not all(math.isfinite(side) and low <= side <= high for side in (x_um, y_um)):
        raise _NotUnderstood(
            f"{x_um:.4g} x {y_um:.4g} um a pixel; {low:g} to {high:g} are possible for cells"
        )
    if abs(x_um - y_um) > _SAME * x_um:
        raise _NotUnderstood(f"{x_um:.4g} x {y_um:.4g} um a pixel; pixels must be square")
    return PixelSize(x_um)


def _description(tags: Mapping[int, Any]) -> str:
    """The text of ImageDescription: UTF-8 as OME asks, or Latin-1 if it is no UTF-8."""
    found = tags.get(_IMAGE_DESCRIPTION, "")
    if isinstance(found, tuple):
        found = found[0] if found else ""
    data = found if isinstance(found, bytes) else str(found).encode("latin-1", "replace")
    if len(data) > _MOST_CHARACTERS:
        raise _NotUnderstood(f"its description has {len(data):,} characters")
    try:
        return data.decode("utf-8-sig").rstrip("\0")
    except UnicodeDecodeError:
        return data.decode("latin-1").rstrip("\0")


def _um_per(unit: str) -> float:
    """Length of a unit in um; nan for pixels.

    Raises:
        _NotUnderstood: it is no unit of length that is known.
    """
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), unit.strip())
    text = unicodedata.normalize("NFKC", text.replace("Âµ", "µ"))  # UTF-8 once taken for Latin-1
    if text in _UM_PER_UNIT:
        return _UM_PER_UNIT[text]
    word = text.lower()
    for known in (_UM_PER_WORD, _UM_PER_UNIT):
        for spelling in (word, word.removesuffix("s")):
            if spelling in known:
                return known[spelling]
    raise _NotUnderstood(f"unit {unit[:40]!r}")


def _length(number: str, unit: str) -> float:
    try:
        length = float(number)
    except ValueError:
        raise _NotUnderstood(f"a pixel of {number[:40]!r} {unit[:40]}") from None
    if not (math.isfinite(length) and length > 0):
        raise _NotUnderstood(f"a pixel of {number[:40]} {unit[:40]}")
    return length * _um_per(unit)


def _from_ome(description: str, size: tuple[int, int]) -> tuple[float, float] | None:
    """OME-XML: PhysicalSizeX/Y of the ``Pixels`` that have this size, else of the first.

    Units are um where none is given (OME 2016-06); one side alone stands for both.
    """
    if re.search(r"<(\w+:)?OME[\s>]", description) is None:
        return None
    pixels = _pixels_elements(description)
    own = [p for p in pixels if (p.get("SizeX"), p.get("SizeY")) == tuple(map(str, size))]
    stated = next(iter(own or pixels), {})
    sides = [
        _length(stated[f"PhysicalSize{axis}"], stated.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "XY"
        if f"PhysicalSize{axis}" in stated
    ]
    return None if not sides or math.isnan(sides[0]) else (sides[0], sides[-1])


def _pixels_elements(description: str) -> list[dict[str, str]]:
    """Attributes of each ``Pixels``; a document that defines entities is refused."""
    found: list[dict[str, str]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name.rpartition(":")[2] == "Pixels":
            found.append(attributes)

    def refuse(*_: object) -> None:
        raise _NotUnderstood("its OME-XML has a document type, which may hide anything")

    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(description.encode(), True)  # noqa: FBT003
    except expat.ExpatError as error:
        raise _NotUnderstood(f"its OME-XML is broken: {error}") from None
    return found


def _from_imagej(description: str, tags: Mapping[int, Any]) -> tuple[float, float] | None:
    """ImageJ's TIFF: ``unit=`` in the description, pixels a unit in the resolution tags."""
    unit = re.search(r"^unit=(.*)$", description, re.MULTILINE)
    if not description.startswith("ImageJ=") or unit is None or not unit[1].strip():
        return None
    factor = _um_per(unit[1])
    sides = _per_pixel(tags)
    if math.isnan(factor) or sides is None:
        return None
    return factor * sides[0], factor * sides[1]


def _from_aperio(description: str) -> tuple[float, float] | None:
    """Aperio's TIFF, also exported regions: ``|MPP = 0.25|``, um a pixel."""
    stated = re.search(r"\|\s*MPP\s*=\s*([^|]*)", description)
    if not description.startswith("Aperio") or stated is None:
        return None
    return (_length(stated[1].strip(), "um"),) * 2


def _per_pixel(tags: Mapping[int, Any]) -> tuple[float, float] | None:
    """Units a pixel by XResolution and YResolution; one alone stands for both."""
    found = (tags.get(tag) for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    sides = [1 / float(value) for value in found if value is not None and float(value) > 0]
    return (sides[0], sides[-1]) if sides else None


def _from_tags(image: Image.Image, tags: Mapping[int, Any]) -> StatedScale:
    """Resolution tags: a scale where it is plausible; no word about what is not."""
    dpi = image.info.get("dpi")
    factor = _UM_PER_RESOLUTION_UNIT.get(tags.get(_RESOLUTION_UNIT, 0))
    if factor is not None and (sides := _per_pixel(tags)) is not None:
        x_um, y_um = (factor * side for side in sides)
    elif dpi is not None and all(float(value) > 0 for value in dpi):
        x_um, y_um = (25_400.0 / float(value) for value in dpi)
    else:
        return StatedScale()
    try:
        return StatedScale(_believable(x_um, y_um))
    except _NotUnderstood:
        return StatedScale()
