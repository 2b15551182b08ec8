"""Draw the pictures of docs/segmentation.md: what the default method gets right and wrong.

Run ``python benchmarks/segmentation_pictures.py --data ../shared/data --out docs/images``. Only
odd-numbered images of sets whose licence allows it are drawn; right and wrong ones are taken in an
order drawn at random once, so that nobody chose them. Prints what stands where.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import segmentation as sets
from millie.config import SegmentationConfig
from millie.segmentation import segment
from millie.types import Detection, PixelSize

Pixels = NDArray[np.uint8]
Judged = tuple[sets.Sample, Detection]
NUCLEUS, CELL, BOX = (255, 0, 0), (0, 200, 0), (0, 0, 255)
BCCD_UM_PX = 0.086
CROPS = {"pbc_cells": 300, "bone_marrow_cells": 0, "platelet": 0}
SIDE_PX = 170
FIELD_PX = 384
RIGHT, WRONG = 4, 3


def drawn(sample: sets.Sample, detection: Detection, side_px: int) -> Pixels:
    """The image, its longest side so many pixels, with outlines and boxes."""
    zoom = side_px / max(sample.image.shape[:2])
    how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    picture = cv2.resize(sample.image, None, fx=zoom, fy=zoom, interpolation=how)
    for region in detection.regions:
        corner = np.array([region.cell.left_px, region.cell.top_px])
        for mask, colour in ((region.cell_mask, CELL), (region.nucleus_mask, NUCLEUS)):
            contours, _ = cv2.findContours(
                mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )
            lines = [((line + corner) * zoom).astype(np.int32) for line in contours]
            cv2.polylines(picture, lines, True, colour, 1, cv2.LINE_AA)  # noqa: FBT003  OpenCV's
    for x0, y0, x1, y1 in sample.boxes:
        start, end = (round(x0 * zoom), round(y0 * zoom)), (round(x1 * zoom), round(y1 * zoom))
        cv2.rectangle(picture, start, end, BOX, 1)
    return np.asarray(picture, dtype=np.uint8)


def saved(rows: list[list[Pixels]], path: Path) -> None:
    """Rows of pictures as one JPEG, white between them."""
    height = max(p.shape[0] for row in rows for p in row) + 4
    width = max(p.shape[1] for row in rows for p in row) + 4
    sheet = np.full((height * len(rows), width * max(map(len, rows)), 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for k, picture in enumerate(row):
            top, left = i * height, k * width
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    cv2.imwrite(str(path), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    print(path, sheet.shape)


def fields(root: Path) -> list[list[Pixels]]:
    """Of BCCD, scale given: the right ones with most leukocytes, and wrong ones."""
    right, wrong = [], []
    for sample in sets.half(list(sets.bccd(root)), "odd"):
        found = segment(sample.image, PixelSize(BCCD_UM_PX), SegmentationConfig())
        counts = sets.match(found, sample.boxes)
        (wrong if counts[1:].any() else right).append((sample, found))
    right.sort(key=lambda judged: -len(judged[0].boxes))
    told("bccd", right, wrong)
    return [[drawn(*judged, FIELD_PX) for judged in row[:3]] for row in (right, wrong)]


def crops(root: Path, name: str, limit: int) -> list[Pixels]:
    """Of one set of crops, each alone: right ones, then wrong ones."""
    samples = sets.thinned(sets.half(list(sets.SETS[name](root)), "odd"), limit)
    right: list[Judged] = []
    wrong: list[Judged] = []
    for k in np.random.default_rng(2).permutation(len(samples)):
        sample = samples[k]
        found = segment(sample.image, None, SegmentationConfig())
        one = sets.exactly_one(found, sample.image.shape) == 1
        (right if one != (name == "platelet") else wrong).append((sample, found))
    told(name, right, wrong)
    return [drawn(*judged, SIDE_PX) for judged in right[:RIGHT] + wrong[:WRONG]]


def told(name: str, right: list[Judged], wrong: list[Judged]) -> None:
    """Print how many are right and what the wrong ones are."""
    print(name, len(right), "right", len(wrong), "wrong")
    for sample, found in wrong:
        seen = found.diagnostics
        print(
            f"  {sample.name} {sample.kind}: {len(found.regions)} cells, {seen['um_px']} um/px "
            f"({seen['scale_source']}) {seen.get('refused', '')}"
        )


def main() -> None:
    parser = sets.data_parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    saved(fields(arguments.data), arguments.out / "segmentation-fields.jpg")
    rows = [crops(arguments.data, name, limit) for name, limit in CROPS.items()]
    saved(rows, arguments.out / "segmentation-crops.jpg")


if __name__ == "__main__":
    main()
