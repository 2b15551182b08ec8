"""Train the two models of ``segmentation/objects.py``: leukocyte or not, smudge or intact.

Leukocytes are the central objects of single-cell crops, objects inside BCCD's leukocyte boxes and
at ALL-IDB1's blasts; the rest are platelets (central objects of ``pbc_cells/platelet``) and what
BCCD's boxes do not explain away from the border. Smudges were marked by eye in even-numbered
fields of ALL-IDB1. Stain, colours, sharpness, compression and scale vary at random; the scale is in
part what the program finds in the picture by itself. Even images train, odd ones test; ``apl_aml``
only tests, because its labels of cells are not to be learnt from. Writes the trees,
``object_model.npz``, and prints the constants of the smudge model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import segmentation as sets
from millie.config import SegmentationConfig
from millie.segmentation import object_model
from millie.segmentation.cells import candidates
from millie.segmentation.leukocytes import _scale
from millie.segmentation.nuclei import find_nuclei
from millie.segmentation.objects import (
    _LARGE_GAIN,
    _LARGE_UM2,
    _OF_SMUDGES,
    FEATURES,
    describe,
)
from millie.segmentation.stain import stain_map
from train_lobes import Look, varied

WORK_UM = SegmentationConfig().working_um_px
UM_PX = {
    "pbc_cells": 0.105, "platelet": 0.105, "bone_marrow_cells": 0.105, "apl_aml": 0.103,
    "bccd": 0.086, "all_idb1": 0.09, "wbc_masks": 0.17,
}  # fmt: skip
LIMITS = {
    "pbc_cells": 1600,
    "platelet": 500,
    "bone_marrow_cells": 175,
    "bccd": 180,
    "all_idb1": 24,
    "wbc_masks": 300,
    "apl_aml": 900,
}
ONLY_TESTS = ("apl_aml",)
ROUNDS = {"all_idb1": 2, "platelet": 2, "bccd": 2, "bone_marrow_cells": 2}
SMUDGES = {
    "Im001_1.jpg": ((296, 118), (843, 330), (1669, 531), (536, 1048), (1124, 1086), (894, 1296)),
    "Im016_1.jpg": ((25, 76), (1564, 425), (1265, 718), (333, 760), (829, 1005)),
    "Im030_1.jpg": ((207, 1306),),
    "Im053_1.jpg": (
        (280, 98), (1404, 462), (2477, 1116), (1256, 1438), (1141, 1422), (568, 1543), (258, 1880),
    ),
    "Im059_1.jpg": (
        (2098, 47), (1848, 388), (2438, 534), (1069, 590), (906, 1242), (710, 1684), (1667, 1784),
        (80, 1807),
    ),
}  # fmt: skip
SMUDGE_UM = 4.0  # a mark is meant for the object with its centre so near
NOT_LEUKOCYTES = ("platelet", "Giant thrombocyte")
LEVELS = (-1.5, -0.5, 0, 0.5, 1.5)
MOST = 400
FLAGGED = 0.02  # share of intact cells that may be flagged as smudges
LOG_SCALE = 0.15  # spread of wrong scales
OWN_SCALE = 0.4  # share of pictures at the scale that they show by themselves
RECOLOURED = 0.5  # share of pictures in colours of another stain
TREES, LEAVES = 200, 6
RISING = ("log_nucleus_um2", "edge", "over_red_cells")
FALLING = ("texture", "fine_texture")
Row = tuple[NDArray[np.float64], int, int, str]


@dataclass(frozen=True)
class Objects:
    """Features of objects, what they are, and the set each is from."""

    x: NDArray[np.float64]
    leukocyte: NDArray[np.int64]
    smudge: NDArray[np.int64]
    source: NDArray[np.str_]

    @classmethod
    def of(cls, rows: list[Row]) -> Self:
        """From rows of the four."""
        return cls(*(np.array([row[k] for row in rows]) for k in range(4)))


def recoloured(image: sets.Pixels, rng: np.random.Generator) -> sets.Pixels:
    """The image in the colours of another stain, camera and light: densities mixed at random."""
    white = np.percentile(image, 95, axis=(0, 1)) + 1
    density = -np.log((image.astype(np.float32) + 1) / white)
    mixing = np.diag(np.exp(rng.normal(0, 0.12, 3)))
    mixing += rng.normal(0, 0.05, (3, 3)) * (1 - np.eye(3))
    light = white * np.exp(rng.normal(0, 0.05, 3))
    return np.clip(light * np.exp(-density @ mixing.T), 0, 255).astype(np.uint8)


def seen(
    sample: sets.Sample, name: str, um_px: float, rng: np.random.Generator
) -> tuple[sets.Pixels, float]:
    """The picture as it may be met, at about the working resolution; the factor it shrank by."""
    look = replace(Look.drawn(rng), log_scale=float(rng.normal(0, LOG_SCALE)))
    image = recoloured(sample.image, rng) if rng.random() < RECOLOURED else sample.image
    if rng.random() < OWN_SCALE and name != "all_idb1":
        found, _ = _scale(image, None, SegmentationConfig(), None)
        look = replace(look, log_scale=math.log(found / um_px))
    return varied(image, um_px, look)


def rows_of(sample: sets.Sample, name: str, rng: np.random.Generator) -> Iterator[Row]:
    um_px = 0.108 if name == "all_idb1" and sample.image.shape[1] < 2000 else UM_PX[name]
    work, factor = seen(sample, name, um_px, rng)
    stain = stain_map(work)
    height, width = stain.score.shape
    for one in candidates(find_nuclei(stain, WORK_UM), WORK_UM, 5.0):
        rows, columns = np.nonzero(one.mask)
        x, y = columns.mean() + one.window[1].start, rows.mean() + one.window[0].start
        edge = min(x, y, width - 1 - x, height - 1 - y) < 5 / WORK_UM
        marks = SMUDGES.get(sample.name, ()) if name == "all_idb1" else ()
        smudge = sample.kind == "Smudge cells" or any(
            math.dist((x / factor, y / factor), mark) * um_px < SMUDGE_UM for mark in marks
        )
        label = label_of(sample, (x, y), factor, (width, height), edge=edge, name=name)
        if smudge or label is not None:
            features = describe(one.window, one.mask, stain, WORK_UM)
            yield features, int(smudge or label == 1), int(smudge), name


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
    found: list[Row] = []
    for name, limit in LIMITS.items():
        rng = np.random.default_rng(part)
        if part == 0 and name in ONLY_TESTS:
            continue
        samples = sets.thinned(list(sets.SETS[name](root)), limit)[part::2]
        for _ in range(rounds * ROUNDS.get(name, 1) if part == 0 else 1):
            for sample in samples:
                found += rows_of(sample, name, rng)
    return found


def balanced(labels: NDArray, sources: NDArray) -> NDArray[np.float64]:
    """Weights that keep no source's answer from counting more than :data:`MOST` objects."""
    weights = np.ones(len(labels))
    for source in np.unique(sources):
        for answer in (0, 1):
            same = (sources == source) & (labels == answer)
            weights[same] = min(1.0, MOST / max(int(same.sum()), 1))
    return weights


