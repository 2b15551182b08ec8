"""Train the model that decides which pieces of nuclei are one cell's (``segmentation/lobes.py``).

Pieces within the central cell of a single-cell crop, within one box of BCCD or one drawn nucleus
of ``wbc_masks`` are one cell's; pieces of two crops that were pasted together at touching distance,
or of two blasts of ALL-IDB1, are two cells'. Scale, stain, sharpness and compression vary at
random. Even-numbered images train, odd ones test; ``apl_aml`` takes no part. Writes the weights,
``lobe_model.npz``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

import segmentation as sets
from changes import jpeg
from millie.config import SegmentationConfig
from millie.segmentation import lobe_model
from millie.segmentation.lobes import Piece, joined, pair_features, pieces_of
from millie.segmentation.nuclei import find_pieces
from millie.segmentation.stain import StainMap, stain_map

Pixels = NDArray[np.uint8]
Case = tuple[str, Pixels, list[NDArray[np.bool_]]]
WORK_UM = SegmentationConfig().working_um_px
UM_PX = {
    "pbc_cells": 0.105, "bone_marrow_cells": 0.105, "bccd": 0.086, "all_idb1": 0.09,
    "wbc_masks": 0.17,
}  # fmt: skip
SMALL = ("lymphocyte", "erythroblast", "LYT")
CENTRE_UM = 6.0
HIDDEN = (32, 16)
NETWORKS = 4
MOST = 2500
REACH_UM = 14.0  # as lobes.grouped


@dataclass(frozen=True)
class Cut:
    """A single cell: its crop at the working resolution and where its nucleus lies."""

    image: Pixels
    nucleus: NDArray[np.bool_]
    kind: str


def paths(root: Path, part: int) -> list[Path]:
    found = sorted((root / "pbc_cells").glob("[!p]*/*.jpg"))
    found += sorted((root / "bone_marrow_cells").glob("*/*.jpg"))
    return found[part::2]


@dataclass(frozen=True)
class Look:
    """How a picture is changed; both halves of a pasted pair share it."""

    log_scale: float
    stain: float
    blur: float
    quality: int

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Self:
        """One at random."""
        quality = int(rng.integers(20, 95)) if rng.random() < 0.4 else 100
        return cls(rng.normal(0, 0.16), rng.uniform(0.55, 1.6), rng.uniform(0.3, 1.0), quality)


def varied(image: Pixels, um_px: float, look: Look) -> tuple[Pixels, float]:
    """The image at about the working resolution, and the factor it was shrunk by."""
    if look.quality < 100:
        image = jpeg(look.quality)(image)
    factor = um_px / WORK_UM * float(np.exp(look.log_scale))
    small = np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))
    white = np.percentile(small, 95, axis=(0, 1)) + 1
    stained = np.clip(white * ((small + 1.0) / white) ** look.stain, 0, 255).astype(np.uint8)
    return np.asarray(cv2.GaussianBlur(stained, (0, 0), look.blur), np.uint8), factor


def read_cut(path: Path, look: Look) -> Cut | None:
    """A crop changed by a look, with the pieces near its centre as its nucleus."""
    with Image.open(path) as file:
        image, _ = varied(np.asarray(file.convert("RGB")), UM_PX[path.parts[-3]], look)
    stain = stain_map(image)
    pieces = find_pieces(stain, WORK_UM)[0]
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
    gap = rng.uniform(-1.0, 4.0) / WORK_UM
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
    labels = find_pieces(stain, WORK_UM)[0]
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
                if np.hypot(*(a.centre - b.centre)) * WORK_UM < REACH_UM:
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


def of_fields(root: Path, part: int, rng: np.random.Generator) -> Iterator[Case]:
    """Leukocytes of whole fields and of crops with drawn nuclei, each with where it lies."""
    for name in ("bccd", "all_idb1", "wbc_masks"):
        for sample in list(sets.SETS[name](root))[part::2]:
            if not sample.boxes and sample.truth is None:
                continue
            um_px = 0.108 if name == "all_idb1" and sample.image.shape[1] < 2000 else UM_PX[name]
            image, factor = varied(sample.image, um_px, Look.drawn(rng))
            owners = []
            for box in sample.boxes:
                x0, y0, x1, y1 = (round(v * factor) for v in box)
                inside = np.zeros(image.shape[:2], bool)
                inside[max(y0, 0) : y1, max(x0, 0) : x1] = True
                owners.append(inside)
            if sample.truth is not None:
                shape = (image.shape[1], image.shape[0])
                nucleus = cv2.resize((sample.truth > 200).astype(np.uint8), shape)
                owners = [cv2.dilate(nucleus, np.ones((5, 5), np.uint8)) > 0]
            yield name, image, owners


def of_crops(root: Path, part: int, n: int, rng: np.random.Generator) -> Iterator[Case]:
    """Single cells, and two of them side by side; every third pair is of small round cells."""
    files = paths(root, part)
    small = [path for path in files if path.parent.name in SMALL]
    for k in range(n):
        look = Look.drawn(rng)
        pool = small if k % 3 == 0 else files
        a, b = (read_cut(pool[rng.integers(len(pool))], look) for _ in range(2))
        if a is None or b is None:
            continue
        yield "single", a.image, [a.nucleus]
        both = pasted(a, b, rng)
        if both:
            yield "pasted", both[0].image, [both[0].nucleus, both[1]]


def gather(root: Path, part: int, n: int) -> Table:
    rng = np.random.default_rng(part)
    values, truth, groups, names = [], [], [], []
    for number, (name, image, owners) in enumerate(
        chain(of_crops(root, part, n, rng), *(of_fields(root, part, rng) for _ in range(3)))
    ):
        for features, same in examples(stain_map(image), owners, rng):
            values.append(features)
            truth.append(same)
            groups.append(number)
            names.append(name)
    return Table(np.array(values), np.array(truth), np.array(groups), np.array(names))


@dataclass(frozen=True)
class Table:
    """Pairs of pieces: features, 1 where one cell's, number of the picture, kind of source."""

    x: NDArray[np.float64]
    y: NDArray[np.int64]
    group: NDArray[np.int64]
    source: NDArray[np.str_]


