"""Cells whose outline is known without anybody's drawing it, and films made of them.

A leukocyte that lies alone on the background shows its outline in any stain: the edge of what is
stained. Such cells are cut from real images, red cells likewise, and put together again so that
they touch, in other light, stain, sharpness, compression and scale, with paler or denser cytoplasm.
The outlines drawn in ``wbc_masks`` join them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import segmentation as sets
from changes import jpeg
from millie.config import SegmentationConfig
from millie.segmentation.contours import Nucleus
from millie.segmentation.nuclei import find_nuclei
from millie.segmentation.stain import StainMap, stain_map
from train_lobes import Look

WORK_UM = SegmentationConfig().working_um_px
CELLS = ("pbc_cells", "bone_marrow_cells", "bccd", "all_idb1")
RED_CELLS = {"pbc_cells": 500, "bccd": 180, "all_idb1": 24, "bone_marrow_cells": 175}
MOST_RED_CELLS = 400  # of a set
AROUND_UM = 12.0  # of a cell that is cut out
BODY_UM2 = (35.0, 400.0)
NUCLEUS_UM2 = 15.0
ROUND, CONVEX = 0.78, 0.95  # of the enclosing circle, of the hull
RED_CELL_UM2 = (18.0, 70.0)
OTHERS_UM2 = 18.0  # nuclei that are taken for leukocytes' beside the one in question
LOG_SCALE = 0.18  # spread of scales
FARTHEST_PX, NEAREST_PX = 60, 4  # between the middles of things that touch


@dataclass(frozen=True)
class Known:
    """One leukocyte and its outline.

    Attributes:
        source: name of the set.
        image: uint8 RGB (H, W, 3).
        body: bool (H, W), nucleus and cytoplasm.
        um_px: of the image.
    """

    source: str
    image: sets.Pixels
    body: NDArray[np.bool_]
    um_px: float

    def at(self, zoom: float = 1.0) -> Film:
        """The cell at the working resolution, so many times larger."""
        factor = self.um_px / WORK_UM * zoom
        body = shrunk(self.body.astype(np.uint8) * np.uint8(255), factor) > 127
        return Film(shrunk(self.image, factor), body)


@dataclass(frozen=True)
class Film:
    """A picture at the working resolution with a leukocyte whose outline is known."""

    image: sets.Pixels
    body: NDArray[np.bool_]


@dataclass(frozen=True)
class Thing:
    """What is put beside a leukocyte, at the working resolution.

    Attributes:
        source: name of the set.
        density: float32 (H, W, 3), optical density over the background, 0 outside.
        mask: bool (H, W).
        cut: direction (x, y) in which the picture that it is from ends, or (0, 0).
    """

    source: str
    density: NDArray[np.float32]
    mask: NDArray[np.bool_]
    cut: tuple[float, float] = (0.0, 0.0)


def density_of(stain: StainMap) -> NDArray[np.float32]:
    """float32 (H, W, 3): optical density over the background's."""
    return np.asarray(stain.channels - stain.background_density, dtype=np.float32)


def shrunk(image: sets.Pixels, factor: float) -> sets.Pixels:
    small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8)


def known_cells(root: Path, part: int) -> list[Known]:
    """Leukocytes with a known outline in even (0) or odd (1) images."""
    found = []
    for name in CELLS:
        for sample in list(sets.SETS[name](root))[part::2]:
            um_px = sets.given(name, sample).um_px
            for body in lone_bodies(sample.image, um_px):
                part_of = _around(body, round(AROUND_UM / um_px))
                found.append(Known(name, sample.image[part_of].copy(), body[part_of].copy(), um_px))
    for sample in list(sets.wbc_masks(root))[part::2]:
        if sample.truth is not None:
            um_px = sets.given("wbc_masks", sample).um_px
            found.append(Known("wbc_masks", sample.image, sample.truth > 60, um_px))
    return found


def lone_bodies(image: sets.Pixels, um_px: float) -> Iterator[NDArray[np.bool_]]:
    """Masks (H, W) of leukocytes that lie alone on the background and are round."""
    work = shrunk(image, um_px / WORK_UM)
    stain = stain_map(work)
    if stain.refusal:
        return
    labels = find_nuclei(stain, WORK_UM).labels
    stained = ((stain.density > stain.empty_below) | (labels > 0)).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    opened = cv2.morphologyEx(stained, cv2.MORPH_OPEN, disc)
    outer, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for contour in outer:
        x, y, width, height = cv2.boundingRect(contour)
        inner = x > 0 and y > 0 and x + width < work.shape[1] and y + height < work.shape[0]
        if not (inner and _is_round(contour)):
            continue
        body = np.zeros(labels.shape, np.uint8)
        cv2.drawContours(body, [contour], -1, 1, cv2.FILLED)
        held = np.bincount(labels[body > 0])
        nuclei, pixels = np.flatnonzero(held[1:]) + 1, int(held[1:].sum())
        if len(nuclei) == 1 and NUCLEUS_UM2 < pixels * WORK_UM**2 < 0.97 * body.sum() * WORK_UM**2:
            yield cv2.resize(body, image.shape[1::-1], interpolation=cv2.INTER_LINEAR) > 0


