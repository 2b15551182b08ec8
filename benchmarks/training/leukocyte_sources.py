"""Pictures that teach where leukocytes are, each with what is known about it: no drawing by hand.

Owns the sources: boxes of ``bccd`` and ``fields_other``, masks of ``wbc_masks`` and ``bcisc``,
marks of ``all_idb1``, and single-cell crops, in whose middle lies one cell. Where only a place is
known, the outline is that of the teacher, a segmentation that is right there; what is not known is
left out of the loss. Labels of cells in ``apl_aml`` are not read. Each picture is kept at
0.25 um/px.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from millie.config import SegmentationConfig
from millie.segmentation import segment
from millie.types import CellRegion, PixelSize
from segmentation import Box, Pixels, Sample, bccd, fields_other, read

KEPT_UM_PX = 0.25
NO_CENTRE, NO_NUCLEUS, NO_CELL, NO_RED = 1, 2, 4, 8  # bits of ``unknown``
NOTHING_KNOWN = NO_CENTRE | NO_NUCLEUS | NO_CELL | NO_RED
TEACHER = SegmentationConfig()
SMUDGES = {
    "Im001_1": ((296, 118), (843, 330), (1669, 531), (536, 1048), (1124, 1086), (894, 1296)),
    "Im016_1": ((25, 76), (1564, 425), (1265, 718), (333, 760), (829, 1005)),
    "Im030_1": ((207, 1306),),
    "Im053_1": (
        (280, 98), (1404, 462), (2477, 1116), (1256, 1438), (1141, 1422), (568, 1543), (258, 1880),
    ),
    "Im059_1": (
        (2098, 47), (1848, 388), (2438, 534), (1069, 590), (906, 1242), (710, 1684), (1667, 1784),
        (80, 1807),
    ),
}  # fmt: skip
"""Marked by eye in five fields of ``all_idb1``, pixels."""
SMUDGE_UM = 4.0  # a mark is meant for what has its middle so near


@dataclass
class Picture:
    """One image and its truth, all maps (H, W) at ``um_px``.

    Attributes:
        source: set that it is from; a whole set is left out at a time.
        image: uint8 RGB (H, W, 3).
        cells: number of the leukocyte at each pixel, 0: none.
        nuclei: 1 in a leukocyte's nucleus.
        things: 1 in a red cell, 2 in a platelet, 3 in a smudged leukocyte.
        unknown: bits of what is not known at a pixel.
        um_px: scale of all.
        scale_known: whether that scale is more than a guess.
    """

    source: str
    image: Pixels
    cells: Pixels
    nuclei: Pixels
    things: Pixels
    unknown: Pixels
    um_px: float
    scale_known: bool


def blank(source: str, image: Pixels, um_px: float, *, scale_known: bool = True) -> Picture:
    """A picture in which nothing lies; red cells are unknown until drawn."""
    zeros = [np.zeros(image.shape[:2], np.uint8) for _ in range(4)]
    zeros[3] |= NO_RED
    return Picture(source, image, *zeros, um_px=um_px, scale_known=scale_known)


def taught(image: Pixels, um_px: float) -> list[CellRegion]:
    """What the teacher finds."""
    return list(segment(image, PixelSize(um_px), TEACHER).regions)


def _window(region: CellRegion) -> tuple[slice, slice]:
    c = region.cell
    return slice(c.top_px, c.top_px + c.height_px), slice(c.left_px, c.left_px + c.width_px)


def add_region(picture: Picture, region: CellRegion) -> None:
    """A leukocyte with both outlines."""
    w = _window(region)
    h, width = picture.cells[w].shape
    mask = region.cell_mask[:h, :width]
    picture.cells[w][mask] = picture.cells.max() + 1
    picture.nuclei[w][region.nucleus_mask[:h, :width]] = 1


def ignore_region(picture: Picture, region: CellRegion) -> None:
    """Something that may be a leukocyte: neither right nor wrong."""
    mask = np.zeros(picture.cells.shape, np.uint8)
    w = _window(region)
    h, width = mask[w].shape
    mask[w] = region.cell_mask[:h, :width]
    wide = round(1.5 / picture.um_px) * 2 + 1
    mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (wide, wide)))
    picture.unknown[(mask > 0) & (picture.cells == 0)] = NOTHING_KNOWN


def ellipse(shape: tuple[int, ...], box: Box, share: float = 1.0) -> NDArray[np.bool_]:
    """The ellipse in a box, shrunk to a share of its axes."""
    x0, y0, x1, y1 = box
    mask = np.zeros(shape[:2], np.uint8)
    axes = (max(1, round((x1 - x0) / 2 * share)), max(1, round((y1 - y0) / 2 * share)))
    cv2.ellipse(mask, (round((x0 + x1) / 2), round((y0 + y1) / 2)), axes, 0, 0, 360, 1, -1)
    return mask > 0


def overlap(region: CellRegion, box: Box) -> float:
    """Intersection over union of the box around a region with a drawn one."""
    c = region.cell
    sides = [
        min(c.left_px + c.width_px, box[2]) - max(c.left_px, box[0]),
        min(c.top_px + c.height_px, box[3]) - max(c.top_px, box[1]),
    ]
    both = max(sides[0], 0.0) * max(sides[1], 0.0)
    return both / (c.width_px * c.height_px + (box[2] - box[0]) * (box[3] - box[1]) - both)


def add_box(picture: Picture, box: Box, regions: list[CellRegion]) -> None:
    """A leukocyte of which a box is known: the teacher's outline where it fills that box."""
    here = [
        r for r in regions if box[0] <= r.cell.x_px <= box[2] and box[1] <= r.cell.y_px <= box[3]
    ]
    if len(here) == 1 and overlap(here[0], box) > 0.6:
        add_region(picture, here[0])
        return
    x0, y0, x1, y1 = (max(0, round(v)) for v in box)
    picture.unknown[y0:y1, x0:x1] |= NO_NUCLEUS | NO_CELL
    picture.cells[ellipse(picture.cells.shape, box, 0.8)] = picture.cells.max() + 1


