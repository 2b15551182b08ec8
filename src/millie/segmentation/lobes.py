"""Lobes: which pieces of nuclei belong to one cell.

Owns the features of a pair of pieces, the small network over them, and the merging from
the likeliest pair up. The model was trained by ``benchmarks/train_lobes.py`` on pairs of pieces in
single-cell crops (one cell) and in pairs of crops pasted together at touching distance (two).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from millie.segmentation import lobe_model
from millie.segmentation.bodies import ROUND, inscribed_discs, round_bodies, too_wide
from millie.segmentation.places import Places
from millie.segmentation.quick import LabelPixels, crowded, pixels_by_label, quantile
from millie.segmentation.stain import EMPTY, RED

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
_TWO_UM = 10.0  # two cells' nuclei are together at least as wide
_HALF_UM = 6.0  # least width of either body beside a neck
_SURE = 9.0  # log odds that outweigh a neck
_NECK = 0.85  # of the smaller body's width
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
        hull: float32 (n, 1, 2), of its outline.
    """

    members: tuple[int, ...]
    area_px: float
    centre: NDArray[np.float64]
    outline: NDArray[np.float32]
    peak: float
    tint: float
    roundness: float
    solidity: float
    hull: MatLike


def grouped(
    pieces: NDArray[np.int32],
    stain: StainMap,
    work_um: float,
    pixels: LabelPixels | None = None,
) -> tuple[tuple[int, ...], ...]:
    """Group pieces into nuclei, merging the likeliest pair first until none is likely.

    Args:
        pieces: int32 (H, W), 0 is none.
        stain: of the same image.
        work_um: um per pixel.
        pixels: of ``pieces``, where they are known already.

    Returns:
        For each nucleus the labels of its pieces, each piece in exactly one.
    """
    pixels = pixels or pixels_by_label(pieces)
    alive = {p.members[0]: p for p in measured(pixels, stain)}
    for members in _in_one_body(pieces, pixels, stain, work_um):
        first, *others = (key for key in members if key in alive)
        for key in others:
            alive[first] = joined(alive[first], alive.pop(key))
    _merge(alive, stain, work_um)
    return tuple(piece.members for piece in alive.values())


def _merge(alive: dict[int, Piece], stain: StainMap, work_um: float) -> None:
    """Join the likeliest pair of pieces until none is likely."""
    places = Places(_REACH_UM / work_um)
    for key, piece in sorted(alive.items()):
        places.put(key, *piece.centre.tolist())
    grown = dict.fromkeys(alive, 0)  # how often; verdicts on what has grown since are void
    queue: list[tuple[float, int, tuple[int, int], tuple[int, int]]] = []
    order = count()

    def judge(pairs: list[tuple[int, int]]) -> None:
        for (a, b), odds in _odds(pairs, alive, stain, work_um).items():
            if odds > _MERGE_ABOVE:
                heappush(queue, (-odds, next(order), (a, b), (grown[a], grown[b])))

    judge([(key, other) for key in sorted(alive) for other in places.near(key) if key < other])
    while queue:
        minus, _, (a, b), then = heappop(queue)
        if a not in alive or b not in alive or then != (grown[a], grown[b]):
            continue
        if -minus < _SURE and _in_two_bodies(alive[a], alive[b], stain, work_um):
            continue
        alive[a] = joined(alive[a], alive.pop(b))
        grown[a] += 1
        places.remove(b)
        places.put(a, *alive[a].centre.tolist())
        judge([(min(a, c), max(a, c)) for c in places.near(a)])


def _odds(
    pairs: list[tuple[int, int]], alive: dict[int, Piece], stain: StainMap, work_um: float
) -> dict[tuple[int, int], float]:
    """Log odds of each pair of pieces, judged together."""
    if not pairs:
        return {}
    features = [pair_features(alive[a], alive[b], stain, work_um) for a, b in pairs]
    return dict(zip(pairs, lobe_model.evidence(np.array(features)).tolist(), strict=True))


def _in_one_body(
    pieces: NDArray[np.int32], pixels: LabelPixels, stain: StainMap, work_um: float
) -> list[tuple[int, ...]]:
    """Pieces that lie together in one round body of a cell's size, hence in one cell.

    The body is what stands apart from the background or, where red cells touch it, what is
    unlike them. Touching cells give no round body and are left to the model.
    """
    widest = _BODY_UM[1] / work_um
    reach = widest / math.sqrt(ROUND)  # a round body may be oblong
    # A body cut by a window is too wide to be one cell's.
    windows = crowded(pixels.boxes(), reach, 2 * widest, pieces.shape)
    return [group for window in windows for group in _in_one_of(pieces, window, stain, work_um)]


