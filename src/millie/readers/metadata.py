"""Pixel size (um/px) out of an image file's own metadata, where it can be believed.

Owns the units of OME-XML, ImageJ and of resolution tags. Most cameras write 72 or 96 dpi whatever
the objective: values outside what a microscope gives are no scale at all. Nothing else of the
metadata is read or kept.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from millie.types import PixelSize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

PLAUSIBLE_UM_PX = (0.02, 1.0)
"""From a 100x objective on a camera of small pixels to a 10x one."""

_UM_PER_UNIT = {
    "nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0,
    "\\u00b5m": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": 25_400.0,
}  # fmt: skip
_IMAGE_DESCRIPTION, _X_RESOLUTION, _Y_RESOLUTION = 270, 282, 283  # TIFF 6.0 tags
_SAME = 0.01  # pixels whose sides differ by more are not square


def pixel_size_of(image: Image.Image) -> PixelSize | None:
    """Pixel size by OME-XML, ImageJ or resolution tags, in this order; None if not believable.

    Args:
        image: an opened image; its pixels are not decoded.

    Returns:
        None too where the pixels are not square (sides differ by more than 1 %).
    """
    tags = getattr(image, "tag_v2", {})
    description = str(tags.get(_IMAGE_DESCRIPTION, ""))
    for sides in (_from_ome(description), _from_imagej(description, tags), _from_dpi(image)):
        if sides is not None:
            return _believable(*sides)
    return None


def _believable(x_um: float, y_um: float) -> PixelSize | None:
    low, high = PLAUSIBLE_UM_PX
    if not (math.isfinite(x_um) and math.isfinite(y_um) and low <= x_um <= high):
        return None
    return PixelSize(x_um) if abs(x_um - y_um) <= _SAME * x_um else None


def _from_ome(description: str) -> tuple[float, float] | None:
    """OME-XML 2016-06: PhysicalSizeX/Y with units, um where none is given."""
    if "<OME" not in description:
        return None
    sides = []
    for axis in "XY":
        size = re.search(rf'\bPhysicalSize{axis}="([0-9.eE+-]+)"', description)
        unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]+)"', description)
        factor = _UM_PER_UNIT.get(unit.group(1).lower() if unit else "um")
        if size is None or factor is None:
            return None
        sides.append(float(size.group(1)) * factor)
    return sides[0], sides[1]


def _from_imagej(description: str, tags: Mapping[int, Any]) -> tuple[float, float] | None:
    """ImageJ's TIFF: ``unit=`` in the description, pixels a unit in the resolution tags."""
    unit = re.search(r"^unit=(\S+)", description, re.MULTILINE)
    if not description.startswith("ImageJ=") or unit is None:
        return None
    factor = _UM_PER_UNIT.get(unit.group(1).lower())
    x, y = (float(tags.get(tag, 0)) for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    return (factor / x, factor / y) if factor and x > 0 and y > 0 else None


def _from_dpi(image: Image.Image) -> tuple[float, float] | None:
    dpi = image.info.get("dpi")
    if dpi is None:
        return None
    x, y = (float(value) for value in dpi)
    return (25_400.0 / x, 25_400.0 / y) if x > 0 and y > 0 else None
