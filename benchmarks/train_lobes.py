"""Train the model that decides which pieces of nuclei are one cell's (``segmentation/lobes.py``).

Pairs of pieces within the central cell of a single-cell crop are one cell's; pieces of two crops
that were pasted together at touching distance are two cells'. Scale, stain and sharpness vary at
random. Even crops train, odd crops test. Prints the constants of the module.
"""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from millie.config import SegmentationConfig
from millie.segmentation.lobes import FEATURES, Piece, expanded, joined, pair_features, pieces_of
from millie.segmentation.nuclei import find_nuclei
from millie.segmentation.stain import StainMap, stain_map

WORK_UM = SegmentationConfig().working_um_px
UM_PX = {"pbc_cells": 0.105, "bone_marrow_cells": 0.105}
CENTRE_UM = 6.0


@dataclass(frozen=True)
class Cut:
    """A single cell: its crop at the working resolution and where its nucleus lies."""

    image: NDArray[np.uint8]
    nucleus: NDArray[np.bool_]
    kind: str


def paths(root: Path, part: int) -> list[Path]:
    found = sorted((root / "pbc_cells").glob("[!p]*/*.jpg"))
    found += sorted((root / "bone_marrow_cells").glob("*/*.jpg"))
    return found[part::2]


def read_cut(path: Path, rng: np.random.Generator) -> Cut | None:
    """A crop at a jittered scale and stain, with the pieces near its centre as its nucleus."""
    with Image.open(path) as file:
        image = np.asarray(file.convert("RGB"))
    factor = UM_PX[path.parts[-3]] / WORK_UM * float(np.exp(rng.normal(0, 0.12)))
    image = np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))
    white = np.percentile(image, 95, axis=(0, 1)) + 1
    image = np.clip(white * ((image + 1.0) / white) ** rng.uniform(0.6, 1.5), 0, 255)
    image = cv2.GaussianBlur(image.astype(np.uint8), (0, 0), rng.uniform(0.3, 1.0))
    stain = stain_map(image)
    pieces = find_nuclei(stain, WORK_UM).pieces
    middle = np.array(pieces.shape[::-1]) / 2
    keep = [
        p.members[0] for p in pieces_of(pieces, stain)
        if np.hypot(*(p.centre - middle)) * WORK_UM < CENTRE_UM and p.area_px * WORK_UM**2 > 2
    ]  # fmt: skip
    nucleus = np.isin(pieces, keep)
    edge = nucleus[0].any() or nucleus[-1].any() or nucleus[:, 0].any() or nucleus[:, -1].any()
    area = nucleus.sum() * WORK_UM**2
    if edge or not 15 < area < 250:
        return None
    return Cut(image, nucleus, path.parent.name)


def pasted(a: Cut, b: Cut, rng: np.random.Generator) -> tuple[Cut, NDArray[np.bool_]] | None:
    """Two crops in one picture, their nuclei touching to 3 um apart; the masks of a and b."""
    gap = rng.uniform(-1.0, 3.0) / WORK_UM
    angle = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    size = a.image.shape[0] + b.image.shape[0]
    wide = 2 * size
    first = _placed(a.nucleus, wide, np.zeros(2))
    far = cv2.distanceTransform((~first).astype(np.uint8), cv2.DIST_L2, 5)
    for step in np.arange(4 / WORK_UM, 25 / WORK_UM):
        second = _placed(b.nucleus, wide, direction * step)
        if far[second].min() > max(gap, 1.0):
            break
    else:
        return None
    white_a, white_b = (np.percentile(c.image, 95, axis=(0, 1)) for c in (a, b))
    canvas = np.ones((wide, wide, 3), np.float32)
    for cut, white, shift in ((a, white_a, np.zeros(2)), (b, white_b, direction * step)):
        part = np.minimum(cut.image / white, 1.0).astype(np.float32)
        top, left = _corner(part.shape[:2], wide, shift)
        window = np.s_[top : top + part.shape[0], left : left + part.shape[1]]
        canvas[window] = np.minimum(canvas[window], part)
    image = (canvas * white_a).astype(np.uint8)
    rows, columns = np.nonzero((canvas < 1).any(axis=2))
    window = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return Cut(image[window], first[window], a.kind), second[window]


