"""Round bodies: outlines that can only be those of single cells.

Owns the judgement that one stained area is one cell because it is round, which needs neither
colour nor texture. Lobes of a nucleus inside such a body are one cell's, and its size tells the
scale where no red cell is in view. Touching cells, which are not round together, are no concern
of this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from cv2.typing import MatLike
    from numpy.typing import NDArray

    Box = tuple[int, int, int, int]  # top, bottom, left, right

_ROUND = 0.74  # of its enclosing circle; two touching discs fill 0.5, three 0.65


@dataclass(frozen=True, slots=True, eq=False)
class RoundBody:
    """One round stained area.

    Attributes:
        window: slices (rows, columns) of the map around it.
        inside: bool, inside the window; holes are filled.
        diameter_px: of the disc of its area.
        at_border: it touches the edge of the map, so part of it may be missing.
    """

    window: tuple[slice, slice]
    inside: NDArray[np.bool_]
    diameter_px: float
    at_border: bool


def round_bodies(
    mask: NDArray[np.bool_],
    smooth_px: float,
    wanted: Callable[[Box], bool] = lambda _: True,
) -> list[RoundBody]:
    """Connected areas of a mask that are round.

    Args:
        mask: bool (H, W), what is stained.
        smooth_px: bridges thinner than twice that are cut first.
        wanted: whether a body is worth being drawn, told by its box.
    """
    side = 2 * max(1, round(smooth_px)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    opened = cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_OPEN, disc)
    contours, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    height, width = mask.shape
    found = []
    for contour in contours:
        x, y, w, h = cv2.boundingRect(contour)
        if not wanted((y, y + h, x, x + w)):
            continue
        area = cv2.contourArea(contour) + 0.5 * cv2.arcLength(contour, closed=True)
        if not _is_round(contour, area):
            continue
        inside = np.zeros((h, w), np.uint8)
        cv2.drawContours(inside, [contour], -1, 1, cv2.FILLED, offset=(-x, -y))
        at_border = x == 0 or y == 0 or x + w == width or y + h == height
        window = (slice(y, y + h), slice(x, x + w))
        found.append(RoundBody(window, inside > 0, 2 * float(np.sqrt(area / np.pi)), at_border))
    return found


def _is_round(contour: MatLike, area: float) -> bool:
    """Whether an outline fills its enclosing circle."""
    _, _, width, height = cv2.boundingRect(contour)
    if 4 * area < _ROUND * np.pi * max(width, height) ** 2:  # cheaper, and enough for most
        return False
    _, radius = cv2.minEnclosingCircle(contour)
    return bool(area > _ROUND * np.pi * (float(radius) + 0.5) ** 2)
