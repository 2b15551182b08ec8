"""Two leukocytes side by side: how often are they found as two?

``python benchmarks/touching_pairs.py --data ../shared/data`` prints the rows of
docs/segmentation.md. Cells of ``wbc_masks`` are cut out by their drawn outlines and put beside each
other on an empty background, apart, touching or overlapping. Right: two cells are found, one centre
in each body. Odd-numbered images unless told; even ones taught the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from millie.config import SegmentationConfig
from millie.segmentation.leukocytes import segment_with
from millie.segmentation.network import shipped
from millie.types import Detection, PixelSize
from segmentation import Pixels, data_parser, given, half, stored, wbc_masks

OVERLAPS_UM = (-1, 0, 1, 2, 3)
_MARGIN_PX = 12
_TOUCHES_CELL = 60  # grey level from which the drawn truth is cell

Mask = NDArray[np.bool_]
Find = Callable[[Pixels, PixelSize | None], Detection]


@dataclass(frozen=True)
class Body:
    """A whole cell, its outline and its scale."""

    image: Pixels
    cell: Mask
    um_px: float

    def turned_at(self, um_px: float, quarters: int) -> Body:
        """The cell at another scale, turned by quarters of a circle."""
        size = self.um_px / um_px
        image = cv2.resize(np.rot90(self.image, quarters), None, fx=size, fy=size)
        mask = np.rot90(self.cell, quarters).astype(np.uint8)
        mask = cv2.resize(mask, None, fx=size, fy=size, interpolation=cv2.INTER_NEAREST)
        return Body(image, mask > 0, um_px)


def bodies(root: Path, part: str) -> list[Body]:
    """Cells that no edge of their image cuts."""
    found = []
    for sample in half(list(wbc_masks(root)), part):
        assert sample.truth is not None
        cell = sample.truth > _TOUCHES_CELL
        if not (cell[[0, -1]].any() or cell[:, [0, -1]].any()):
            found.append(Body(sample.image, cell, given("wbc_masks", sample).um_px))
    return found


def side_by_side(left: Body, right: Body, overlap_um: float) -> tuple[Pixels, Mask, Mask]:
    """Both cells on the left one's background; below 0 um they are apart."""
    height, width = (left.cell.shape[i] + 2 * right.cell.shape[i] for i in (0, 1))
    middle, own = np.argwhere(left.cell).mean(0)[0], np.argwhere(right.cell).mean(0)[0]
    top = right.cell.shape[0]
    row = round(top + middle - own)
    first = np.zeros((height, width), bool)
    first[top : top + left.cell.shape[0], : left.cell.shape[1]] = left.cell
    column = _contact(first, right.cell, row) - round(overlap_um / left.um_px)
    second = np.zeros_like(first)
    place = np.s_[row : row + right.cell.shape[0], column : column + right.cell.shape[1]]
    second[place] = right.cell
    white, other = (np.median(b.image[~b.cell], axis=0) for b in (left, right))
    canvas = np.tile(white, (height, width, 1))
    canvas[first] = left.image[left.cell]
    canvas[second] = right.image[right.cell] * (white / other)
    first &= ~second
    rows, columns = np.nonzero(first | second)
    window = tuple(
        slice(max(0, int(at.min()) - _MARGIN_PX), int(at.max()) + _MARGIN_PX)
        for at in (rows, columns)
    )
    pixels = np.clip(canvas, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels[window]), first[window], second[window]


def _contact(first: Mask, cell: Mask, row: int) -> int:
    """Column at which a cell, slid in from the right at this row, touches the first."""
    best = 0
    for offset, line in enumerate(cell):
        before = np.flatnonzero(first[row + offset])
        if line.any() and len(before):
            best = max(best, int(before[-1]) - int(np.argmax(line)) + 1)
    return best


def two_found(find: Find, left: Body, right: Body, overlap_um: float) -> bool:
    """Whether exactly two cells are found, one in each body."""
    image, *masks = side_by_side(left, right, overlap_um)
    found = find(image, PixelSize(left.um_px)).regions
    held = [sum(bool(m[round(r.cell.y_px), round(r.cell.x_px)]) for r in found) for m in masks]
    return len(found) == 2 and held == [1, 1]


def shares_parted(root: Path, part: str, find: Find) -> Iterator[tuple[int, float, int]]:
    """(overlap in um, share found as two, pairs)."""
    cells = bodies(root, part)
    order = np.random.default_rng(0).permutation(len(cells))
    pairs = [(int(i), int(j)) for i, j in zip(order[::2], order[1::2], strict=False)]
    for overlap in OVERLAPS_UM:
        right = [
            two_found(find, cells[i], cells[j].turned_at(cells[i].um_px, number % 4), overlap)
            for number, (i, j) in enumerate(pairs)
        ]
        yield overlap, float(np.mean(right)), len(right)


def main() -> None:
    parser = data_parser(__doc__)
    parser.add_argument("--part", choices=("all", "even", "odd"), default="odd")
    parser.add_argument("--weights", type=Path, help="a network beside the shipped one")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    config = SegmentationConfig()
    network = stored(arguments.weights) if arguments.weights else shipped()
    print("| overlap, um | found as two | n |\n|---|---|---|")
    for overlap, share, n in shares_parted(
        arguments.data,
        arguments.part,
        lambda image, um_px: segment_with(network, image, um_px, config),
    ):
        print(f"| {overlap} | {share:.3f} | {n} |")


if __name__ == "__main__":
    main()
