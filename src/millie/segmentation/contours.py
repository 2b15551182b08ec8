"""Cell bodies: the outline of each cell, from a learnt judgement along rays from its middle.

Owns the rays, what is measured along them, and the closed line through the places where a cell
most likely ends. Cytoplasm may be as pale as the background or as pink as the red cell that it
touches, so no colour alone tells where it ends; the network (``contour_model``) weighs the change
across a place, what lies between it and the nucleus, and how far from the nucleus it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from millie.segmentation import contour_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from millie.segmentation.stain import StainMap

ANGLES = 36
STEP_UM = 0.42  # between places on a ray
REACH = 24  # places beyond the nucleus: 10 um
RADII = 56  # places from the middle: 23.5 um
_OFFSETS = (-5, -3, -2, -1, 0, 1, 2, 3, 5)  # places compared, in steps
_WIDE = (-3, 0, 3)  # the same, with the neighbouring rays
_NEIGHBOURS = 2
_MARGIN = 5  # places before the nucleus' edge that are looked at
_BEYOND = 12  # places beyond the reach that are looked at
_STEEPEST = 4  # steps that the outline may change by from ray to ray
_BEND = 0.4  # cost of a step, in natural units of odds
_NEVER = 30.0
_COARSE = 2  # pixels: how exactly the border between two nuclei is known
_BATCH = 8  # cells judged at a time; more do not fit into the processor's cache


@dataclass(frozen=True, slots=True, eq=False)
class Nucleus:
    """One nucleus at the working resolution.

    Attributes:
        window: slices (rows, columns) of the map around it.
        mask: bool, inside the window.
    """

    window: tuple[slice, slice]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Rays:
    """What lies along rays from the middles of cells.

    Attributes:
        centres: float64 (N, 2), the middles (x, y), pixels of the working resolution.
        colour: float32 (N, A, 5 + REACH + 12, 3), optical density of the three channels over the
            nucleus' mean one; the ray leaves the nucleus at place 5.
        edge: int64 (N, A), steps from the middle to where the ray leaves the nucleus.
        end: int64 (N, A), steps from the middle to what is nearer to another nucleus or out of
            the picture.
        foreign: bool (N, A), that is another nucleus' territory.
        nucleus_um: float32 (N,), radius of the disc of the nucleus' area.
        red: float32 (N, 4), colour of red cells in the same units and 1; zeros if there are none.
        empty: float32 (N,), summed density of what is background, in the same units.
    """

    centres: NDArray[np.float64]
    colour: NDArray[np.float32]
    edge: NDArray[np.int64]
    end: NDArray[np.int64]
    foreign: NDArray[np.bool_]
    nucleus_um: NDArray[np.float32]
    red: NDArray[np.float32]
    empty: NDArray[np.float32]

    def part(self, which: slice) -> Rays:
        """Some of the cells."""
        return Rays(
            self.centres[which], self.colour[which], self.edge[which], self.end[which],
            self.foreign[which], self.nucleus_um[which], self.red[which],
            self.empty[which],
        )  # fmt: skip


def directions() -> NDArray[np.float64]:
    """float64 (A, 2): unit vectors (x, y)."""
    angle = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def cast(stain: StainMap, nuclei: Sequence[Nucleus], work_um: float) -> Rays:
    """Rays from the middles of nuclei; beyond its own nucleus none enters another's territory.

    Args:
        stain: of the image at the working resolution.
        nuclei: all leukocytes' nuclei in view, at least one.
        work_um: um per pixel.
    """
    ground = _Territories(nuclei, stain.valid.shape)
    centres = np.array([_middle(k, nucleus, ground) for k, nucleus in enumerate(nuclei)])
    ways = directions()
    step = STEP_UM / work_um
    radii = np.arange(RADII) * step
    x, y, out = _pixels(centres[:, None, None] + radii[:, None] * ways[:, None], stain)
    owner, inside = ground.at(x, y)
    own = np.arange(len(nuclei))[:, None, None]
    index = np.arange(RADII)
    edge = np.where(inside & (owner == own) & ~out, index + 1, 0).max(axis=2)
    foreign = (owner != own) & ~out
    end = np.where((foreign | out) & (index >= edge[..., None]), index, RADII).min(axis=2)
    last = np.minimum(end, RADII - 1)[..., None]
    met = np.take_along_axis(foreign, last, axis=2)[..., 0] & (end < RADII)
    along = (edge[..., None] + np.arange(-_MARGIN, REACH + _BEYOND)) * step
    colour = _colours(stain, centres[:, None, None] + along[..., None] * ways[:, None])
    unit, area = _measures(stain, nuclei)
    np.clip(colour / unit[:, None, None, None], -0.5, 3.0, out=colour)
    red = np.zeros((len(nuclei), 4), np.float32)
    if stain.red_cell_colour.any():
        red[:, :3] = stain.red_cell_colour / unit[:, None]
        red[:, 3] = 1
    nucleus_um = (np.sqrt(area / np.pi) * work_um).astype(np.float32)
    empty = (stain.empty_below / unit).astype(np.float32)
    return Rays(centres, colour, edge, end, met, nucleus_um, red, empty)


def _measures(
    stain: StainMap, nuclei: Sequence[Nucleus]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Mean density of a channel, and pixels, of each nucleus."""
    masks = [nucleus.mask.view(np.uint8) for nucleus in nuclei]
    density = np.array([
        cv2.mean(stain.density[nucleus.window], mask)[0]
        for nucleus, mask in zip(nuclei, masks, strict=True)
    ])  # fmt: skip
    area = np.array([cv2.countNonZero(mask) for mask in masks])
    return (np.maximum(density, 1e-3) / 3).astype(np.float32), area


