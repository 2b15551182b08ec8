"""How surely copies of cells are known again, and whether other cells are ever taken for copies.

Single-cell crops or fields are changed as people change them (encoded again, resized, mirrored,
turned), segmented and cut like the originals, and compared. Pairs of different files that count as
one picture are drawn side by side for a person to look at.

    python benchmarks/copies.py FOLDER [--glob '*/*.jpg'] [--images 700] [--changed 60]
        [--fields] [--pairs pairs.png]
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from millie.bags.fingerprints import RADIUS, Fingerprint, fingerprint, same_picture
from millie.config import Config
from millie.errors import DataError
from millie.readers.images import read_image
from millie.segmentation import central_region, cut_crop, cut_mask, sample_statistics, segment
from millie.types import ImageSource

CROP_UM, CROP_PX = 25.0, 224
_SEED = 1

Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class CutCell:
    """A cell of a file, as it would enter a bag."""

    file: str
    crop: Image
    known_by: Fingerprint


def turned(image: Image, degrees: float) -> Image:
    """The image turned about its middle, edges continued."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    turned = cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(turned, dtype=np.uint8)


def encoded(image: Image) -> Image:
    """The image after JPEG of quality 40."""
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)


def resized(image: Image, factor: float) -> Image:
    """The image at another size."""
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    other = cv2.resize(image, None, fx=factor, fy=factor, interpolation=how)
    return np.asarray(other, dtype=np.uint8)


CHANGES: dict[str, Callable[[Image], Image]] = {
    "jpeg 40": encoded,
    "half size": lambda image: resized(image, 0.5),
    "1.3 times": lambda image: resized(image, 1.3),
    "quarter turn": lambda image: np.ascontiguousarray(np.rot90(image)),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "turned 37 degrees": lambda image: turned(image, 37),
    "turned 6 degrees": lambda image: turned(image, 6),
}


def cells_of(images: dict[str, Image], *, fields: bool) -> Iterator[CutCell]:
    """Cells of images of one sample; of a single-cell crop the central one."""
    config = Config().segmentation
    sample = sample_statistics(((image, None) for image in list(images.values())[:16]), config)
    for name, image in images.items():
        found = segment(image, None, config, sample)
        central = central_region(found, image.shape[:2])
        regions = found.regions if fields else filter(None, [central])
        if found.pixel_size is None and fields:
            continue
        whole_px = float(max(image.shape[:2]))
        side_px = found.pixel_size.to_px(CROP_UM) if found.pixel_size else whole_px
        for region in regions:
            centre = region.cell.x_px, region.cell.y_px
            crop = cut_crop(image, centre, side_px, CROP_PX, found.background_rgb)
            mask = cut_mask(region, image.shape[:2], centre, side_px, CROP_PX)
            yield CutCell(name, crop, fingerprint(crop, mask))


def rings(cells: list[CutCell]) -> NDArray[np.float32]:
    """Colours of all cells, (n, 30)."""
    return np.stack([cell.known_by.rings for cell in cells]).astype(np.float32)


def known_again(cell: CutCell, originals: list[CutCell], near: list[int]) -> bool:
    """Whether a changed cell counts as one of the same file's."""
    own = (originals[i] for i in near if originals[i].file == cell.file)
    return any(same_picture(one.known_by.picture, cell.known_by.picture) for one in own)


def main() -> None:
    """Print shares of copies found, and draw the pairs of different files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--glob", default="**/*.*")
    parser.add_argument("--images", type=int, default=700)
    parser.add_argument("--changed", type=int, default=60)
    parser.add_argument("--fields", action="store_true")
    parser.add_argument("--pairs", type=Path, default=Path("pairs.png"))
    wanted = parser.parse_args()
    files = sorted(path for path in wanted.folder.glob(wanted.glob) if path.is_file())
    order = np.random.default_rng(_SEED).permutation(len(files))[: wanted.images]
    images: dict[str, Image] = {}
    for path in (files[i] for i in sorted(order.tolist())):
        with suppress(DataError):  # some sets hold damaged files
            images[str(path)] = read_image(ImageSource(path, str(path)), Config().reading).image
    originals = list(cells_of(images, fields=wanted.fields))
    tree = cKDTree(rings(originals))
    few = list(images)[:: max(1, len(images) // wanted.changed)]
    for name, change in CHANGES.items():
        copies = list(cells_of({f: change(images[f]) for f in few}, fields=wanted.fields))
        near = tree.query_ball_point(rings(copies), RADIUS)
        found = Counter(known_again(c, originals, n) for c, n in zip(copies, near, strict=True))
        print(f"{name:18} {found[True]:4} of {len(copies):4}", flush=True)
    pairs = [
        (originals[i], originals[j])
        for i, j in sorted(tree.query_pairs(RADIUS))
        if same_picture(originals[i].known_by.picture, originals[j].known_by.picture)
    ]
    print(f"{len(originals)} cells, {len(pairs)} pairs of them count as one picture")
    for one, other in pairs:
        print(f"  {one.file}  {other.file}")
    if pairs:
        sheet = np.concatenate([np.concatenate([a.crop, b.crop], axis=1) for a, b in pairs])
        cv2.imwrite(str(wanted.pairs), sheet[..., ::-1])


if __name__ == "__main__":
    main()
