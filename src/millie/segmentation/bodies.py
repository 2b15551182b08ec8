"""Round bodies: outlines that can only be those of single cells.

Owns the judgement that one stained area is one cell because it is round, which needs neither
colour nor texture. Lobes of a nucleus inside such a body are one cell's, and its size tells the
scale where no red cell is in view. Owns as well the discs that fit into an area that is not round:
two of them with a neck between are two cells' bodies.
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

ROUND = 0.74  # of its enclosing circle; two touching discs fill 0.5, three 0.65


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


def too_wide(side_px: int, largest_px: float) -> bool:
    """Whether what is so wide or high cannot be a round body of at most so large a diameter."""
    return ROUND * side_px**2 > largest_px**2


def _is_round(contour: MatLike, area: float) -> bool:
    """Whether an outline fills its enclosing circle."""
    _, _, width, height = cv2.boundingRect(contour)
    if 4 * area < ROUND * np.pi * max(width, height) ** 2:  # cheaper, and enough for most
        return False
    _, radius = cv2.minEnclosingCircle(contour)
    return bool(area > ROUND * np.pi * (float(radius) + 0.5) ** 2)


def inscribed_discs(
    mask: NDArray[np.bool_], smallest_px: float, neck: float
) -> NDArray[np.float64]:
    """The discs that fit into a stained area, one for each part of it behind a neck.

    A disc counts beside a larger one where the area narrows between their centres; otherwise both
    lie in one body. Holes are filled.

    Args:
        mask: bool (H, W), what is stained.
        smallest_px: least radius of a disc.
        neck: half width of the area between two discs, as a share of the smaller one's radius,
            above which they are one body's.

    Returns:
        float64 (n, 3): x, y, radius, the largest first.
    """
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    if filled.all():  # no outline in sight
        return np.zeros((0, 3))
    depth = cv2.blur(cv2.distanceTransform(filled, cv2.DIST_L2, 3), (3, 3))
    side = 2 * round(smallest_px / 2) + 1
    highest = cv2.dilate(depth, np.ones((side, side), np.uint8))
    rows, columns = np.nonzero((depth == highest) & (depth >= smallest_px))
    radii = depth[rows, columns]
    kept: list[tuple[int, int, float]] = []
    for k in np.argsort(-radii, kind="stable").tolist():
        x, y, radius = int(columns[k]), int(rows[k]), float(radii[k])
        if all(_narrowest(depth, (x, y), disc[:2]) < neck * radius for disc in kept):
            kept.append((x, y, radius))
    return np.array(kept, np.float64).reshape(-1, 3)


def _narrowest(
    depth: NDArray[np.float32] | MatLike, start: tuple[int, int], end: tuple[int, int]
) -> float:
    """Least depth on the straight line between two places (x, y)."""
    n = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1) + 1
    share = np.arange(n)
    columns, rows = (
        np.rint(start[k] + share * ((end[k] - start[k]) / (n - 1))).astype(np.int64) for k in (0, 1)
    )
    return float(depth[rows, columns].min())