def _middle(own: int, nucleus: Nucleus, ground: _Territories) -> tuple[float, float]:
    """Middle (x, y) of a nucleus' convex hull; where that is another's, its own deepest place."""
    mask = nucleus.mask.view(np.uint8)
    outer, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(np.concatenate(outer))
    moments = cv2.moments(hull)
    if moments["m00"] > 0:
        x, y = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
    else:
        x, y = hull[:, 0].mean(axis=0).tolist()
    rows, columns = nucleus.window
    column, row = np.array([columns.start + round(x)]), np.array([rows.start + round(y)])
    if int(ground.at(column, row)[0][0]) != own:
        depth = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = (float(v) for v in np.unravel_index(int(depth.argmax()), depth.shape))
    return columns.start + x, rows.start + y


class _Territories:
    """Which nucleus is nearest, known to a pixel inside nuclei and roughly between them."""

    def __init__(self, nuclei: Sequence[Nucleus], shape: tuple[int, ...]) -> None:
        self._labels = np.zeros(shape, np.int32)
        for k, nucleus in enumerate(nuclei):
            self._labels[nucleus.window][nucleus.mask] = k + 1
        self._nearest = np.zeros((0, 0), np.int32)
        self._owners = np.zeros(0, np.int64)
        if len(nuclei) > 1:
            coarse = self._labels[::_COARSE, ::_COARSE]
            _, nearest = cv2.distanceTransformWithLabels(
                (coarse == 0).view(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
            )
            self._nearest = np.asarray(nearest, dtype=np.int32)
            self._owners = np.zeros(int(self._nearest.max(initial=0)) + 1, np.int64)
            held = coarse > 0
            self._owners[self._nearest[held]] = coarse[held]

    def at(
        self, x: NDArray[np.int64], y: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Of pixels (columns, rows): the index of the nearest nucleus, and if they lie in it."""
        here = self._labels[y, x]
        if self._nearest.size == 0:
            return np.zeros(x.shape, np.int64), here > 0
        around = self._owners[self._nearest[y // _COARSE, x // _COARSE]]
        return np.where(here > 0, here, around) - 1, here > 0


def _pixels(
    points: NDArray[np.float64], stain: StainMap
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Pixels (columns, rows) nearest to points (..., 2), and which lie out of the picture."""
    height, width = stain.valid.shape
    x, y = (np.rint(points[..., k]).astype(np.int64) for k in (0, 1))
    out = (x < 0) | (y < 0) | (x >= width) | (y >= height)
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    return x, y, out | ~stain.valid[y, x]


def _colours(stain: StainMap, points: NDArray[np.float64]) -> NDArray[np.float32]:
    """float32 (N, A, P, 3): optical density over the background at points (N, A, P, 2).

    Each cell is looked up in the part of the picture around it: OpenCV takes no side of 32,767.
    """
    height, width = stain.valid.shape
    found = np.empty((*points.shape[:-1], 3), np.float32)
    for k, own in enumerate(points.astype(np.float32)):
        low = np.floor(own.min(axis=(0, 1))).astype(int).clip(0, (width - 1, height - 1))
        high = np.ceil(own.max(axis=(0, 1))).astype(int).clip(0, (width - 1, height - 1)) + 1
        part = stain.channels[low[1] : high[1], low[0] : high[0]]
        x, y = own[..., 0] - np.float32(low[0]), own[..., 1] - np.float32(low[1])
        found[k] = cv2.remap(part, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    found -= stain.background_density
    return found


def features(rays: Rays) -> NDArray[np.float32]:
    """float32 (N, A, REACH, 56): what each place beyond the nucleus is judged by.

    Three channels at each of nine places along the ray and of three along the mean of five rays,
    the mean of the way from the nucleus, what :func:`_single` gives, the film's red cells.
    """
    colour, wide = rays.colour, _with_neighbours(rays.colour)
    plasma = colour[:, :, _MARGIN : _MARGIN + REACH]
    mean = np.cumsum(plasma, axis=2) / np.arange(1, REACH + 1, dtype=np.float32)[:, None]
    parts = [
        source[:, :, _MARGIN + k : _MARGIN + k + REACH]
        for source, offsets in ((colour, _OFFSETS), (wide, _WIDE))
        for k in offsets
    ]
    single = _single(rays, plasma.sum(axis=3), mean.sum(axis=3), wide[:, :, _MARGIN:].sum(axis=3))
    found = np.empty((*rays.edge.shape, REACH, 3 * len(parts) + 3 + len(single) + 4), np.float32)
    place = 0
    for part in (*parts, mean):
        found[..., place : place + 3] = part
        place += 3
    for one in single:
        found[..., place] = one
        place += 1
    found[..., place:] = rays.red[:, None, None]
    return found


def _single(
    rays: Rays,
    total: NDArray[np.float32],
    mean: NDArray[np.float32],
    outwards: NDArray[np.float32],
) -> list[NDArray[Any]]:
    """Thirteen values of each place, each of a shape that broadcasts to (N, A, REACH).

    Evenness and palest place on the way from the nucleus; density, and share that is stained, of
    the next 2.5 um and the 2.5 um after them; stained share of the way; distances from the nucleus'
    edge, of that edge and of the place from the middle; the nucleus' radius; steps to the end; what
    is background.

    Args:
        rays: of the cells.
        total: float32 (N, A, REACH), summed density.
        mean: float32 (N, A, REACH), of the way from the nucleus to there.
        outwards: float32 (N, A, REACH + 12), summed density of the mean of five rays.
    """
    count = np.arange(1, REACH + 1, dtype=np.float32)
    square = np.cumsum(total**2, axis=2) / count
    summed = np.cumsum(outwards, axis=2)
    stained = np.cumsum(outwards > rays.empty[:, None, None], axis=2, dtype=np.float32)
    here, near, far = (np.s_[:, :, k : k + REACH] for k in (0, 6, 12))
    index = np.arange(REACH, dtype=np.float32)
    edge = rays.edge.astype(np.float32)[..., None]
    left = rays.end[..., None] - edge - index
    return [
        np.sqrt(np.maximum(square - mean**2, 0)),
        np.minimum.accumulate(total, axis=2),
        (summed[near] - summed[here]) / 6,
        (summed[far] - summed[near]) / 6,
        (stained[near] - stained[here]) / 6,
        (stained[far] - stained[near]) / 6,
        stained[here] / count,
        index * STEP_UM,
        edge * STEP_UM,
        (edge + index) * STEP_UM,
        rays.nucleus_um[:, None, None],
        left.clip(-6, 6),
        rays.empty[:, None, None],
    ]


def _with_neighbours(colour: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each ray averaged with its neighbours on either side."""
    around = np.concatenate([colour[:, -_NEIGHBOURS:], colour, colour[:, :_NEIGHBOURS]], axis=1)
    summed = around[:, :ANGLES].copy()
    for k in range(1, 2 * _NEIGHBOURS + 1):
        summed += around[:, k : k + ANGLES]
    summed /= np.float32(2 * _NEIGHBOURS + 1)
    return summed


def costs(rays: Rays) -> NDArray[np.float32]:
    """float32 (N, A, RADII): minus the logarithm of the probability that the cell ends there."""
    odds = np.concatenate(
        [
            contour_model.evidence(features(rays.part(slice(k, k + _BATCH))))
            for k in range(0, len(rays.edge), _BATCH)
        ]
    )
    place = rays.edge[..., None] + np.arange(REACH)
    last = np.maximum(rays.end, rays.edge)[..., None]
    odds = np.where((place <= last) & (place < RADII), odds, np.float32(-1e4))
    odds -= odds.max(axis=2, keepdims=True)
    odds -= np.log(np.exp(odds).sum(axis=2, keepdims=True))
    found = np.full((*rays.edge.shape, RADII + REACH), _NEVER, np.float32)
    np.put_along_axis(found, place, np.minimum(-odds, np.float32(_NEVER)), axis=2)
    return found[..., :RADII]


def closed_lines(cost: NDArray[np.float32], bend: float = _BEND) -> NDArray[np.int64]:
    """A cheap closed line around each middle, by dynamic programming.

    It goes one and a half times round and keeps the middle of that, so that where it begins has
    hardly a say; without any evidence the two ends may lie further apart than other neighbours.

    Args:
        cost: float32 (N, A, R) of each place.
        bend: cost of a step of radius from one ray to the next.

    Returns:
        int64 (N, A): places on the rays.
    """
    n, angles, radii = cost.shape
    rounds = angles + angles // 2
    came = np.zeros((rounds, n, radii), np.int64)
    padded = np.full((n, radii + 2 * _STEEPEST), 1e6, np.float32)
    steps = np.lib.stride_tricks.sliding_window_view(padded, 2 * _STEEPEST + 1, axis=1)
    price = np.float32(bend) * np.abs(np.arange(-_STEEPEST, _STEEPEST + 1, dtype=np.float32))
    best = padded[:, _STEEPEST : _STEEPEST + radii]
    best[:] = cost[:, 0]
    for k in range(1, rounds):
        tried = steps + price
        came[k] = tried.argmin(axis=2)
        best[:] = np.take_along_axis(tried, came[k][..., None], axis=2)[..., 0]
        best += cost[:, k % angles]
    line = np.zeros((n, rounds), np.int64)
    line[:, -1] = best.argmin(axis=1)
    rows = np.arange(n)
    for k in range(rounds - 1, 0, -1):
        line[:, k - 1] = line[:, k] + came[k, rows, line[:, k]] - _STEEPEST
    quarter = angles // 4
    return np.roll(line[:, quarter : quarter + angles], quarter, axis=1)


def corners(rays: Rays, lines: NDArray[np.int64], work_um: float) -> NDArray[np.float64]:
    """float64 (N, A, 2): outlines through places (N, A), smoothed, (x, y) in pixels.

    A body that the edge of the picture cuts goes on a little beyond it.
    """
    reach = lines - 0.5  # a line names the first place outside
    smooth = 0.25 * np.roll(reach, 1, axis=1) + 0.5 * reach + 0.25 * np.roll(reach, -1, axis=1)
    cut = ~rays.foreign & (rays.end < RADII) & (lines >= rays.end - 1)
    radii = np.where(cut, np.maximum(smooth, rays.end + 1.0), np.maximum(smooth, 0.5))
    return np.asarray(rays.centres[:, None] + radii[..., None] * (STEP_UM / work_um) * directions())
