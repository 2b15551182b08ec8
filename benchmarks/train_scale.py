"""Fit how large a red cell is beside a leukocyte in view (``segmentation/scale.py``).

``python benchmarks/train_scale.py --data ../shared/data`` prints the two rows of constants, for a
nucleus alone and for a lone round cell, and how far off they are. Where one small crop shows too
few red cells, the scale rests on them. Even-numbered images of sets whose scale is known teach, as
they are and changed at random; ``apl_aml`` takes no part. The fit is a weighted ridge regression of
logarithms that gives outliers less weight (Huber 1964).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import segmentation as sets
from millie.config import SegmentationConfig
from millie.segmentation.scale import leukocyte_shape
from millie.segmentation.stain import stain_map
from train_lobes import WORK_UM, Look, Pixels, varied

SHARES = {"pbc_cells": 1.0, "bccd": 0.6, "all_idb1": 0.4, "bone_marrow_cells": 0.3}
"""Say of each set, whatever its number of images."""
SIDE_PX = 260  # as leukocytes.py measures a nucleus
SIDES_UM = (22.0, 60.0)  # of windows cut from fields of ALL-IDB1
WINDOWS = 12  # of one field
OUTLIER = 0.25  # natural logarithm
RIDGE = 3.0

Seen = tuple[str, float, NDArray[np.float64], bool]


def pictures(root: Path, rng: np.random.Generator) -> Iterator[tuple[str, Pixels, float]]:
    """Name of the set, image, um/px."""
    for name in SHARES:
        for sample in sets.half(list(sets.SETS[name](root)), "even"):
            um_px = sets.given(name, sample).um_px
            if name == "all_idb1":
                for window in windows(sample, um_px, rng):
                    yield name, window, um_px
                continue
            yield name, sample.image, um_px
            image, factor = varied(sample.image, WORK_UM * rng.uniform(0.5, 1.2), Look.drawn(rng))
            yield name, image, um_px / factor


def windows(sample: sets.Sample, um_px: float, rng: np.random.Generator) -> Iterator[Pixels]:
    """Parts of a field around its blasts."""
    for x0, y0, x1, y1 in sample.boxes[:WINDOWS]:
        side = int(rng.uniform(*SIDES_UM) / um_px)
        middle = np.array([y0 + y1, x0 + x1]) / 2 + rng.uniform(-0.2, 0.2, 2) * side
        limits = np.array(sample.image.shape[:2]) - side
        top, left = np.clip(middle - side / 2, 0, limits).astype(int)
        yield np.ascontiguousarray(sample.image[top : top + side, left : left + side])


def gather(root: Path) -> list[Seen]:
    """Of each picture the set, the logarithm of red cells over the nucleus, and its shape."""
    red_cell_um = SegmentationConfig().red_cell_diameter_um
    found = []
    for name, image, um_px in pictures(root, np.random.default_rng(0)):
        small = image
        while max(small.shape[:2]) > SIDE_PX:
            half = cv2.resize(small, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            small = np.asarray(half, dtype=np.uint8)
        shape = leukocyte_shape(stain_map(small))
        if shape:
            px = red_cell_um / um_px * small.shape[1] / image.shape[1]
            found.append((name, float(np.log(px)) - shape[0], shape[1], shape[2]))
    return found


def fit(values: NDArray, truth: NDArray, weights: NDArray) -> NDArray[np.float64]:
    """Constant and coefficients."""
    design = np.column_stack([np.ones(len(truth)), values])
    penalty = RIDGE * values.var(axis=0).mean() * np.diag([0.0] + [1.0] * values.shape[1])
    current, found = weights, np.zeros(design.shape[1])
    for _ in range(10):
        weighted = (design * current[:, None]).T
        found = np.linalg.solve(weighted @ design + penalty, weighted @ truth)
        current = weights / np.maximum(1, np.abs(truth - design @ found) / OUTLIER)
    return found


def main() -> None:
    parser = sets.data_parser(__doc__)
    cv2.setNumThreads(1)
    seen = gather(parser.parse_args().data)
    counts = {name: sum(row[0] == name for row in seen) for name in SHARES}
    for lone, what in ((False, "nucleus"), (True, "lone cell")):
        rows = [row for row in seen if row[3] == lone]
        values, truth = np.array([row[2] for row in rows]), np.array([row[1] for row in rows])
        weights = np.array([1000 * SHARES[row[0]] / counts[row[0]] for row in rows])
        found = fit(values, truth, weights)
        off = found[0] + values @ found[1:] - truth
        print(f"{what}: {found.round(2).tolist()}, {len(rows)} pictures,", end=" ")
        print(f"variance {np.average(off**2, weights=weights):.3f}")


if __name__ == "__main__":
    main()