def main() -> None:
    parser = sets.data_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=1300)
    parser.add_argument("--tables", type=Path, help="folder to keep features and truth in")
    parser.add_argument("--out", type=Path, default=Path(lobe_model.__file__).with_suffix(".npz"))
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if arguments.tables and (arguments.tables / "held.npz").exists():
        parts = [Table(**np.load(arguments.tables / f"{name}.npz")) for name in ("train", "held")]
    else:
        parts = [gather(arguments.data, k, arguments.pairs // (1 + 2 * k)) for k in (0, 1)]
    if arguments.tables:
        for part, name in zip(parts, ("train", "held"), strict=True):
            np.savez(arguments.tables / f"{name}.npz", **vars(part))
    np.savez(arguments.out, **fit(*parts))


def balanced(table: Table) -> NDArray[np.float64]:
    """Weights that keep no source's answer from counting more than :data:`MOST` pairs."""
    weights = np.ones(len(table.y))
    for source in np.unique(table.source):
        for answer in (0, 1):
            same = (table.source == source) & (table.y == answer)
            weights[same] = min(1.0, MOST / max(int(same.sum()), 1))
    return weights


def fit(train: Table, held: Table) -> dict[str, NDArray[np.float32]]:
    """Fit on one half, judge on the other; the arrays of ``lobe_model.npz``."""
    mean, scale = train.x.mean(axis=0), train.x.std(axis=0) + 1e-9
    values, others = (np.clip((part.x - mean) / scale, -4, 4) for part in (train, held))
    weights = balanced(train)
    networks = []
    for seed in range(NETWORKS):
        rng = np.random.default_rng(seed)
        drawn = rng.choice(len(weights), len(weights), p=weights / weights.sum())
        network = MLPClassifier(HIDDEN, alpha=0.3, max_iter=60, random_state=seed, batch_size=256)
        networks.append(network.fit(values[drawn], train.y[drawn]))
    odds = np.mean([logits(n.predict_proba(others)[:, 1]) for n in networks], axis=0)
    report(odds, held)
    layers = [np.stack([n.coefs_[k] for n in networks]) for k in range(3)]
    biases = [np.stack([n.intercepts_[k] for n in networks]) for k in range(3)]
    arrays = {
        "mean": mean, "scale": scale, "first": layers[0], "first_bias": biases[0],
        "second": layers[1], "second_bias": biases[1], "last": layers[2][:, :, 0],
        "last_bias": biases[2][:, 0],
    }  # fmt: skip
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def logits(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log(p + 1e-9) - np.log(1 - p + 1e-9))


def report(odds: NDArray[np.float64], held: Table) -> None:
    weights = balanced(held)
    wrong = (odds > 0) != held.y
    print(
        f"held out {len(held.y)} pairs: "
        f"AUC {roc_auc_score(held.y, odds, sample_weight=weights):.4f}, "
        f"error {np.average(wrong, weights=weights):.4f}"
    )
    for source in np.unique(held.source):
        for answer, what in ((1, "one cell's"), (0, "two cells'")):
            same = (held.source == source) & (held.y == answer)
            if same.sum() >= 20:
                print(f"  {source}, {what}: error {wrong[same].mean():.3f} of {same.sum()}")


if __name__ == "__main__":
    main()