def _in_one_of(
    pieces: NDArray[np.int32], window: tuple[slice, slice], stain: StainMap, work_um: float
) -> list[tuple[int, ...]]:
    """The same in one part of the field."""
    pieces = pieces[window]
    nuclear = pieces > 0
    stained = (stain.density[window] > stain.empty_below) | nuclear
    found: list[tuple[int, ...]] = []
    taken: set[int] = set()

    def holds_two(box: tuple[int, int, int, int]) -> bool:
        if too_wide(max(box[1] - box[0], box[3] - box[2]), _BODY_UM[1] / work_um):
            return False
        held = pieces[box[0] : box[1], box[2] : box[3]]
        highest = held.max()
        return bool(highest > 0 and ((held > 0) & (held != highest)).any())

    for mask in (stained & ((stain.kinds[window] != RED) | nuclear), stained):
        for body in round_bodies(mask, _SMOOTH_UM / work_um, holds_two):
            if not _BODY_UM[0] <= body.diameter_px * work_um <= _BODY_UM[1]:
                continue
            held = np.unique(pieces[body.window][body.inside])
            members = tuple(int(v) for v in held if v > 0 and int(v) not in taken)
            if len(members) > 1:
                found.append(members)
                taken.update(members)
    return found


def _in_two_bodies(a: Piece, b: Piece, stain: StainMap, work_um: float) -> bool:
    """Whether a neck of the stained area, cytoplasm included, parts two bodies of a cell's size.

    The neck must show against the empty background: red cells beside it hide the outline, and what
    passes for one may be pale or eosinophilic cytoplasm. It must show without red cells, too: with
    them they are bodies themselves.
    """
    corners = np.concatenate([a.hull, b.hull])[:, 0]
    if np.ptp(corners, axis=0).max() * work_um < _TWO_UM:
        return False
    margin = _BODY_UM[0] / 2 / work_um
    left, top = np.maximum(corners.min(axis=0) - margin, 0).astype(int)
    right, bottom = np.ceil(corners.max(axis=0) + margin).astype(int)
    kinds = stain.kinds[top : bottom + 1, left : right + 1]
    centres = np.stack([a.centre, b.centre]) - (left, top)
    stained = kinds != EMPTY
    return _parted(stained, centres, work_um) and _parted(
        stained & (kinds != RED), centres, work_um
    )


def _parted(stained: NDArray[np.bool_], centres: NDArray[np.float64], work_um: float) -> bool:
    """Whether two places (x, y) lie in different bodies of a stained area."""
    discs = inscribed_discs(stained, _HALF_UM / 2 / work_um, _NECK)
    if len(discs) < 2:
        return False
    beyond = np.hypot(*(centres[:, None] - discs[:, :2]).transpose(2, 0, 1)) - discs[:, 2]
    homes = beyond.argmin(axis=1)
    return bool(homes[0] != homes[1] and beyond.min(axis=1).max() <= 0)


def pieces_of(labels: NDArray[np.int32], stain: StainMap) -> list[Piece]:
    """Measure each label of a map."""
    return measured(pixels_by_label(labels), stain)


