"""Train the two small models of ``segmentation/objects.py``: leukocyte or not, smudge or intact.

Leukocytes are the central objects of single-cell crops, objects inside BCCD's leukocyte boxes and
at ALL-IDB1's blasts; the rest are platelets (central objects of ``pbc_cells/platelet``, giant
thrombocytes) and what BCCD's boxes do not explain away from the border. Stain, scale and
sharpness vary at random. Even images train, odd ones test. Prints the constants of the module.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import segmentation as sets
from millie.config import SegmentationConfig
from millie.segmentation.cells import outlines
from millie.segmentation.nuclei import find_nuclei
from millie.segmentation.objects import FEATURES, describe
from millie.segmentation.stain import stain_map

WORK_UM = SegmentationConfig().working_um_px
UM_PX = {
    "pbc_cells": 0.105, "platelet": 0.105, "bone_marrow_cells": 0.105, "apl_aml": 0.103,
    "bccd": 0.086, "all_idb1": 0.09, "wbc_masks": 0.17,
}  # fmt: skip
LIMITS = {
    "pbc_cells": 600,
    "platelet": 400,
    "bone_marrow_cells": 175,
    "apl_aml": 900,
    "bccd": 180,
    "all_idb1": 24,
    "wbc_masks": 300,
}
NOT_LEUKOCYTES = ("platelet", "Giant thrombocyte")
Row = tuple[NDArray[np.float64], int, int, str]


def varied(
    image: NDArray[np.uint8], um_px: float, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], float]:
    """The image at about the working resolution, and the factor it was shrunk by."""
    factor = um_px / WORK_UM * float(np.exp(rng.normal(0, 0.1)))
    small = np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))
    white = np.percentile(small, 95, axis=(0, 1)) + 1
    small = np.clip(white * ((small + 1.0) / white) ** rng.uniform(0.6, 1.5), 0, 255).astype(
        np.uint8
    )
    return cv2.GaussianBlur(small, (0, 0), rng.uniform(0.2, 0.8)), factor


def rows_of(sample: sets.Sample, name: str, rng: np.random.Generator) -> Iterator[Row]:
    um_px = 0.108 if name == "all_idb1" and sample.image.shape[1] < 2000 else UM_PX[name]
    work, factor = varied(sample.image, um_px, rng)
    stain = stain_map(work)
    height, width = stain.score.shape
    for one in outlines(stain, find_nuclei(stain, WORK_UM), WORK_UM, 5.0):
        rows, columns = np.nonzero(one.nucleus)
        x, y = columns.mean() + one.window[1].start, rows.mean() + one.window[0].start
        edge = min(x, y, width - 1 - x, height - 1 - y) < 5 / WORK_UM
        label = label_of(sample, (x, y), factor, (width, height), edge=edge, name=name)
        if label is not None:
            features = describe(one.window, one.nucleus, one.body, stain, WORK_UM)
            yield features, label, int(sample.kind == "Smudge cells"), name


def label_of(
    sample: sets.Sample,
    point: tuple[float, float],
    factor: float,
    size: tuple[int, int],
    *,
    edge: bool,
    name: str,
) -> int | None:
    """1 leukocyte, 0 not, None unknown."""
    x, y = point
    if name in ("bccd", "all_idb1"):
        inside = any(
            b[0] <= x / factor <= b[2] and b[1] <= y / factor <= b[3] for b in sample.boxes
        )
        if inside:
            return 1
        return None if edge or name == "all_idb1" else 0
    away = float(np.hypot(x - size[0] / 2, y - size[1] / 2)) * WORK_UM
    if away > 3.5:
        return None
    return int(sample.kind not in NOT_LEUKOCYTES)


def gather(root: Path, part: int, rounds: int) -> list[Row]:
    rng = np.random.default_rng(part)
    found: list[Row] = []
    for name, limit in LIMITS.items():
        samples = sets.thinned(list(sets.SETS[name](root)), limit)[part::2]
        for _ in range(rounds):
            for sample in samples:
                found += rows_of(sample, name, rng)
    return found


def report(name: str, train: tuple[NDArray, NDArray], held: tuple[NDArray, NDArray]) -> None:
    x, y = train
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
    model = LogisticRegression(C=0.3, max_iter=3000, class_weight="balanced")
    model.fit((x - mean) / scale, y)
    odds = model.decision_function((held[0] - mean) / scale)
    for level in (-1.5, -0.5, 0, 0.5, 1.5):
        print(
            f"# {name}: AUC {roc_auc_score(held[1], odds):.4f}; odds > {level}: "
            f"true {np.mean(odds[held[1] == 1] > level):.3f} "
            f"false {np.mean(odds[held[1] == 0] > level):.3f}"
        )
    weights = model.coef_[0] / scale
    print("# " + ", ".join(f"{f} {w:.2f}" for f, w in zip(FEATURES, model.coef_[0], strict=True)))
    print(f"_{name}_WEIGHTS = np.array([{', '.join(f'{w:.3f}' for w in weights)}])")
    print(f"_{name}_BIAS = {model.intercept_[0] - mean @ weights:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("MILLIE_DATA", "../shared/data"))
    )
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    parts = [gather(arguments.data, part, arguments.rounds) for part in (0, 1)]
    train, held = [
        (np.array([r[0] for r in p]), np.array([r[1] for r in p]), np.array([r[2] for r in p]))
        for p in parts
    ]
    print(f"# {len(train[1])} objects, {(train[1] == 0).sum()} of them no leukocytes")
    report("LEUKOCYTE", train[:2], held[:2])
    intact = [part[1] == 1 for part in (train, held)]
    report(
        "SMUDGE",
        (train[0][intact[0]], train[2][intact[0]]),
        (held[0][intact[1]], held[2][intact[1]]),
    )
    if "SAVE" in os.environ:
        np.savez(
            os.environ["SAVE"],
            x=train[0],
            y=train[1],
            s=train[2],
            hx=held[0],
            hy=held[1],
            hs=held[2],
            n=[r[3] for r in parts[0]],
            hn=[r[3] for r in parts[1]],
        )


if __name__ == "__main__":
    main()
