"""Look at what the segmentation gets wrong: the worst ten images of each source.

``python benchmarks/worst_images.py --data ../shared/data --out SHEETS`` writes ``SOURCE.png``:
boxes drawn green, found cells red, nuclei yellow, and under each image what is wrong. With
``--left-out`` each source is judged by the network that never saw it (``training/leave_out.py``
writes them).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from millie.config import SegmentationConfig
from millie.segmentation.leukocytes import segment_with
from millie.segmentation.network import shipped
from millie.types import Detection
from segmentation import (
    FOLDS,
    SETS,
    Method,
    Pixels,
    Sample,
    data_parser,
    dice,
    exactly_one,
    given,
    half,
    match,
    stored,
    thinned,
)

WORST = 10
SIDE_PX = 420
OF_A_SOURCE = 300  # images looked at, about


def errors(name: str, sample: Sample, found: Detection) -> tuple[float, str]:
    """How wrong an image is, and in what."""
    if sample.truth is not None:
        overlaps = dice(found, sample.truth, 200), dice(found, sample.truth, 60)
        return 2 - sum(overlaps), "Dice nucleus {:.2f}, cell {:.2f}".format(*overlaps)
    if sample.boxes or sample.red_cells or name == "all_idb1":
        _, false, missed = match(found, sample.boxes)
        told = 0 if name == "all_idb1" and sample.kind == "1" else false  # only blasts have a mark
        return told + missed, f"{false:.0f} false, {missed:.0f} missed"
    if name == "platelet":
        return exactly_one(found, sample.image.shape), "platelet taken"
    return 1 - exactly_one(found, sample.image.shape), f"{len(found.regions)} cells found"


def drawn(sample: Sample, found: Detection, text: str) -> Pixels:
    """The image with its truth and what was found, a square tile."""
    image = sample.image.copy()
    thick = max(1, round(max(image.shape) / SIDE_PX))
    for left, top, right, bottom in sample.boxes:
        corners = (round(left), round(top)), (round(right), round(bottom))
        cv2.rectangle(image, *corners, (0, 150, 0), 2 * thick)
    for region in found.regions:
        place = region.cell.left_px, region.cell.top_px
        for mask, colour in ((region.cell_mask, (255, 0, 0)), (region.nucleus_mask, (255, 220, 0))):
            lines, _ = cv2.findContours(
                mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=place
            )
            cv2.drawContours(image, lines, -1, colour, thick)
    factor = SIDE_PX / max(image.shape[:2])
    small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    tile = np.full((SIDE_PX + 24, SIDE_PX + 4, 3), 255, np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small
    words = f"{sample.name[-30:]}: {text}"
    cv2.putText(tile, words, (4, SIDE_PX + 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1)
    return tile


def sheet(name: str, samples: list[Sample], method: Method) -> Pixels | None:
    """The worst images of a source, the worst first; None if nothing is wrong."""
    network, config = method.network(name) or shipped(), SegmentationConfig()
    judged = []
    for sample in samples:
        found = segment_with(network, sample.image, given(name, sample), config)
        wrong, text = errors(name, sample, found)
        if wrong > 0:
            judged.append((wrong, sample, found, text))
    judged.sort(key=lambda each: -each[0])
    tiles = [drawn(*each[1:]) for each in judged[:WORST]]
    if not tiles:
        return None
    empty = np.full_like(tiles[0], 255)
    tiles += [empty] * (-len(tiles) % 5)
    return np.vstack([np.hstack(tiles[k : k + 5]) for k in range(0, len(tiles), 5)])


def main() -> None:
    parser = data_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the sheets")
    parser.add_argument("--sources", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--part", choices=("all", "even", "odd"), default="all")
    parser.add_argument("--left-out", type=Path, help="folder of the folds' networks")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    folder = arguments.left_out
    folds = {fold: stored(folder / f"{fold}.safetensors") for fold in FOLDS} if folder else None
    method = Method("default", folds)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in filter(method.knows, arguments.sources):
        samples = thinned(half(list(SETS[name](arguments.data)), arguments.part), OF_A_SOURCE)
        pictures = sheet(name, samples, method)
        if pictures is None:
            print(f"{name}: nothing is wrong in {len(samples)} images")
            continue
        path = arguments.out / f"{name}.png"
        cv2.imwrite(str(path), cv2.cvtColor(pictures, cv2.COLOR_RGB2BGR))
        print(path)


if __name__ == "__main__":
    main()