def measured(pixels: LabelPixels, stain: StainMap) -> list[Piece]:
    """Measure each label whose pixels are given."""
    first = pixels.starts[:-1]
    if len(first) == 0:
        return []
    scores = stain.score[pixels.rows, pixels.columns]
    densities = stain.density[pixels.rows, pixels.columns]
    areas = np.diff(pixels.starts)
    across, down, score, density = (
        np.add.reduceat(values, first, dtype=np.float64)
        for values in (pixels.columns, pixels.rows, scores, densities)
    )
    centres = np.column_stack([across / areas, down / areas])
    tints = score / np.maximum(density, 1e-3)
    found = []
    for k, (top, bottom, left, right) in enumerate(pixels.boxes().tolist()):
        own = slice(int(pixels.starts[k]), int(pixels.starts[k + 1]))
        window = np.zeros((bottom - top + 2, right - left + 2), np.uint8)
        window[pixels.rows[own] - (top - 1), pixels.columns[own] - (left - 1)] = 1
        contours, _ = cv2.findContours(window, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        points = np.concatenate(contours)[:, 0] + (left - 1, top - 1)
        outline = points.astype(np.float32)
        tone = quantile(scores[own], 0.8), float(tints[k])
        members = (int(pixels.labels[k]),)
        hull = cv2.convexHull(outline)
        found.append(_piece(members, float(areas[k]), centres[k], outline, tone, hull))
    return found


def _piece(
    members: tuple[int, ...],
    area_px: float,
    centre: NDArray[np.float64],
    outline: NDArray[np.float32],
    tone: tuple[float, float],
    hull: MatLike,
) -> Piece:
    """A piece of so much area with its (peak, tint), its shape measured on its hull."""
    _, radius = cv2.minEnclosingCircle(hull)
    roundness = area_px / (np.pi * max(float(radius), 1.0) ** 2)
    solidity = area_px / _area(hull)
    return Piece(members, float(area_px), centre, outline, *tone, roundness, solidity, hull)


def _area(hull: MatLike) -> float:
    """Pixels that a hull through pixel centres covers."""
    return max(cv2.contourArea(hull) + 0.5 * cv2.arcLength(hull, closed=True), 1.0)


def joined(a: Piece, b: Piece) -> Piece:
    """The two as one."""
    area = a.area_px + b.area_px
    centre = (a.centre * a.area_px + b.centre * b.area_px) / area
    outline = np.concatenate([a.outline, b.outline])
    tint = (a.tint * a.area_px + b.tint * b.area_px) / area
    tone = max(a.peak, b.peak), tint
    return _piece(a.members + b.members, area, centre, outline, tone, _joint_hull(a, b))


def _joint_hull(a: Piece, b: Piece) -> MatLike:
    return cv2.convexHull(np.concatenate([a.hull, b.hull]))


def pair_features(a: Piece, b: Piece, stain: StainMap, work_um: float) -> NDArray[np.float64]:
    """Values of :data:`FEATURES` for two pieces."""
    nearest = _nearest(a.outline, b.outline)
    gap = max(math.sqrt(float(nearest.min())) - 1.0, 0.0)
    contact = float(np.count_nonzero(nearest <= 1.5**2))
    small, large = sorted([a.area_px, b.area_px])
    hull = _joint_hull(a, b)
    _, radius = cv2.minEnclosingCircle(hull)
    line = _samples(a.centre, b.centre, stain.score.shape[1])
    score = stain.score.take(line)
    density = np.sort(stain.density.take(line))
    distance = math.dist(a.centre, b.centre)
    side = math.sqrt(small + large)
    return np.array([
        distance * work_um,
        gap * work_um,
        contact / (2 * math.sqrt(small / math.pi)),
        (small + large) / _area(hull),
        max(float(score.min()), 0.0) / max(min(a.peak, b.peak), 1e-3),
        float(density[0]) / max(float(density[(4 * len(density)) // 5]), 1e-3),
        2 * float(radius) * work_um,
        math.log(small * work_um**2),
        math.log(large * work_um**2),
        max((small + large) * work_um**2 - _LARGE_UM2, 0.0),
        (small + large) / (math.pi * max(float(radius), 1.0) ** 2),
        min(a.roundness, b.roundness),
        *_composition(hull, stain, _AROUND_UM / work_um),
        min(a.peak, b.peak) / max(a.peak, b.peak, 1e-3),
        abs(a.tint - b.tint),
        min(a.solidity, b.solidity),
        distance / side,
        gap / side,
    ])  # fmt: skip


def _composition(hull: MatLike, stain: StainMap, around_px: float) -> list[float]:
    """Shares of empty, red-cell-like and cytoplasmic pixels in a hull, then in a belt around it."""
    reach = round(around_px) + 1
    left, top, width, height = cv2.boundingRect(hull)
    rows, columns = stain.score.shape
    y0, x0 = max(top - reach, 0), max(left - reach, 0)
    window = np.s_[y0 : min(top + height + reach, rows), x0 : min(left + width + reach, columns)]
    kinds = stain.kinds[window]
    canvas = np.zeros(kinds.shape, np.uint8)
    polygon = np.rint(hull - (x0, y0)).astype(np.int32)
    cv2.polylines(canvas, [polygon], isClosed=True, color=2, thickness=2 * reach - 1)
    cv2.fillConvexPoly(canvas, polygon, 1)
    histogram = cv2.calcHist([canvas + 3 * kinds], [0], None, [12], [0, 12])
    counts = histogram.ravel().tolist()
    inside, belt = counts[1::3], counts[2::3]
    parts = [n / max(sum(inside), 1) for n in inside[1:]]
    return parts + [n / max(sum(belt), 1) for n in belt[1:]]


def _nearest(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squared distance from each point of ``a`` to the nearest of ``b``; all are whole numbers."""
    a, b = a - a[0], b - a[0]  # small numbers, so that products and sums are exact
    left, right = np.empty((len(b), 3), np.float32), np.empty((3, len(a)), np.float32)
    left[:, :2], right[:2] = b, a.T
    left[:, :2] *= -2
    left[:, 2], right[2] = np.einsum("ij,ij->i", b, b), 1
    nearest = (left @ right).min(axis=0) + np.einsum("ij,ij->i", a, a)
    return np.asarray(nearest, dtype=np.float32)


def _samples(start: NDArray[np.float64], end: NDArray[np.float64], columns: int) -> NDArray[Any]:
    """Places in a flattened map of so many columns on the line between two points (x, y)."""
    share = _shares(max(int(math.dist(start, end)), 2))
    x, y = (np.rint(start[k] + share * (end[k] - start[k])) for k in (0, 1))
    return np.asarray(y * columns + x, dtype=np.int64)


@cache
def _shares(n: int) -> NDArray[np.float64]:
    return np.asarray(np.arange(n + 1) / n, dtype=np.float64)