def _corner(shape: tuple[int, ...], wide: int, shift: NDArray) -> tuple[int, int]:
    return (
        wide // 2 - shape[0] // 2 + round(shift[1]),
        wide // 2 - shape[1] // 2 + round(shift[0]),
    )


def _placed(mask: NDArray[np.bool_], wide: int, shift: NDArray) -> NDArray[np.bool_]:
    full = np.zeros((wide, wide), bool)
    top, left = _corner(mask.shape, wide, shift)
    full[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return full


def examples(
    stain: StainMap, owners: list[NDArray[np.bool_]], rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.float64], int]]:
    """(features, 1 if one cell's) of pairs, at every stage of a correct merging."""
    labels = find_nuclei(stain, WORK_UM).pieces
    groups: list[tuple[Piece, int]] = []
    for piece in pieces_of(labels, stain):
        where = labels == piece.members[0]
        shares = [float((where & o).sum() / where.sum()) for o in owners]
        if max(shares) > 0.8:
            groups.append((piece, int(np.argmax(shares))))
    while len(groups) > 1:
        order = rng.permutation(len(groups))
        groups = [groups[k] for k in order]
        for i, (a, owner) in enumerate(groups):
            for b, other in groups[i + 1 :]:
                if np.hypot(*(a.centre - b.centre)) * WORK_UM < 14:
                    yield pair_features(a, b, stain, WORK_UM), int(owner == other)
        pairs = [
            (i, j) for i in range(len(groups)) for j in range(i + 1, len(groups))
            if groups[i][1] == groups[j][1]
        ]  # fmt: skip
        if not pairs:
            return
        i, j = min(
            pairs, key=lambda p: np.hypot(*(groups[p[0]][0].centre - groups[p[1]][0].centre))
        )
        one = (joined(groups[i][0], groups[j][0]), groups[i][1])
        groups = [g for k, g in enumerate(groups) if k not in (i, j)] + [one]


def gather(root: Path, part: int, n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(part)
    files = paths(root, part)
    values, truth = [], []
    for _ in range(n):
        a, b = (read_cut(files[rng.integers(len(files))], rng) for _ in range(2))
        if a is None or b is None:
            continue
        cases = [(a.image, [a.nucleus])]
        both = pasted(a, b, rng)
        if both:
            cases.append((both[0].image, [both[0].nucleus, both[1]]))
        for image, owners in cases:
            for features, same in examples(stain_map(image), owners, rng):
                values.append(features)
                truth.append(same)
    return np.array(values), np.array(truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("MILLIE_DATA", "../shared/data"))
    )
    parser.add_argument("--pairs", type=int, default=900)
    parser.add_argument("--keep", type=Path, help="write features and truth there")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    values, truth = gather(arguments.data, 0, arguments.pairs)
    held, held_truth = gather(arguments.data, 1, arguments.pairs // 3)
    if arguments.keep:
        np.savez(arguments.keep, x=values, y=truth, hx=held, hy=held_truth)
    fit(values, truth, held, held_truth)


def fit(values: NDArray, truth: NDArray, held: NDArray, held_truth: NDArray) -> None:
    """Fit on one half, judge on the other, print the module of constants."""
    mean, scale = values.mean(axis=0), values.std(axis=0) + 1e-9
    model = LogisticRegression(C=0.1, max_iter=5000)
    model.fit(expanded((values - mean) / scale), truth)
    odds = model.decision_function(expanded((held - mean) / scale))
    error = np.mean((odds > 0) != held_truth)
    print(f"# {len(truth)} pairs, {truth.mean():.2f} one cell's; held out {len(held)}: ")
    print(f"# AUC {roc_auc_score(held_truth, odds):.4f}, error {error:.4f}")
    for name, value in zip(FEATURES, values.T, strict=True):
        print(f"# {name}: AUC alone {roc_auc_score(truth, value):.3f}")
    for name, array in (("MEAN", mean), ("SCALE", scale), ("WEIGHTS", model.coef_[0])):
        body = textwrap.fill(
            ", ".join(f"{v:.3f}" for v in array),
            96,
            initial_indent="    ",
            subsequent_indent="    ",
        )
        print(f"{name} = np.array([\n{body},\n])  # fmt: skip")
    print(f"BIAS = {model.intercept_[0]:.3f}")


if __name__ == "__main__":
    main()
