"""Scale: how many micrometres a pixel covers, found from the red cells.

Owns the fit of circles to outlines of red cells and the statistics of a sample. It does not
decide what happens when no scale is found.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from millie.segmentation.bodies import RoundBody, round_bodies
from millie.segmentation.quick import quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from millie.segmentation.stain import StainMap

_PLENTY = 8.0  # full circles that agree: red cells twice as wide are no longer looked for
_MIN_WEIGHT = 1.0  # full circles' worth of outline that must agree on one diameter
_LEAST_SEEN = 0.2  # share of a circle whose arc still fixes its diameter, if it fits closely
_HALF_SEEN = 0.3
_SURE = 3.0  # full circles from which one image fixes its own scale
_AGREE = 0.25  # difference of logarithms within which two images have one scale
_POOLED_SHARE = 0.15  # full circles an image; less is chance
_LEAST_ARCS = 0.15  # full circles; with less the leukocyte alone decides
_NO_ARCS = 0.1  # full circles that an expectation is worth where no arc supports it
_PRIOR_FLOOR = 0.15  # what remains of the evidence for diameters that the leukocyte speaks against
_BELOW, _ABOVE = 0.3, 0.4  # spread of the logarithm of red cells' over the expected diameter
_BELOW_LONE, _ABOVE_LONE = 0.2, 0.25  # the same where the expectation rests on a whole cell
_VARIANCE, _VARIANCE_LONE = 0.053, 0.026  # of that logarithm; train_scale.py prints them
_ARCS_VARIANCE = 0.02  # of the logarithm of the diameter that one full circle gives
_DOUBT = 0.5  # of the square of what arcs and leukocyte are apart: variance that adds
_HOLE = 0.1  # of a nucleus' area: gaps in its chromatin are filled, a ring keeps its hole
# Logarithm of red cells' over the nucleus' diameter, from benchmarks/train_scale.py: constant, then
# for what leukocyte_shape gives.
_OF_NUCLEUS = np.array([-0.26, 0.25, -1.00, -0.27])
_OF_LONE_CELL = np.array([0.02, 0.24, -0.37, 0.15, 1.06])
_CAUTION, _CAUTION_LONE = 0.2, 0.05  # added to it: at too large a scale a cell falls in pieces
_SAME_CELL = 0.5  # share of the largest nucleus that a lone body holds, else it is a platelet
_RED_CELL_UM = 7.2
_LEUKOCYTE_UM = 12.5  # diameter of a leukocyte on a film; lymphocytes 9, monocytes 16
_NUCLEUS_UM = 8.5  # of the disc that covers as much as its nucleus
_LEAST_NUCLEUS = 0.15  # share of a leukocyte that its nucleus covers at least
_BODY_LEVELS = (1.0, 2.0)  # of the density of nothing; the second parts a cell from pale ghosts
_BODY_SMOOTH = 0.015  # of the longest side: bridges to neighbours thinner than twice that are cut
_DIAMETERS_PX = (13.5, 40.0)  # where an outline is fine enough for a circle and not yet noisy
_ENOUGH_OUTLINES = 80
_LEAST_POINTS = 16  # of an outline
_LEAST_ARC_POINTS = 12
_LONG_OUTLINE = 400  # points from which on it is looked at in steps of one length
_SAME = 0.15  # difference of logarithms within which diameters agree
_STEP = 0.04  # bin of the natural logarithm of diameters


@dataclass(frozen=True, slots=True)
class SampleStatistics:
    """What the images of one sample say together about scale.

    Attributes:
        um_px: um per pixel for each image size, as ``{"640x480": 0.072}``; sizes of one sample
            may differ because the camera or the magnification does.
        n_red_cells: outlines (in full circles) behind it.
        n_images: images looked at.
    """

    um_px: dict[str, float]
    n_red_cells: float
    n_images: int

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-able values."""
        return asdict(self)