def boxed(
    source: str, samples: Callable[[Path], Iterator[Sample]], um_px: float
) -> Callable[[Path], Iterator[Picture]]:
    """Fields in which every leukocyte, most red cells and platelets have a box; all MIT.

    Each at the scale of its own red cells, because a phone's zoom differs, or at the usual one.
    """

    def pictures(root: Path) -> Iterator[Picture]:
        for sample in samples(root):
            own = sample.own_um_px() or um_px
            yield of_boxes(source, sample, float(np.clip(own, 0.75 * um_px, 1.33 * um_px)))

    return pictures


def of_boxes(source: str, sample: Sample, um_px: float) -> Picture:
    """A field by its boxes."""
    picture = blank(source, sample.image, um_px)
    for thing, boxes in ((1, sample.red_cells), (2, sample.platelets)):
        for box in boxes:
            picture.things[ellipse(sample.image.shape, box, 0.95)] = thing
    regions = taught(sample.image, um_px)
    for box in sample.boxes:
        add_box(picture, box, regions)
    picture.things[picture.cells > 0] = 0
    picture.unknown[(picture.things > 0) | (picture.cells > 0)] &= ~np.uint8(NO_RED)
    sizes = [(right - left) * (bottom - top) for left, top, right, bottom in sample.red_cells]
    usual = float(np.median(sizes)) if sizes else 0.0
    for region in regions:  # without a box, most often at the border, or with a wrong one
        w = _window(region)
        red = (picture.things[w] == 1).mean() > 0.3
        if not picture.cells[w].any() and (not red or region.cell.area_px > 1.6 * usual):
            ignore_region(picture, region)
    return picture


def wbc_masks(root: Path) -> Iterator[Picture]:
    """Pixel truth; one microscope, whose nuclei have a median of 8 um across."""
    for path in sorted((root / "wbc_masks" / "Dataset 1").glob("*.bmp")):
        image, truth = read(path), read(path.with_suffix(".png"))
        if image is None or truth is None:
            continue
        drawn = truth[:, :, 0]
        size = np.sqrt(4 * (drawn > 200).sum() / np.pi)
        um_px = float(np.clip(8 / size, 0.12, 0.22))
        picture = blank("wbc_masks", image, um_px, scale_known=False)
        count, parts = cv2.connectedComponents((drawn > 60).astype(np.uint8))
        for part in range(1, count):
            mask = parts == part
            if (drawn[mask] > 200).sum() * um_px**2 > 8:
                picture.cells[mask] = picture.cells.max() + 1
        picture.nuclei[drawn > 200] = 1
        edge = np.ones(drawn.shape, np.uint8)
        edge[6:-6, 6:-6] = 0
        picture.unknown[(edge > 0) & (picture.cells == 0)] |= NO_CENTRE | NO_NUCLEUS | NO_CELL
        for region in taught(image, um_px):
            if not picture.cells[_window(region)].any():
                ignore_region(picture, region)
        yield picture