def _is_round(contour: NDArray) -> bool:
    area = cv2.contourArea(contour)
    _, radius = cv2.minEnclosingCircle(contour)
    hull = cv2.contourArea(cv2.convexHull(contour))
    size = BODY_UM2[0] < area * WORK_UM**2 < BODY_UM2[1]
    return size and area > ROUND * np.pi * radius**2 and area > CONVEX * hull


def _around(mask: NDArray[np.bool_], margin: int) -> tuple[slice, slice]:
    rows, columns = np.nonzero(mask)
    return (
        slice(max(int(rows.min()) - margin, 0), int(rows.max()) + margin + 1),
        slice(max(int(columns.min()) - margin, 0), int(columns.max()) + margin + 1),
    )


def red_cells(root: Path, part: int) -> list[Thing]:
    """Single red cells of even (0) or odd (1) images; in crops the edge may have cut them."""
    found = []
    for name, limit in RED_CELLS.items():
        of_set: list[Thing] = []
        for sample in sets.thinned(list(sets.SETS[name](root))[part::2], limit // 2):
            factor = sets.given(name, sample).um_px / WORK_UM
            of_set += _red_cells(name, shrunk(sample.image, factor))
        found += of_set[:MOST_RED_CELLS]
    return found


def _red_cells(name: str, work: sets.Pixels) -> Iterator[Thing]:
    stain = stain_map(work)
    if stain.refusal or stain.red_cell_density == 0:
        return
    density = density_of(stain)
    red = ((stain.density > 0.4 * stain.red_cell_density) & (stain.kinds != 0)).astype(np.uint8)
    red = np.asarray(cv2.morphologyEx(red, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)))
    n, labels, stats, _ = cv2.connectedComponentsWithStats(red, connectivity=4)
    for k in range(1, n):
        x, y, width, height, area = stats[k].tolist()
        window = np.s_[y : y + height, x : x + width]
        nuclear = int((stain.kinds[window] == 0).sum())
        if not RED_CELL_UM2[0] < area * WORK_UM**2 < RED_CELL_UM2[1] or nuclear > 3:
            continue
        own = np.pad((labels[window] == k).astype(np.uint8), 2)
        own = np.asarray(cv2.morphologyEx(own, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)))
        outer, _ = cv2.findContours(own, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        largest = max(outer, key=cv2.contourArea)
        if cv2.contourArea(largest) < 0.9 * cv2.contourArea(cv2.convexHull(largest)):
            continue
        cv2.drawContours(own, [largest], -1, 1, cv2.FILLED)  # the pale middle is part of it
        colour = np.pad(density[window], ((2, 2), (2, 2), (0, 0)), mode="edge") * own[..., None]
        cut = (
            float((x + width == red.shape[1]) - (x == 0)),
            float((y + height == red.shape[0]) - (y == 0)),
        )
        yield Thing(name, colour, own > 0, cut)


def leukocyte_thing(known: Known) -> Thing:
    """A leukocyte as what is put beside another."""
    plain = known.at()
    density = density_of(stain_map(plain.image)) * plain.body[..., None]
    part = _around(plain.body, 1)
    return Thing(known.source, density[part].copy(), plain.body[part].copy())


def film(
    known: Known, things: list[Thing], leukocytes: list[Thing], rng: np.random.Generator
) -> Film:
    """The cell in another film: things that touch it, another stain, camera and scale."""
    look = replace(Look.drawn(rng), log_scale=float(rng.normal(0, LOG_SCALE)))
    plain = known.at(float(np.exp(look.log_scale)))
    body, stain = plain.body, stain_map(plain.image)
    density = density_of(stain)
    light = np.exp(-stain.background_density) * 256 - 1
    if rng.random() < 0.4:
        density = _with_other_cytoplasm(density, body, stain, float(np.exp(rng.uniform(-1, 0.3))))
    for thing in _company(known, things, leukocytes, rng, float(density[body].sum(axis=1).mean())):
        _place(density, body, thing, rng)
    if rng.random() < 0.6:
        mixing = np.diag(np.exp(rng.normal(0, 0.12, 3)))
        mixing += rng.normal(0, 0.05, (3, 3)) * (1 - np.eye(3))
        density = (density @ mixing.T).astype(np.float32)
        light = light * np.exp(rng.normal(0, 0.05, 3))
    image = np.clip(light * np.exp(-density * look.stain), 0, 255)
    image[~stain.valid] = 0
    pixels = image.astype(np.uint8)
    if look.quality < 100:
        pixels = jpeg(look.quality)(pixels)
    pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), look.blur), dtype=np.uint8)
    pixels[~stain.valid] = 0
    return Film(pixels, body)