def fitted(
    name: str, values: NDArray, labels: NDArray, weights: NDArray, strength: float
) -> tuple[NDArray[np.float64], float]:
    """Weights and bias for raw features; prints them."""
    mean, scale = values.mean(axis=0), values.std(axis=0) + 1e-9
    model = LogisticRegression(C=strength, max_iter=3000)
    model.fit((values - mean) / scale, labels, sample_weight=weights)
    print(
        "# "
        + ", ".join(
            f"{f} {w:.2f}" for f, w in zip(FEATURES[_OF_SMUDGES], model.coef_[0], strict=True)
        )
    )
    weights = model.coef_[0] / scale
    bias = float(model.intercept_[0] - mean @ weights)
    print(f"_{name}_WEIGHTS = np.array([{', '.join(f'{w:.3f}' for w in weights)}])")
    print(f"_{name}_BIAS = {bias:.3f}")
    return weights, bias


def report(name: str, odds: NDArray, labels: NDArray, sources: NDArray) -> None:
    """Shares taken for the class that ``name`` says, by source and truth."""
    print(f"# {name}: AUC {roc_auc_score(labels, odds):.4f}")
    for source in np.unique(sources):
        for answer in (0, 1):
            same = (sources == source) & (labels == answer)
            if same.sum() >= 10:
                shares = [f"{np.mean(odds[same] > level):.3f}" for level in LEVELS]
                print(f"#   {source}, truly {answer} ({same.sum()}): {', '.join(shares)}")