def red_cell_diameters(stain: StainMap) -> NDArray[np.float64]:
    """Fit circles to the outlines of red cells.

    Returns:
        float64 (n, 2): diameter in pixels of the map, weight in full circles.
    """
    level = max(0.5 * stain.red_cell_density, 0.1)
    mask = ((stain.density > level) & stain.valid).astype(np.uint8)
    nuclei = (stain.score > stain.threshold).astype(np.uint8)
    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outlines = [
        contour[:, 0]
        for contour in contours[:: max(1, len(contours) // _ENOUGH_OUTLINES)]
        if len(contour) >= _LEAST_POINTS
    ]
    if not outlines:
        return np.zeros((0, 2))
    circles = _circles(*_convex_arcs(outlines, mask.shape))
    diameters = 2 * circles[:, 2]
    sized = circles[(diameters >= _DIAMETERS_PX[0]) & (diameters <= _DIAMETERS_PX[1])]
    free = [not _holds_nucleus(nuclei, x, y, radius) for x, y, radius, _ in sized.tolist()]
    kept = sized[np.array(free, dtype=np.bool_), 2:]
    return np.asarray(kept * (2, 1), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Expected:
    """The diameter of red cells that the leukocyte in view makes likely.

    Attributes:
        red_cell_px: in pixels; 0: no leukocyte in view.
        lone: a whole round cell stands behind it, not a nucleus alone.
    """

    red_cell_px: float
    lone: bool = False

    def likelihood(self, logs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of logarithms of diameters, at most 1; nuclei vary more than whole cells."""
        if self.red_cell_px == 0:
            return np.ones_like(logs)
        off = logs - np.log(self.red_cell_px)
        below, above = (_BELOW_LONE, _ABOVE_LONE) if self.lone else (_BELOW, _ABOVE)
        closeness = np.exp(-0.5 * (off / np.where(off < 0, below, above)) ** 2)
        return np.asarray(_PRIOR_FLOOR + closeness, dtype=np.float64)

    def balanced(self, log_px: float, weight: float) -> float:
        """Diameter between the expected one and that of arcs worth so many full circles."""
        if self.red_cell_px == 0:
            return math.exp(log_px)
        off = math.log(self.red_cell_px) - log_px
        # The further off, the likelier it is that no leukocyte stands behind it.
        own = (_VARIANCE_LONE if self.lone else _VARIANCE) + _DOUBT * off * off
        of_arcs = own / (own + _ARCS_VARIANCE / weight)
        return math.exp(log_px + (1 - of_arcs) * off)


def expected_diameter(stain: StainMap) -> Expected:
    """Diameter of red cells in pixels of the map, from the leukocyte with the largest nucleus."""
    seen = leukocyte_shape(stain)
    if seen is None:
        return Expected(0.0)
    log_px, over, lone = seen
    weights, caution = (_OF_LONE_CELL, _CAUTION_LONE) if lone else (_OF_NUCLEUS, _CAUTION)
    log_px += caution + float(weights[0] + over @ weights[1:])
    return Expected(math.exp(log_px), lone)


def leukocyte_shape(stain: StainMap) -> tuple[float, NDArray[np.float64], bool] | None:
    """Size and shape of the largest nucleus, lobes joined, and of its cell if that stands alone.

    Returns:
        Logarithm of the diameter in pixels of the disc that covers as much as the nucleus;
        logarithms of ratios to it, of the diameters of the largest disc inside, of a disc that
        covers as much as the convex hull, of the circle around, and, of a lone round cell, of the
        red cells that its size makes likely; whether there is such a cell. None: no nucleus.
    """
    score = cv2.GaussianBlur(stain.score, (0, 0), max(0.008 * max(stain.score.shape), 0.5))
    level = max(stain.threshold, 0.45 * quantile(score.ravel(), 0.99))
    mask = (score > level).astype(np.uint8)
    own = _largest_nucleus(mask)
    if not own.any():
        return None
    log_px, *over = _nucleus_shape(own)
    lone_px, held_px = _lone_cell(stain, mask)
    if lone := held_px > _SAME_CELL * math.exp(log_px):
        over.append(math.log(lone_px) - log_px)
    return log_px, np.array(over), lone


def _largest_nucleus(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The nucleus that covers most, lobes joined and small holes filled; all 0: none."""
    radius = 0.01 * min(mask.shape)
    for _ in range(4):
        side = 2 * max(1, round(radius)) + 1
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        _, labels = cv2.connectedComponents(cv2.dilate(mask, disc), connectivity=4)
        counts = np.bincount(labels[mask > 0], minlength=2)
        counts[0] = 0
        area = int(counts.max())
        radius = 0.25 * float(np.sqrt(area / np.pi))
    own = (mask & (labels == int(np.argmax(counts)))).astype(np.uint8)
    window = np.ones((3, 3), np.uint8)
    own = np.asarray(cv2.morphologyEx(own, cv2.MORPH_CLOSE, window), dtype=np.uint8)
    contours, links = cv2.findContours(own, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for k, contour in enumerate(contours):
        if links[0, k, 3] >= 0 and cv2.contourArea(contour) < _HOLE * area:
            cv2.drawContours(own, contours, k, 1, cv2.FILLED)
    return own


def _nucleus_shape(own: NDArray[np.uint8]) -> list[float]:
    """Of a nucleus that a mask holds, as :func:`leukocyte_shape` says."""
    depth = cv2.distanceTransform(cv2.copyMakeBorder(own, 1, 1, 1, 1, 0), cv2.DIST_L2, 3)
    contours, _ = cv2.findContours(own, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.concatenate(contours))
    convex = cv2.contourArea(hull) + 0.5 * cv2.arcLength(hull, closed=True) + 1
    _, radius = cv2.minEnclosingCircle(hull)
    log_px = 0.5 * math.log(np.count_nonzero(own) * 4 / math.pi)
    others = 2 * float(depth.max()), math.sqrt(convex * 4 / math.pi), 2 * float(radius) + 1
    return [log_px, *(math.log(px) - log_px for px in others)]


def _lone_cell(stain: StainMap, nuclei: NDArray[np.uint8]) -> tuple[float, float]:
    """Of the lone round leukocyte with the most nucleus: diameters in pixels, 0 without one.

    Returns:
        Of the red cells that its size makes likely, and of its nucleus as a disc.
    """
    smooth_px = _BODY_SMOOTH * max(nuclei.shape)
    bodies: list[RoundBody] = []
    for factor in _BODY_LEVELS:
        stained = (stain.density > factor * stain.empty_below) | (nuclei > 0)
        bodies += round_bodies(stained, smooth_px)
    most, found = 0.0, (0.0, 0.0)
    for body in bodies:
        held = float((nuclei[body.window][body.inside] > 0).sum())
        area = float(body.inside.sum())
        if body.at_border or held < _LEAST_NUCLEUS * area or held <= most:
            continue
        most = held
        nucleus_px = 2 * float(np.sqrt(held / np.pi))
        of_typical = nucleus_px / _NUCLEUS_UM * body.diameter_px / _LEUKOCYTE_UM
        found = _RED_CELL_UM * float(np.sqrt(of_typical)), nucleus_px
    return found


def mode_diameter(
    diameters: NDArray[np.float64], expected: Expected | None = None
) -> tuple[float, float]:
    """Most frequent diameter of red cells and the outline that agrees with it.

    Args:
        diameters: from :func:`red_cell_diameters`.
        expected: what the leukocyte in view makes likely, which decides between several modes
            where few red cells are seen.

    Returns:
        Diameter in pixels (0: no evidence at all) and weight in full circles within 15 %; the
        weight is 0 where the leukocyte alone decides.
    """
    expected = expected or Expected(0.0)
    if len(diameters) == 0:
        return expected.red_cell_px, 0.0
    logs, weights = np.log(diameters[:, 0]), diameters[:, 1]
    middle = float(np.average(logs, weights=weights))
    if expected.red_cell_px > 0:
        middle = float(np.log(expected.red_cell_px))
    low, high = min(logs.min(), middle - 0.4), max(logs.max(), middle + 0.4)
    grid = np.arange(low - 0.1, high + 0.1 + _STEP, _STEP)
    kernel = np.exp(-0.5 * ((grid[:, None] - logs[None, :]) / 0.08) ** 2)
    # Arcs cut short look like small circles: the larger ones count more.
    evidence = kernel @ (weights * np.exp(2 * np.clip(logs - middle, -1.5, 1.5)))
    best = grid[np.argmax((_NO_ARCS + evidence) * expected.likelihood(grid))]
    near = np.abs(logs - best) < _SAME
    total = float(weights[near].sum())
    if total < _LEAST_ARCS:
        return expected.red_cell_px, 0.0
    seen = float(np.average(logs[near], weights=weights[near]))
    return expected.balanced(seen, total), total


def pooled_diameter(
    parts: Sequence[NDArray[np.float64]], expected: Sequence[Expected]
) -> tuple[float, float]:
    """Diameter and weight over several images; (0, 0) where they contradict each other.

    Args:
        parts: from :func:`red_cell_diameters`, one an image.
        expected: from :func:`expected_diameter`, one an image.
    """
    typical = Expected(float(np.median([one.red_cell_px for one in expected])))
    diameter, weight = mode_diameter(np.concatenate(parts), typical)
    if weight < _POOLED_SHARE * len(parts):
        return 0.0, 0.0
    own = [mode_diameter(part) for part in parts]
    sure = [value for value, seen in own if seen >= _SURE]
    agreeing = [value for value in sure if abs(np.log(value / diameter)) < _AGREE]
    if len(agreeing) < 0.7 * len(sure):
        return 0.0, 0.0
    return diameter, weight


def too_coarse(diameters: NDArray[np.float64], factor: float) -> bool:
    """Whether an image shrunk by a factor can add nothing to the red cells already seen.

    Args:
        diameters: from :func:`red_cell_diameters` of finer ones, in pixels of the whole image.
        factor: pixels of the shrunk image over those of the whole one.
    """
    diameter, weight = mode_diameter(diameters)
    return weight >= _PLENTY and diameter * factor * math.exp(_SAME) < _DIAMETERS_PX[0]


def enough(weight: float) -> bool:
    """Whether so much agreeing outline fixes a scale."""
    return weight >= _MIN_WEIGHT


def _convex_arcs(
    outlines: Sequence[NDArray[Any]], shape: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Split closed outlines where they turn inwards or run along the image's edge.

    Returns:
        Points (n, 2), x and y, and where among them each arc begins and ends (exclusive).
    """
    height, width = shape
    sizes = np.array([len(outline) for outline in outlines])
    first = np.cumsum(sizes) - sizes
    size, begin = np.repeat(sizes, sizes), np.repeat(first, sizes)
    place = np.arange(len(size)) - begin
    points = np.concatenate(outlines).astype(np.float64)
    x, y = points.T.copy()
    k = np.where(size < _LONG_OUTLINE, np.maximum(3, size // 40), 10)
    ahead, behind = begin + (place + k) % size, begin + (place - k) % size
    ahead_x, ahead_y = x[ahead] - x, y[ahead] - y
    turn = ahead_x * ahead_y[behind] - ahead_y * ahead_x[behind]
    following = begin + (place + 1) % size
    clockwise = np.sign(np.add.reduceat(x[following] * y - x * y[following], first))
    steps = np.hypot(ahead_x, ahead_y)
    inwards = turn * np.repeat(clockwise, sizes) < -0.15 * (steps * steps[behind] + 1e-9)
    bad = inwards | (x <= 1) | (y <= 1) | (x >= width - 2) | (y >= height - 2)
    worst = np.where(bad, place, size)
    start = np.minimum.reduceat(worst, first) % sizes
    order = begin + (place + np.repeat(start, sizes)) % size  # each begins where it is bad
    bad = bad[order]
    change = np.flatnonzero(np.diff(bad, prepend=False) | (place == 0))
    end = np.append(change[1:], len(bad))
    arcs = ~bad[change] & (end - change >= _LEAST_ARC_POINTS)
    return points[order], change[arcs], end[arcs]


def _circles(
    points: NDArray[np.float64], begin: NDArray[np.int64], end: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Algebraic circles (Kasa 1976) through arcs, of those that fit and span enough.

    Args:
        points: float64 (n, 2), x and y.
        begin: int64 (arcs,), where each arc begins; rising.
        end: int64 (arcs,), where each ends, exclusive.

    Returns:
        float64 (circles, 4): x, y, radius, share of the circle seen.
    """
    if len(begin) == 0:
        return np.zeros((0, 4))
    count = end - begin
    owner = np.repeat(np.arange(len(count)), count)
    first = np.cumsum(count) - count
    own = points[np.arange(len(owner)) + (begin - first)[owner]].T.copy()

    def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.add.reduceat(values, first, axis=-1), dtype=np.float64)

    middle = total(own) / count
    x, y = own - middle[:, owner]
    squares = x * x + y * y
    xx, xy, yy, zx, zy = total(np.stack([x * x, x * y, y * y, squares * x, squares * y]))
    double = 2 * (xx * yy - xy * xy)
    flat = double * count < 2e-6
    double[flat] = 1
    centre = np.stack([zx * yy - zy * xy, zy * xx - zx * xy]) / double
    radius = np.sqrt(total(squares) / count + (centre * centre).sum(axis=0))
    off = np.hypot(x - centre[0, owner], y - centre[1, owner]) - radius[owner]
    residual = np.sqrt(total(off * off) / count)
    span = count * 1.12 / (2 * math.pi * radius)
    loose = np.where(span >= _HALF_SEEN, 0.06, 0.035)
    fits = (residual <= np.maximum(loose * radius, 0.4)) & (span >= _LEAST_SEEN)
    fits &= ~flat & (radius > 2)
    found = np.column_stack([(centre + middle).T, radius, np.minimum(span, 1.0)])
    return np.asarray(found[fits], dtype=np.float64)


def _holds_nucleus(nuclei: NDArray[np.uint8], x: float, y: float, radius: float) -> bool:
    half = radius * 0.7
    top, left = int(max(y - half, 0)), int(max(x - half, 0))
    window = nuclei[top : int(max(y + half, 0)) + 1, left : int(max(x + half, 0)) + 1]
    return bool(window.size and cv2.countNonZero(window) > 0.1 * window.size)