def _with_other_cytoplasm(
    density: NDArray[np.float32], body: NDArray[np.bool_], stain: StainMap, gain: float
) -> NDArray[np.float32]:
    nucleus = stain.score > 0.5 * np.quantile(stain.score[body], 0.95)
    wide = cv2.dilate(nucleus.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    plasma = cv2.GaussianBlur((body & ~wide).astype(np.float32), (3, 3), 0)[..., None]
    return np.asarray(density * (1 - plasma) + density * plasma * np.float32(gain))


def _company(
    known: Known,
    things: list[Thing],
    leukocytes: list[Thing],
    rng: np.random.Generator,
    density: float,
) -> Iterator[Thing]:
    """Up to six red cells of one film, and sometimes another leukocyte."""
    own = [t for t in things if t.source == known.source]
    pool = own if own and rng.random() < 0.7 else things
    film_of = pool[rng.integers(len(pool))].source
    pool = [t for t in pool if t.source == film_of]
    gain = np.ones(3)
    if film_of != known.source:
        gain = np.exp(rng.normal(0, 0.15, 3)) * density / 1.6
    for _ in range(rng.integers(0, 7)):
        thing = pool[rng.integers(len(pool))]
        strength = (gain * rng.uniform(0.8, 1.2)).astype(np.float32)
        yield replace(thing, density=thing.density * strength)
    if rng.random() < 0.15:
        yield leukocytes[rng.integers(len(leukocytes))]


def _place(
    density: NDArray[np.float32], body: NDArray[np.bool_], thing: Thing, rng: np.random.Generator
) -> None:
    """Push a thing towards the cell until it overlaps it as wanted; it lies under or over it."""
    angle = rng.uniform(0, 2 * np.pi)
    turn = rng.uniform(0, 360)
    if any(thing.cut):  # what the edge of the picture cut off looks away from the cell
        turn = np.degrees(np.arctan2(thing.cut[1], thing.cut[0]) - angle) + rng.normal(0, 20)
    colour, mask = _turned(thing, turn)
    side = mask.shape[0]
    rows, columns = np.nonzero(body)
    middle = np.array([columns.mean(), rows.mean()])
    most = rng.choice([0, 0.02, 0.08, 0.2]) * np.count_nonzero(mask)
    for distance in range(FARTHEST_PX, NEAREST_PX, -1):
        corner = middle + distance * np.array([np.cos(angle), np.sin(angle)]) - side / 2
        x, y = np.rint(corner).astype(int).tolist()
        low, high = (max(y, 0), max(x, 0)), (min(y + side, len(body)), min(x + side, body.shape[1]))
        if high[0] <= low[0] or high[1] <= low[1]:
            continue
        there = np.s_[low[0] : high[0], low[1] : high[1]]
        here = np.s_[low[0] - y : high[0] - y, low[1] - x : high[1] - x]
        if np.count_nonzero(mask[here] & body[there]) > most:
            break
    else:
        return
    soft = cv2.GaussianBlur(mask[here].astype(np.float32), (3, 3), 0)[..., None]
    inside = cv2.GaussianBlur(body[there].astype(np.float32), (3, 3), 0)[..., None]
    added = colour[here] * soft
    seen_through = np.float32(rng.choice([0, 0, 0.5, 0.9]))
    covered = density[there] + seen_through * added
    density[there] = inside * covered + (1 - inside) * np.maximum(density[there], added)


def _turned(thing: Thing, degrees: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    height, width = thing.mask.shape
    side = int(np.hypot(height, width)) + 3
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    turn[:, 2] += (side - width) / 2, (side - height) / 2
    colour = cv2.warpAffine(thing.density, turn, (side, side))
    mask = cv2.warpAffine(thing.mask.astype(np.uint8), turn, (side, side)) > 0
    return np.asarray(colour, dtype=np.float32), mask


def nuclei_of(made: Film, stain: StainMap) -> list[Nucleus]:
    """Nuclei of a film, that of the known cell first; none if it is not found as one nucleus."""
    found = find_nuclei(stain, WORK_UM)
    if not len(found.areas_px):
        return []
    inside = np.bincount(found.labels[made.body], minlength=len(found.areas_px) + 1)
    inside[0] = 0
    own = int(inside.argmax())
    pixels = int(inside[own])
    if pixels * WORK_UM**2 < NUCLEUS_UM2 or pixels < 0.85 * found.areas_px[own - 1]:
        return []
    others = np.flatnonzero(found.areas_px * WORK_UM**2 >= OTHERS_UM2) + 1
    nuclei = []
    for label in [own, *(k for k in others.tolist() if k != own)]:
        top, bottom, left, right = found.edges[label - 1].tolist()
        window = slice(top, bottom), slice(left, right)
        nuclei.append(Nucleus(window, found.labels[window] == label))
    return nuclei