def all_idb1(root: Path) -> Iterator[Picture]:
    """Blasts are marked; in a healthy field all that the teacher finds is leukocytes."""
    for path in sorted((root / "all_idb1" / "im").glob("*.jpg")):
        image = read(path)
        if image is None:
            continue
        um_px = 0.088 if image.shape[1] > 2000 else 0.110
        picture = blank("all_idb1", image, um_px)
        text = (root / "all_idb1" / "xyc" / f"{path.stem}.xyc").read_text()
        marks = [tuple(map(float, t.split()[:2])) for t in text.splitlines() if t.strip()]
        marks = [m for m in marks if path.stem.endswith("1")]
        regions = taught(image, um_px)
        for region in regions:
            c = region.cell
            if any(
                np.hypot(c.x_px - x, c.y_px - y) * um_px < SMUDGE_UM
                for x, y in SMUDGES.get(path.stem, ())
            ):
                add_region(picture, region)
                picture.things[picture.cells == picture.cells.max()] = 3
            elif path.stem.endswith("0") or any(
                c.left_px <= x <= c.left_px + c.width_px and c.top_px <= y <= c.top_px + c.height_px
                for x, y in marks
            ):
                add_region(picture, region)
            else:
                ignore_region(picture, region)
        for x, y in marks:
            if not picture.cells[min(int(y), len(image) - 1), min(int(x), image.shape[1] - 1)]:
                r = 5.5 / um_px
                add_box(picture, (x - r, y - r, x + r, y + r), [])
        yield picture


def central(source: str, image: Pixels, um_px: float, *, crowded: bool = False) -> Picture | None:
    """A single-cell crop, if the teacher finds exactly one cell in its middle third."""
    h, w = image.shape[:2]
    regions = taught(image, um_px)
    middle = [
        r for r in regions if abs(r.cell.x_px - w / 2) < w / 6 and abs(r.cell.y_px - h / 2) < h / 6
    ]
    if len(middle) != 1:
        return None
    picture = blank(source, image, um_px)
    add_region(picture, middle[0])
    for region in regions:
        if region is not middle[0]:
            ignore_region(picture, region)
    if crowded:  # in marrow, what the teacher leaves out is often a leukocyte too
        wide = round(2.0 / um_px) * 2 + 1
        ring = cv2.dilate(picture.cells, np.ones((wide, wide), np.uint8)) == 0
        picture.unknown[ring] = NOTHING_KNOWN
    return picture


