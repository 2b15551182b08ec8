"""The present method and trained networks on each source, measured side by side, in Markdown.

``PYTHONPATH=benchmarks python benchmarks/training/leave_out.py --data ../shared/data --work WORK``
builds the cache, trains a network for each fold, which leaves its sources out (what lies in WORK
already is kept), and measures each source by the network that never saw it. With ``--weights`` a
network is measured on all sources instead; ``--part odd`` then keeps to images that taught nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from leukocyte_cells import Finder
from leukocyte_sources import fields_other, load, write
from leukocytes import PEAK_RATE, save, train

import segmentation as sets
from changes import CHANGES, Pixels
from millie.config import SegmentationConfig
from millie.segmentation import segment
from millie.types import Detection, PixelSize
from segmentation import Sample
from touching_pairs import shares_parted

FOLDS = {
    "A": ("raabin_575", "all_idb1", "all_idb2", "pbc_cells"),
    "B": ("draaslan_256", "wbc_masks", "apl_aml"),
    "C": ("bccd", "bccd_like_416", "bone_marrow_cells"),
}
"""``all_idb2`` was cut out of ``all_idb1``; platelets are of ``pbc_cells``."""
FIELDS = ("raabin_575", "bccd_like_416", "draaslan_256", "bccd", "all_idb1")
CROPS = ("pbc_cells", "platelet", "bone_marrow_cells", "apl_aml", "wbc_masks", "lmu_cells")
MOST = 300  # crops of a source, about

Find = Callable[[Pixels, PixelSize | None], Detection]


def rules(image: Pixels, pixel_size: PixelSize | None) -> Detection:
    return segment(image, pixel_size, SegmentationConfig())


@cache
def samples_of(root: Path, name: str, part: str) -> list[Sample]:
    """All images of a source or the odd-numbered ones, crops thinned."""
    if name.startswith(("raabin", "bccd_like", "draaslan")):
        found = [
            Sample(file, image, tuple(b for kind, b in boxes if kind == "leukocyte"))
            for file, image, boxes in fields_other(root, name)
        ]
    elif name == "lmu_cells":
        found = list(sets.crops(name, "*/*.jpg")(root))
    else:
        found = list(sets.SETS[name](root))
    found = sets.half(found, part)
    step = max(1, len(found) // MOST) if name in CROPS else 1
    return found[step // 2 :: step]


def measures(find: Find, name: str, samples: list[Sample], *, known: bool) -> dict[str, float]:
    """What is measured on a source, the scale known or to be found."""
    scales = [sets.given(name, s) for s in samples]
    found = [find(s.image, um if known else None) for s, um in zip(samples, scales, strict=True)]
    pairs = list(zip(found, samples, strict=True))
    if name in FIELDS:
        counts = np.array([sets.match(d, s.boxes) for d, s in pairs])
        ill = np.array([s.kind != "0" for s in samples])
        rows = {"F1": sets.f1(counts)}
        if name == "all_idb1":
            healthy = float(counts[~ill, 1].mean())
            rows = {"blast recall": sets.recall(counts[ill]), "cells a healthy field": healthy}
    else:
        one = float(np.mean([sets.exactly_one(d, s.image.shape) for d, s in pairs]))
        rows = {"taken" if name == "platelet" else "exactly one": one}
    if name == "wbc_masks":
        for what, level in (("nucleus Dice", 200), ("cell Dice", 60)):
            rows[what] = float(
                np.mean([sets.dice(d, s.truth, level) for d, s in pairs if s.truth is not None])
            )
    if not known:
        read = [
            d.diagnostics.get("um_px", np.inf) / s.um_px for d, s in zip(found, scales, strict=True)
        ]
        rows["scale within 10 %"] = float(np.mean(np.abs(np.log(read)) < np.log(1.1)))
    return rows


def rows_of(find: Find, root: Path, name: str, part: str) -> Iterator[tuple[str, str]]:
    """(measure, value with the scale found alone / given) of a source."""
    samples = samples_of(root, name, part)
    changed = {name: samples}
    if name == "bccd":
        purple = "dark purple red cells"
        changed[f"{name}, {purple}"] = sets.changed(samples, CHANGES[purple])
    for title, images in changed.items():
        alone, given = (measures(find, name, images, known=known) for known in (False, True))
        for what, value in alone.items():
            text = f"{value:.3f} / {given[what]:.3f}" if what in given else f"{value:.3f}"
            yield f"{title} {what} ({len(images)})", text
    if name == "wbc_masks":
        for overlap, share, n in shares_parted(root, part, find):
            yield f"pairs of {name}, overlap of {overlap} um, parted ({n})", f"- / {share:.3f}"


def folds(root: Path, work: Path, seconds: float) -> dict[str, Path]:
    """Weights that have not seen a source, by source."""
    if not (work / "cache").exists():
        write(root, work / "cache", [])
    paths: dict[str, Path] = {}
    for fold, sources in FOLDS.items():
        path = work / f"{fold}.safetensors"
        if not path.exists():
            save(
                train(load(work / "cache", set(sources), "even"), seconds, 0, None, PEAK_RATE), path
            )
        paths |= dict.fromkeys(sources, path)
    return paths | {"platelet": paths["pbc_cells"]}


def main() -> None:
    parser = sets.data_parser(__doc__)
    parser.add_argument("--work", type=Path, help="folder for the cache and the folds' weights")
    parser.add_argument("--seconds", type=float, default=1200, help="of training for each fold")
    parser.add_argument("--weights", type=Path, help="measure these instead of the folds")
    parser.add_argument("--sources", nargs="+", choices=FIELDS + CROPS, default=FIELDS + CROPS)
    parser.add_argument("--part", choices=("all", "odd"), default="all")
    parser.add_argument("--rules", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    if not (arguments.work or arguments.weights):
        parser.error("--work or --weights is needed")
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    if arguments.weights:
        weights = dict.fromkeys(arguments.sources, arguments.weights)
    else:
        weights = folds(arguments.data, arguments.work, arguments.seconds)
    print("| source and measure (n), scale found / given | rules | network |\n|---|---|---|")
    for name in [n for n in arguments.sources if n in weights]:
        given = arguments.data, name, arguments.part
        network = dict(rows_of(Finder(weights[name]), *given))
        present = dict(rows_of(rules, *given)) if arguments.rules else {}
        for what, value in network.items():
            print(f"| {what} | {present.get(what, '')} | {value} |", flush=True)


if __name__ == "__main__":
    main()
