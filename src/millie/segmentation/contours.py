"""Cell bodies: the outline of each cell, from a learnt judgement along rays from its middle.

Owns the rays, what is measured along them, and the closed line through the places where a cell
most likely ends. Cytoplasm may be as pale as the background or as pink as the red cell that it
touches, so no colour alone tells where it ends; the network (``contour_model``) weighs the change
across a place, what lies between it and the nucleus, and how far from the nucleus it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
RADII = 40  # places from the middle: 16.8 um
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
        label: in the map of nuclei.
        window: slices (rows, columns) of that map around it.
        mask: bool, inside the window.
    """

    label: int
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
    """Rays from the middles of nuclei; none leaves the territory of its own.

    Args:
        stain: of the image at the working resolution.
        nuclei: all leukocytes' nuclei in view.
        work_um: um per pixel.
    """
    measures = np.array([_measured(stain, nucleus) for nucleus in nuclei])
    centres, density, area = measures[:, :2], measures[:, 2], measures[:, 3]
    step = STEP_UM / work_um
    ways = directions()
    radii = np.arange(RADII) * step
    x, y, out = _pixels(centres[:, None, None] + radii[:, None] * ways[:, None], stain)
    owner, inside = _territories(nuclei, stain.valid.shape, x, y)
    own = np.arange(len(nuclei))[:, None, None]
    index = np.arange(RADII)
    edge = np.where(inside & (owner == own) & ~out, index + 1, 0).max(axis=2)
    foreign = (owner != own) & ~out
    beyond = index >= edge[..., None]
    end = np.where((foreign | out) & beyond, index, RADII).min(axis=2)
    last = np.minimum(end, RADII - 1)[..., None]
    met = np.take_along_axis(foreign, last, axis=2)[..., 0] & (end < RADII)
    along = (edge[..., None] + np.arange(-_MARGIN, REACH + _BEYOND)) * step
    colour = _colours(stain, centres[:, None, None] + along[..., None] * ways[:, None])
    unit = (np.maximum(density, 1e-3) / 3).astype(np.float32)
    colour /= unit[:, None, None, None]
    np.clip(colour, -0.5, 3.0, out=colour)
    red = np.zeros((len(nuclei), 4), np.float32)
    if stain.red_cell_density > 0:
        red[:, :3] = stain.red_cell_colour / unit[:, None]
        red[:, 3] = 1
    nucleus_um = (np.sqrt(area / np.pi) * work_um).astype(np.float32)
    empty = (stain.empty_below / unit).astype(np.float32)
    return Rays(centres, colour, edge, end, met, nucleus_um, red, empty)


def _measured(stain: StainMap, nucleus: Nucleus) -> tuple[float, float, float, float]:
    """Middle (x, y) of a nucleus' convex hull, its mean density, its pixels."""
    mask = nucleus.mask.view(np.uint8)
    outer, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(np.concatenate(outer))
    moments = cv2.moments(hull)
    if moments["m00"] > 0:
        x, y = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
    else:
        x, y = hull[:, 0].mean(axis=0).tolist()
    rows, columns = nucleus.window
    density = float(cv2.mean(stain.density[nucleus.window], mask)[0])
    return columns.start + x, rows.start + y, density, float(cv2.countNonZero(mask))


def _territories(
    nuclei: Sequence[Nucleus],
    shape: tuple[int, ...],
    x: NDArray[np.int64],
    y: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Of pixels (columns, rows): the index of the nearest nucleus, and whether they lie in it."""
    labels = np.zeros(shape, np.int32)
    for k, nucleus in enumerate(nuclei):
        labels[nucleus.window][nucleus.mask] = k + 1
    here = labels[y, x]
    if len(nuclei) == 1:
        return np.zeros(x.shape, np.int64), here > 0
    coarse = labels[::_COARSE, ::_COARSE]
    _, nearest = cv2.distanceTransformWithLabels(
        (coarse == 0).view(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    owners = np.zeros(int(nearest.max(initial=0)) + 1, np.int64)
    held = coarse > 0
    owners[nearest[held]] = coarse[held]
    around = owners[nearest[y // _COARSE, x // _COARSE]]
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
    """float32 (..., 3): optical density of each channel over the background at points (..., 2)."""
    flat = points.astype(np.float32).reshape(-1, points.shape[-2], 2)
    parts = [  # remap takes sides of less than 32,767
        cv2.remap(
            stain.channels,
            part[..., 0].copy(),
            part[..., 1].copy(),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ).reshape(len(part), -1, 3)
        for part in (flat[k : k + 16_000] for k in range(0, len(flat), 16_000))
    ]
    colour = np.concatenate(parts).reshape(*points.shape[:-1], 3)
    return np.asarray(colour - stain.background_density, dtype=np.float32)


def features(rays: Rays) -> NDArray[np.float32]:
    """float32 (N, A, REACH, F): what each place beyond the nucleus is judged by."""
    colour = rays.colour
    wide = _with_neighbours(colour)
    count = np.arange(1, REACH + 1, dtype=np.float32)
    plasma = colour[:, :, _MARGIN : _MARGIN + REACH]
    total = plasma.sum(axis=3)
    mean = np.cumsum(plasma, axis=2) / count[:, None]
    square = np.cumsum(total**2, axis=2) / count
    spread = np.sqrt(np.maximum(square - mean.sum(axis=3) ** 2, 0))
    outwards = wide[:, :, _MARGIN:].sum(axis=3)
    summed = np.cumsum(outwards, axis=2)
    stained = np.cumsum(outwards > rays.empty[:, None, None], axis=2, dtype=np.float32)
    index = np.arange(REACH, dtype=np.float32)
    edge = rays.edge.astype(np.float32)[..., None]
    left = rays.end[..., None] - edge - index
    parts = [
        source[:, :, _MARGIN + k : _MARGIN + k + REACH]
        for source, offsets in ((colour, _OFFSETS), (wide, _WIDE))
        for k in offsets
    ]
    single = [
        spread,
        np.minimum.accumulate(total, axis=2),
        (summed[:, :, 6 : 6 + REACH] - summed[:, :, :REACH]) / 6,
        (summed[:, :, 12 : 12 + REACH] - summed[:, :, 6 : 6 + REACH]) / 6,
        (stained[:, :, 6 : 6 + REACH] - stained[:, :, :REACH]) / 6,
        (stained[:, :, 12 : 12 + REACH] - stained[:, :, 6 : 6 + REACH]) / 6,
        stained[:, :, :REACH] / count,
        index * STEP_UM,
        edge * STEP_UM,
        (edge + index) * STEP_UM,
        rays.nucleus_um[:, None, None],
        left.clip(-6, 6),
        rays.empty[:, None, None],
    ]
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
    """The cheapest closed line around each middle, by dynamic programming.

    It goes one and a half times round, so that where it begins has no say.

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
    """float64 (N, A, 2): outlines through places (N, A), smoothed, (x, y) in pixels."""
    reach = lines - 0.5  # a line names the first place outside
    smooth = 0.25 * np.roll(reach, 1, axis=1) + 0.5 * reach + 0.25 * np.roll(reach, -1, axis=1)
    radii = np.maximum(smooth, 0.5)[..., None] * (STEP_UM / work_um)
    return np.asarray(rays.centres[:, None] + radii * directions())