def crops(
    source: str, pattern: str, um_px: float, most: int, *, crowded: bool = False
) -> Callable[[Path], Iterator[Picture]]:
    """Even-numbered single-cell crops, about so many, spread over the list of files."""

    def pictures(root: Path) -> Iterator[Picture]:
        paths = sorted(root.glob(pattern))[::2]
        for path in paths[:: max(1, len(paths) // most)]:
            image = read(path)
            if image is None or max(image.shape) > 600:
                continue
            picture = central(source, image, um_px, crowded=crowded)
            if picture is not None:
                yield picture

    return pictures


def platelets(root: Path) -> Iterator[Picture]:
    """Crops of platelets: no leukocyte in the middle."""
    for path in sorted((root / "pbc_cells" / "platelet").glob("*.jpg")):
        image = read(path)
        if image is None:
            continue
        picture = blank("pbc_cells", image, 0.105)
        h, w = image.shape[:2]
        r = 1.3 / 0.105
        picture.things[ellipse(image.shape, (w / 2 - r, h / 2 - r, w / 2 + r, h / 2 + r))] = 2
        picture.unknown[picture.things > 0] = 0
        for region in taught(image, 0.105):
            if abs(region.cell.x_px - w / 2) > w / 6 or abs(region.cell.y_px - h / 2) > h / 6:
                ignore_region(picture, region)
        yield picture


def without_spot(image: Pixels) -> Pixels:
    """The image without the bright spot that this camera puts beside every leukocyte."""
    small = cv2.GaussianBlur(image, (0, 0), 12).astype(np.int16)
    typical = np.median(small.reshape(-1, 3), axis=0)
    spot = ((small - typical).max(axis=2) > 35).astype(np.uint8)
    spot = cv2.dilate(spot, np.ones((41, 41), np.uint8))
    painted = image.copy()
    painted[spot > 0] = typical
    return painted


def bcisc(root: Path) -> Iterator[Picture]:
    """Apache-2.0; masks of fields in grey: what is bright is the cell."""
    for path in sorted((root / "bcisc" / "fields").glob("*/*.jpg")):
        image = read(path)
        if image is None:
            continue
        image = without_spot(image)
        picture = blank("bcisc", image, 0.064)
        regions = taught(image, 0.064)
        masks = [
            m
            for m in path.parent.glob(f"{path.stem}*.png")
            if m.stem[len(path.stem) :][:1] in ("", "(")
        ]
        whole = np.zeros(image.shape[:2], bool)
        for mask in masks:
            drawn = read(mask)
            if drawn is not None and drawn.shape[:2] == whole.shape:
                whole |= drawn[:, :, 0] > 127
        for region in regions:
            share = whole[_window(region)][region.cell_mask].mean() if whole.any() else 0.0
            (add_region if share > 0.6 else ignore_region)(picture, region)
        if picture.cells.any():
            yield picture


def shrunk(picture: Picture) -> Picture:
    """The same at the kept resolution."""
    factor = picture.um_px / KEPT_UM_PX
    if factor >= 1:
        return picture
    h, w = (max(8, round(s * factor)) for s in picture.cells.shape)
    maps = [
        cv2.resize(m, (w, h), interpolation=cv2.INTER_NEAREST)
        for m in (picture.cells, picture.nuclei, picture.things, picture.unknown)
    ]
    image = cv2.resize(picture.image, (w, h), interpolation=cv2.INTER_AREA)
    return Picture(
        picture.source, np.asarray(image, np.uint8), *[np.asarray(m, np.uint8) for m in maps],
        um_px=picture.um_px * picture.image.shape[1] / w, scale_known=picture.scale_known,
    )  # fmt: skip


SOURCES: dict[str, Callable[[Path], Iterator[Picture]]] = {
    "bccd": boxed("bccd", bccd, 0.075),
    "raabin_575": boxed("raabin_575", fields_other("raabin_575"), 0.0575),
    "bccd_like_416": boxed("bccd_like_416", fields_other("bccd_like_416"), 0.096),
    "draaslan_256": boxed("draaslan_256", fields_other("draaslan_256"), 0.147),
    "wbc_masks": wbc_masks,
    "all_idb1": all_idb1,
    "all_idb2": crops("all_idb2", "all_idb2/img/*.tif", 0.1, 60),
    "pbc_cells": crops("pbc_cells", "pbc_cells/[!p]*/*.jpg", 0.105, 900),
    "platelets": platelets,
    "bone_marrow_cells": crops(
        "bone_marrow_cells", "bone_marrow_cells/*/*", 0.105, 175, crowded=True
    ),
    "apl_aml": crops("apl_aml", "apl_aml/All/**/Signed slides/*/*.jpg", 0.1, 500),
    "lmu_cells": crops("lmu_cells", "lmu_cells/*/*", 0.07, 230),
    "bcisc": bcisc,
}


def write(root: Path, cache: Path, names: list[str]) -> None:
    """Store the pictures of some sources, one file each source."""
    cache.mkdir(parents=True, exist_ok=True)
    import leukocyte_drawn as drawn  # noqa: PLC0415  it imports this module

    sources = SOURCES | {
        "synthetic": drawn.synthetic,
        "discs": drawn.discs,
        "nothing": drawn.nothing,
    }
    for name in names or sources:
        pictures = [shrunk(p) for p in sources[name](root)]
        packed = np.empty(len(pictures), object)
        packed[:] = [vars(p) for p in pictures]
        np.save(cache / f"{name}.npy", packed, allow_pickle=True)
        print(name, len(pictures), sum(int(p.cells.max(initial=0)) for p in pictures), flush=True)


HALVED = {
    "bccd", "raabin_575", "bccd_like_416", "draaslan_256", "wbc_masks", "all_idb1", "platelets",
}  # fmt: skip
"""Stored whole; of the crops only even-numbered files are stored."""


def load(cache: Path, leave_out: set[str], part: str = "all") -> list[Picture]:
    """The stored pictures of all sources but some; of part ``even``, the odd ones are a test."""
    found = []
    for path in sorted(cache.glob("*.npy")):
        pictures = [Picture(**values) for values in np.load(path, allow_pickle=True)]
        if part == "even" and path.stem in HALVED:
            pictures = pictures[::2]
        pictures = [p for p in pictures if p.source not in leave_out]
        if (
            path.stem == "platelets"
        ):  # few beside the leukocytes of their source: a share of their own
            pictures = [replace(p, source="platelets") for p in pictures]
        found += pictures
    return found


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
