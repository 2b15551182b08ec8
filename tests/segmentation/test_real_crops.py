"""Real single-cell crops: one cell each, platelets none, pasted pairs two.

Odd-numbered images of each list; some of ``apl_aml`` taught the network. Floors lie a little
below what was measured, so that a regression fails and the chance of a few crops does not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from millie.config import SegmentationConfig
from millie.segmentation import central_region, segment
from millie.types import Detection, PixelSize

pytestmark = pytest.mark.realdata
CONFIG = SegmentationConfig()
CELLAVISION_UM = PixelSize(0.10)
PBC_UM = PixelSize(0.105)
NUCLEUS_UM = 8.0  # diameter that scales the crops that have pixel truth
NOT_LEUKOCYTES = {
    "Smudge cells",
    "Giant thrombocyte",
    "Arifact",
    "Artifact",
    "Thrombocyte aggregation",
}


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def spread(paths: list[Path], n: int) -> list[Path]:
    """About ``n`` of the odd-numbered ones, evenly."""
    odd = paths[1::2]
    return odd[:: max(1, len(odd) // n)][:n]


def middle(found: Detection, shape: tuple[int, ...]) -> int:
    """Number of cells in the middle third of a crop."""
    height, width = shape[:2]
    return sum(
        abs(r.cell.x_px - width / 2) < width / 6 and abs(r.cell.y_px - height / 2) < height / 6
        for r in found.regions
    )


def share_of_one(paths: list[Path], scale: PixelSize) -> float:
    images = [read(path) for path in paths]
    return float(np.mean([middle(segment(i, scale, CONFIG), i.shape) == 1 for i in images]))


def test_cellavision_crops_hold_exactly_one(data_root: Path) -> None:
    paths = [
        path
        for path in sorted(data_root.glob("apl_aml/All/*/**/Signed slides/*/*.jpg"))
        if path.parent.name not in NOT_LEUKOCYTES and path.stat().st_size > 4000
    ]
    assert share_of_one(spread(paths, 60), CELLAVISION_UM) >= 0.92


def test_crops_of_normal_leukocytes_hold_exactly_one(data_root: Path) -> None:
    paths = sorted(data_root.glob("pbc_cells/[!p]*/*.jpg"))
    assert share_of_one(spread(paths, 60), PBC_UM) >= 0.90


def test_platelets_are_hardly_ever_taken_for_leukocytes(data_root: Path) -> None:
    paths = sorted(data_root.glob("pbc_cells/platelet/*.jpg"))
    taken = [middle(segment(read(p), PBC_UM, CONFIG), (200, 200)) > 0 for p in spread(paths, 60)]
    assert np.mean(taken) <= 0.10


class Truth:
    """A crop with its true nucleus and cell, and the scale at which that nucleus is typical."""

    def __init__(self, path: Path) -> None:
        truth = read(path.with_suffix(".png"))[:, :, 0]
        self.image, self.nucleus, self.cell = read(path), truth > 200, truth > 60
        self.scale = PixelSize(NUCLEUS_UM / (2 * float(np.sqrt(self.nucleus.sum() / np.pi))))


@pytest.fixture(scope="module")
def truths(data_root: Path) -> list[Truth]:
    return [Truth(p) for p in spread(sorted(data_root.glob("wbc_masks/Dataset 1/*.bmp")), 50)]


def dice(mask: np.ndarray, found: Detection, truth: np.ndarray, *, nucleus: bool) -> float:
    region = central_region(found, truth.shape)
    if region is None:
        return 0.0
    cell = region.cell
    window = np.s_[
        cell.top_px : cell.top_px + cell.height_px, cell.left_px : cell.left_px + cell.width_px
    ]
    mask[window] = region.nucleus_mask if nucleus else region.cell_mask
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


def test_outlines_agree_with_pixel_truth(truths: list[Truth]) -> None:
    ones, nuclei, cells = [], [], []
    for truth in truths:
        found = segment(truth.image, truth.scale, CONFIG)
        empty = np.zeros(truth.cell.shape, bool)
        ones.append(middle(found, truth.cell.shape) == 1)
        nuclei.append(dice(empty.copy(), found, truth.nucleus, nucleus=True))
        cells.append(dice(empty.copy(), found, truth.cell, nucleus=False))
    assert np.mean(ones) >= 0.94
    assert np.mean(nuclei) >= 0.90
    assert np.mean(cells) >= 0.94


def test_touching_cells_pasted_together_are_two(truths: list[Truth]) -> None:
    """Cells of equal stain side by side, their bodies overlapping by 1 um."""
    whole = [t for t in truths if not on_edge(t.cell)]
    right = []
    for a, b in zip(whole[::2], whole[1::2], strict=False):
        image, first, second = pasted(a, b)
        found = segment(image, a.scale, CONFIG).regions
        held = [[m[round(r.cell.y_px), round(r.cell.x_px)] for r in found] for m in (first, second)]
        right.append(len(found) == 2 and all(sum(one) == 1 for one in held))
    assert len(right) >= 10
    assert np.mean(right) >= 0.9


def on_edge(mask: np.ndarray) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def pasted(a: Truth, b: Truth) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """b's cell right of a's on a's background; the image and the two cells' masks."""
    white_a, white_b = (np.median(t.image[~t.cell], axis=0) for t in (a, b))
    height = max(a.cell.shape[0], b.cell.shape[0])
    width = a.cell.shape[1] + b.cell.shape[1]
    ends = np.flatnonzero(a.cell.any(axis=0))[-1], np.flatnonzero(b.cell.any(axis=0))[0]
    shift = int(ends[0] - ends[1] - round(1 / a.scale.um_px))
    image = np.tile(white_a, (height, width, 1))
    masks = np.zeros((2, height, width), bool)
    for mask, truth, left, gain in ((masks[0], a, 0, 1), (masks[1], b, shift, white_a / white_b)):
        window = np.s_[: truth.cell.shape[0], left : left + truth.cell.shape[1]]
        image[window][truth.cell] = truth.image[truth.cell] * gain
        mask[window] = truth.cell
    return np.clip(image, 0, 255).astype(np.uint8), masks[0], masks[1]
