"""What spoiled images do to `apl-blood`, and how many of them its gates refuse.

`python benchmarks/spoiled_images.py STORE` changes the crops of all patients of a store by degrees
(blur, exposure, hue, JPEG). Prints for each degree the ROC AUC of APL out of fold (three folds of
the default recipe, each patient scored by networks that had not seen it), the share of patients
whom a gate of quality refuses, and what becomes of the shipped model's calls: kept, withheld, or
another one. For each kind of change it then says where AUC has fallen by 0.05, and how many the
gates refuse there (both by straight lines between degrees). The shipped model and the limits of its
gates have learnt from these patients. With `--cells N` the first N cells of each patient are used,
which is quicker; of fewer than 50 no call is given.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from apl_calls import Fold, folds
from millie.bags.store import BagReader, Store
from millie.config import load
from millie.inference.predict import bundle_runtimes, predict_bag
from millie.inference.runtime import FeatureRuntime
from millie.models.bundle import load_bundle
from millie.statistics.intervals import clopper_pearson
from millie.statistics.metrics import roc_auc
from millie.synthetic.changes import blur, compress, recolour, turn_hue
from millie.types import Cell, Prediction, SourceRecord

Pixels = NDArray[np.uint8]
Change = Callable[[Pixels], Pixels]
MODEL = "apl-blood"
FALL = 0.05
GATES = frozenset({
    "OUT_OF_FOCUS", "CLIPPED", "STAIN_TOO_WEAK", "COLOURS_TOO_WEAK", "OTHER_CAMERA_OR_STAIN",
    "SMUDGE_CELLS", "CELLS_TOO_SMALL", "CELLS_TOO_LARGE", "NOT_MEASURED",
})  # fmt: skip


DEGREES: dict[str, dict[str, Change]] = {
    "blur": {f"sd {s} px": partial(blur, sigma_px=s) for s in (1, 2, 4)},
    "brighter": {f"x {f}": partial(recolour, gains=(f, f, f)) for f in (1.3, 1.6)},
    "darker": {f"x {f}": partial(recolour, gains=(f, f, f)) for f in (0.5, 0.25)},
    "hue": {f"+ {h}": partial(turn_hue, turn=h) for h in (0.05, 0.1, 0.2)},
    "JPEG": {f"quality {q}": partial(compress, quality=q) for q in (20, 10, 5)},
}
"""By kind, from mild to strong. Hue is a share of the circle."""


class Spoiled:
    """A reader whose crops and background colours are changed; masks and all else are the bag's.

    Args:
        reader: of the bag.
        change: of pictures.
        most: cells to show; 0: all.
    """

    def __init__(self, reader: BagReader, change: Change, most: int) -> None:
        self._reader, self._change = reader, change
        self.n_cells = min(reader.n_cells, most or reader.n_cells)
        self.cells: list[Cell] = reader.cells[: self.n_cells]
        self.sources = [self._changed(source) for source in reader.sources]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def images(self, start: int, stop: int) -> Pixels:
        """Changed crops (n, S, S, 3)."""
        own = self._reader.images(start, min(stop, self.n_cells))
        return np.stack([self._change(image) for image in own])

    def masks(self, start: int, stop: int) -> Pixels:
        """Masks (n, S, S) of the same cells."""
        return self._reader.masks(start, min(stop, self.n_cells))

    def sources_of(self, start: int, stop: int) -> list[int]:
        """Numbers of their images."""
        return self._reader.sources_of(start, min(stop, self.n_cells))

    def _changed(self, source: SourceRecord) -> SourceRecord:
        """The same change of the empty background, as segmentation would have found it."""
        colour = source.diagnostics.get("background_rgb")
        if colour is None:
            return source
        patch = np.full((16, 16, 3), np.asarray(colour), np.float64).round().astype(np.uint8)
        found = self._change(patch).reshape(-1, 3).mean(axis=0).tolist()
        return replace(source, diagnostics={**source.diagnostics, "background_rgb": found})


class Remembering:
    """A runtime that keeps what it computed for one bag."""

    def __init__(self, runtime: FeatureRuntime) -> None:
        self._runtime = runtime
        self.seen: list[NDArray[np.float32]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def __call__(self, images: Pixels) -> NDArray[np.float32]:
        """Features (n, D), which are kept."""
        self.seen.append(self._runtime(images))
        return self.seen[-1]


class Degree(NamedTuple):
    """What one degree of a change did."""

    auc: float
    refused: int
    patients: int
    calls: Mapping[str, str]


def asked(store: Store, change: Change, fold_of: Mapping[str, Fold], most: int) -> Degree:
    """Score and call every patient under a change."""
    bundle = load_bundle(MODEL)
    config = bundle.config.prediction
    (runtime,) = bundle_runtimes(bundle, config)
    scores, positive, refused, calls = [], [], 0, {}
    for path in store.files():
        with BagReader(path) as reader:
            shown, kept = Spoiled(reader, change, most), Remembering(runtime)
            found: Prediction = predict_bag(bundle, shown, kept, config)
            positive.append(reader.label == "APL")
        fold = fold_of[found.patient]
        cells = torch.from_numpy(np.concatenate(kept.seen))
        scores.append(fold.of_bags(cells[None])[0][fold.classes.index("APL")])
        refused += any(reason.code in GATES for reason in found.reasons)
        calls[found.patient] = found.state
    return Degree(roc_auc(np.array(positive), np.array(scores)), refused, len(scores), calls)


def told(name: str, found: Degree, before: Degree) -> None:
    """Print one degree."""
    share = clopper_pearson(found.refused, found.patients, 0.95)
    called = [p for p, state in before.calls.items() if not state.endswith("INDETERMINATE")]
    kept = sum(found.calls[p] == before.calls[p] for p in called)
    withheld = sum(found.calls[p].endswith("INDETERMINATE") for p in called)
    print(
        f"{name} | AUC {found.auc:.3f} | refused {found.refused} of {found.patients} "
        f"({share.low:.2f} to {share.high:.2f}) | calls kept {kept}, withheld {withheld}, "
        f"another {len(called) - kept - withheld}",
        flush=True,
    )


def turning_point(kind: str, names: list[str], found: list[Degree]) -> None:
    """Print where AUC has fallen by 0.05; the first degree is the untouched one."""
    limit = found[0].auc - FALL
    for i in range(1, len(found)):
        if found[i].auc <= limit:
            part = (found[i - 1].auc - limit) / (found[i - 1].auc - found[i].auc)
            before, after = (one.refused / one.patients for one in found[i - 1 : i + 1])
            print(
                f"{kind}: AUC is lower by {FALL} at {part:.2f} of the way from {names[i - 1]} to "
                f"{names[i]}; refused there {before + part * (after - before):.2f}"
            )
            return
    least = min(one.auc for one in found)
    print(f"{kind}: AUC is nowhere lower by {FALL}; its lowest is {least:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--cells", type=int, default=0, help="of each patient; 0: all")
    parser.add_argument("--kinds", nargs="*", default=list(DEGREES), choices=list(DEGREES))
    arguments = parser.parse_args()
    store, most = Store(arguments.store), arguments.cells
    fold_of = {p: fold for fold, split in folds(store, load(), 1) for p in split.test}
    before = asked(store, lambda image: image, fold_of, most)
    told("untouched", before, before)
    for kind in arguments.kinds:
        degrees, found = DEGREES[kind], [before]
        for name, change in degrees.items():
            found.append(asked(store, change, fold_of, most))
            told(f"{kind} {name}", found[-1], before)
        turning_point(kind, ["untouched", *degrees], found)


if __name__ == "__main__":
    main()