def main() -> None:
    parser = sets.data_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(object_model.__file__).with_suffix(".npz"))
    parser.add_argument("--tables", type=Path, help="folder to keep features and truth in")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    parts = [gather(arguments.data, part, arguments.rounds) for part in (0, 1)]
    train, held = [Objects.of(part) for part in parts]
    if arguments.tables:
        np.savez(arguments.tables / "train.npz", **vars(train))
        np.savez(arguments.tables / "held.npz", **vars(held))
    np.savez_compressed(arguments.out, **fit(train, held))


def fit(train: Objects, held: Objects) -> dict[str, NDArray]:
    """Fit both models on one half, judge them on the other and on the sets that only test.

    Returns:
        The arrays of ``object_model.npz``.
    """
    print(f"# {len(train.leukocyte)} objects, {(train.leukocyte == 0).sum()} no leukocytes")
    print(f"# shares above log odds of {', '.join(map(str, LEVELS))}")
    model = HistGradientBoostingClassifier(
        max_iter=TREES, max_leaf_nodes=LEAVES, learning_rate=0.06, l2_regularization=3.0,
        monotonic_cst=[(f in RISING) - (f in FALLING) for f in FEATURES],
    )  # fmt: skip
    model.fit(train.x, train.leukocyte, sample_weight=balanced(train.leukocyte, train.source))
    odds = model.decision_function(held.x)
    odds += _LARGE_GAIN * np.maximum(held.x[:, 0] - np.log(_LARGE_UM2), 0)
    report("LEUKOCYTE", odds, held.leukocyte, held.source)
    fit_smudges(train, held)
    return arrays_of(model)


def arrays_of(model: HistGradientBoostingClassifier) -> dict[str, NDArray]:
    """The trees as arrays, one row a tree, one column a node; a leaf leads to itself."""
    trees = [rows[0].nodes for rows in model._predictors]  # noqa: SLF001  not to be had otherwise
    arrays: dict[str, NDArray] = {
        name: np.zeros((len(trees), 2 * LEAVES - 1), kind)
        for name, kind in (
            ("feature", np.uint8), ("threshold", np.float32), ("left", np.uint8),
            ("right", np.uint8), ("value", np.float32),
        )
    }  # fmt: skip
    for k, nodes in enumerate(trees):
        here, leaf = np.arange(len(nodes)), nodes["is_leaf"] > 0
        arrays["feature"][k, here] = np.where(leaf, 0, nodes["feature_idx"])
        arrays["threshold"][k, here] = np.where(leaf, 0, nodes["num_threshold"])
        arrays["left"][k, here] = np.where(leaf, here, nodes["left"])
        arrays["right"][k, here] = np.where(leaf, here, nodes["right"])
        arrays["value"][k, here] = np.where(leaf, nodes["value"], 0)
    arrays["depth"] = np.array(max(int(nodes["depth"].max()) for nodes in trees))
    arrays["bias"] = np.array(float(model._baseline_prediction[0, 0]), np.float32)  # noqa: SLF001
    return arrays


def fit_smudges(train: Objects, held: Objects) -> None:
    """Fit the smudge model on one half, judge it on the other; prints its constants."""
    real, others = train.leukocyte == 1, held.leukocyte == 1
    looks, smudge, sources = train.x[real][:, _OF_SMUDGES], train.smudge[real], train.source[real]
    weights = np.where(smudge == 1, 0.5 / max(int(smudge.sum()), 1), 0.0)
    sets_of_intact = np.unique(sources)
    for source in sets_of_intact:
        same = (sources == source) & (smudge == 0)
        weights[same] = 0.5 / len(sets_of_intact) / same.sum()
    model = fitted("SMUDGE", looks, smudge, weights * len(weights), 0.3)
    intact = looks[smudge == 0] @ model[0] + model[1]
    strictness = float(np.quantile(intact, 1 - FLAGGED))
    print(f"_STRICTNESS = {strictness:.2f}")
    odds = held.x[others][:, _OF_SMUDGES] @ model[0] + model[1] - strictness
    report("SMUDGE", odds, held.smudge[others], held.source[others])


if __name__ == "__main__":
    main()
