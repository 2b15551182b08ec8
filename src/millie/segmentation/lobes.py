"""Lobes: which pieces of nuclei belong to one cell.

Owns the features of a pair of pieces, the small network over them, and the merging from
the likeliest pair up. The model was trained by ``benchmarks/train_lobes.py`` on pairs of pieces in
single-cell crops (one cell) and in pairs of crops pasted together at touching distance (two).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from millie.segmentation import lobe_model
from millie.segmentation.bodies import round_bodies

if TYPE_CHECKING:
    from cv2.typing import MatLike
    from numpy.typing import NDArray

    from millie.segmentation.stain import StainMap

FEATURES = (
    "distance_um",
    "gap_um",
    "neck",
    "convexity",
    "valley",
    "density_valley",
    "joint_extent_um",
    "log_smaller",
    "log_larger",
    "excess_um2",
    "cover",
    "roundness",
    "hull_empty",
    "hull_red",
    "hull_plasma",
    "around_empty",
    "around_red",
    "around_plasma",
    "peak_ratio",
    "tint_difference",
    "solidity",
    "relative_distance",
    "relative_gap",
)
_LARGE_UM2 = 110.0  # a joint nucleus above it is unusual
_MERGE_ABOVE = 0.0  # log odds; a nucleus split is a false cell, two merged a lost one
_REACH_UM = 14.0  # centres further apart are never one nucleus
_SMOOTH_UM = 1.2  # bridges between bodies thinner than twice that are cut
_AROUND_UM = 1.5
_BODY_UM = (6.0, 20.0)  # diameter of one cell's body


@dataclass(slots=True, eq=False)
class Piece:
    """A convex piece, or several merged ones, at the working resolution.

    Attributes:
        members: labels of the pieces in it.
        area_px: pixels.
        centre: (x, y).
        outline: float32 (n, 2), points of its outline(s), (x, y).
        peak: high percentile of its score.
        tint: its mean score over its mean density; lobes of one nucleus have one colour.
        roundness: area over that of the smallest circle around it.
        solidity: area over that of its convex hull.
    """

    members: tuple[int, ...]
    area_px: float
    centre: NDArray[np.float64]
    outline: NDArray[np.float32]
    peak: float
    tint: float
    roundness: float
    solidity: float


def grouped(
    pieces: NDArray[np.int32], stain: StainMap, work_um: float
) -> tuple[tuple[int, ...], ...]:
    """Group pieces into nuclei, merging the likeliest pair first until none is likely.

    Returns:
        For each nucleus the labels of its pieces, each piece in exactly one.
    """
    alive = {p.members[0]: p for p in pieces_of(pieces, stain)}
    for members in _in_one_body(pieces, stain, work_um):
        first, *others = (key for key in members if key in alive)
        for key in others:
            alive[first] = joined(alive[first], alive.pop(key))
    keys = sorted(alive)
    near = [
        (a, b) for i, a in enumerate(keys) for b in keys[i + 1 :]
        if _near(alive[a], alive[b], work_um)
    ]  # fmt: skip
    odds = _odds(near, alive, stain, work_um)
    while odds:
        (a, b), best = max(odds.items(), key=lambda item: item[1])
        if best <= _MERGE_ABOVE:
            break
        alive[a] = joined(alive[a], alive.pop(b))
        odds = {pair: value for pair, value in odds.items() if a not in pair and b not in pair}
        near = [
            (min(a, c), max(a, c)) for c, other in alive.items()
            if c != a and _near(alive[a], other, work_um)
        ]  # fmt: skip
        odds |= _odds(near, alive, stain, work_um)
    return tuple(piece.members for piece in alive.values())


def _odds(
    pairs: list[tuple[int, int]], alive: dict[int, Piece], stain: StainMap, work_um: float
) -> dict[tuple[int, int], float]:
    """Log odds of each pair of pieces, judged together."""
    if not pairs:
        return {}
    features = [pair_features(alive[a], alive[b], stain, work_um) for a, b in pairs]
    return dict(zip(pairs, lobe_model.evidence(np.array(features)).tolist(), strict=True))


def _in_one_body(
    pieces: NDArray[np.int32], stain: StainMap, work_um: float
) -> list[tuple[int, ...]]:
    """Pieces that lie together in one round body of a cell's size, hence in one cell.

    The body is what stands apart from the background or, where red cells touch it, what is
    unlike them. Touching cells give no round body and are left to the model.
    """
    stained = (stain.density > stain.empty_below) | (pieces > 0)
    everywhere = np.s_[0 : pieces.shape[0], 0 : pieces.shape[1]]
    found: list[tuple[int, ...]] = []
    taken: set[int] = set()
    for mask in (stained & (~stain.red_like(everywhere) | (pieces > 0)), stained):
        for body in round_bodies(mask, _SMOOTH_UM / work_um):
            if not _BODY_UM[0] <= body.diameter_px * work_um <= _BODY_UM[1]:
                continue
            held = np.unique(pieces[body.window][body.inside])
            members = tuple(int(v) for v in held if v > 0 and int(v) not in taken)
            if len(members) > 1:
                found.append(members)
                taken.update(members)
    return found


def pieces_of(labels: NDArray[np.int32], stain: StainMap) -> list[Piece]:
    """Measure each label of a map."""
    rows, columns = np.nonzero(labels)
    values = labels[rows, columns]
    order = np.argsort(values, kind="stable")
    rows, columns, values = rows[order], columns[order], values[order]
    starts = np.flatnonzero(np.diff(values, prepend=0) > 0)
    found = []
    for start, end in zip(starts, np.append(starts, len(values))[1:], strict=True):
        y, x = rows[start:end], columns[start:end]
        top, left = int(y.min()), int(x.min())
        window = np.zeros((int(y.max()) - top + 3, int(x.max()) - left + 3), np.uint8)
        window[y - top + 1, x - left + 1] = 1
        contours, _ = cv2.findContours(window, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        outline = np.concatenate(contours)[:, 0, :] + np.array([left - 1, top - 1])
        peak = float(np.percentile(stain.score[y, x], 80))
        centre = np.array([x.mean(), y.mean()])
        label = int(values[start])
        tint = float(stain.score[y, x].sum()) / max(float(stain.density[y, x].sum()), 1e-3)
        found.append(_piece((label,), end - start, centre, outline.astype(np.float32), peak, tint))
    return found


def _piece(
    members: tuple[int, ...],
    area_px: float,
    centre: NDArray[np.float64],
    outline: NDArray[np.float32],
    peak: float,
    tint: float,
) -> Piece:
    hull = cv2.convexHull(outline)
    _, radius = cv2.minEnclosingCircle(hull)
    roundness = area_px / (np.pi * max(float(radius), 1.0) ** 2)
    return Piece(
        members, float(area_px), centre, outline, peak, tint, roundness, area_px / _area(hull)
    )


def _area(hull: MatLike) -> float:
    """Pixels that a hull through pixel centres covers."""
    return max(cv2.contourArea(hull) + 0.5 * cv2.arcLength(hull, closed=True), 1.0)


def joined(a: Piece, b: Piece) -> Piece:
    """The two as one."""
    area = a.area_px + b.area_px
    centre = (a.centre * a.area_px + b.centre * b.area_px) / area
    outline = np.concatenate([a.outline, b.outline])
    tint = (a.tint * a.area_px + b.tint * b.area_px) / area
    return _piece(a.members + b.members, area, centre, outline, max(a.peak, b.peak), tint)


def pair_features(a: Piece, b: Piece, stain: StainMap, work_um: float) -> NDArray[np.float64]:
    """Values of :data:`FEATURES` for two pieces."""
    steps = a.outline[:, None, :] - b.outline[None, :, :]
    apart = np.hypot(steps[..., 0], steps[..., 1])
    ia, ib = np.unravel_index(int(np.argmin(apart)), apart.shape)
    gap = max(float(apart[ia, ib]) - 1.0, 0.0)
    contact = float(np.count_nonzero(apart.min(axis=1) <= 1.5))
    small, large = sorted([a.area_px, b.area_px])
    hull = cv2.convexHull(np.concatenate([a.outline, b.outline]))
    _, radius = cv2.minEnclosingCircle(hull)
    line = _samples(a.centre, b.centre)
    score = stain.score[line[:, 1], line[:, 0]]
    density = np.sort(stain.density[line[:, 1], line[:, 0]])
    distance = math.dist(a.centre, b.centre)
    side = math.sqrt(small + large)
    return np.array([
        distance * work_um,
        gap * work_um,
        contact / (2 * np.sqrt(small / np.pi)),
        (small + large) / _area(hull),
        max(float(score.min()), 0.0) / max(min(a.peak, b.peak), 1e-3),
        float(density[0]) / max(float(density[(4 * len(density)) // 5]), 1e-3),
        2 * float(radius) * work_um,
        math.log(small * work_um**2),
        math.log(large * work_um**2),
        max((small + large) * work_um**2 - _LARGE_UM2, 0.0),
        (small + large) / (np.pi * max(float(radius), 1.0) ** 2),
        min(a.roundness, b.roundness),
        *_composition(hull, stain, _AROUND_UM / work_um),
        min(a.peak, b.peak) / max(a.peak, b.peak, 1e-3),
        abs(a.tint - b.tint),
        min(a.solidity, b.solidity),
        distance / side,
        gap / side,
    ])  # fmt: skip


def _composition(hull: MatLike, stain: StainMap, around_px: float) -> NDArray[np.float64]:
    """Shares of empty, red-cell-like and cytoplasmic pixels in a hull, then in a belt around it."""
    reach = round(around_px) + 1
    left, top, width, height = cv2.boundingRect(hull)
    rows, columns = stain.score.shape
    y0, x0 = max(top - reach, 0), max(left - reach, 0)
    window = np.s_[y0 : min(top + height + reach, rows), x0 : min(left + width + reach, columns)]
    density = stain.density[window]
    canvas = np.zeros(density.shape, np.uint8)
    polygon = np.rint(hull - (x0, y0)).astype(np.int32)
    cv2.polylines(canvas, [polygon], isClosed=True, color=2, thickness=2 * reach - 1)
    cv2.fillConvexPoly(canvas, polygon, 1)
    red = stain.red_like(window)
    empty = (density < stain.empty_below) & ~red
    plasma = ~(red | empty) & (stain.score[window] < stain.threshold)
    kinds = canvas + 3 * (empty + 2 * red + 3 * plasma).astype(np.uint8)
    counts = np.bincount(kinds.ravel(), minlength=12).reshape(4, 3)
    inside, belt = (max(float(counts[:, k].sum()), 1.0) for k in (1, 2))
    return np.concatenate([counts[1:, 1] / inside, counts[1:, 2] / belt])


def _near(a: Piece, b: Piece, work_um: float) -> bool:
    return math.dist(a.centre, b.centre) * work_um < _REACH_UM


def _samples(start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.int64]:
    n = max(int(math.dist(start, end)), 2)
    share = (np.arange(n + 1) / n)[:, None]
    return np.rint(start + share * (end - start)).astype(np.int64)
