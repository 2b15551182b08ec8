"""What spoiled images do to a model, and how many of them its gates refuse.

`python benchmarks/spoiled_images.py STORE --model apl-blood` changes the crops of all patients of a
store by degrees (blur, hue, JPEG), and lets the model call them. Prints for each degree the
ROC AUC of the model's positive class, the share of patients whom a gate of quality refuses, and
what became of calls: kept, withheld, or another one. The shipped models have learnt from these
patients, so AUC is too high; what counts is where it falls, and whether gates speak before.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millie.bags.store import BagReader, Store
from millie.inference.predict import bundle_runtimes, predict_bag
from millie.models.bundle import load_bundle
from millie.statistics.metrics import roc_auc
from millie.synthetic.changes import blur, compress, turn_hue

Pixels = NDArray[np.uint8]
GATES = frozenset({
    "OUT_OF_FOCUS", "CLIPPED", "STAIN_TOO_WEAK", "COLOURS_TOO_WEAK", "OTHER_CAMERA_OR_STAIN",
    "SMUDGE_CELLS", "CELLS_TOO_SMALL", "CELLS_TOO_LARGE", "NOT_MEASURED",
})  # fmt: skip


DEGREES: dict[str, Callable[[Pixels], Pixels]] = {
    "as they are": lambda image: image,
    **{f"blur, sd {s} px": partial(blur, sigma_px=s) for s in (1, 2, 3, 5)},
    **{f"hue + {h}": partial(turn_hue, turn=h) for h in (0.05, 0.1, 0.2)},
    **{f"JPEG {q}": partial(compress, quality=q) for q in (50, 20, 10)},
}


class Spoiled:
    """A reader whose crops are changed; masks and all else are the bag's."""

    def __init__(self, reader: BagReader, change: Callable[[Pixels], Pixels]) -> None:
        self._reader, self._change = reader, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def images(self, start: int, stop: int) -> Pixels:
        """Changed crops (n, S, S, 3)."""
        return np.stack([self._change(image) for image in self._reader.images(start, stop)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--model", default="apl-blood")
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.model)
    runtimes, config = bundle_runtimes(bundle, bundle.config.prediction), bundle.config.prediction
    before: dict[str, str] = {}
    for name, change in DEGREES.items():
        scores, labels, refused, kept, withheld, other = [], [], 0, 0, 0, 0
        for path in Store(arguments.store).files():
            with BagReader(path) as reader:
                found = predict_bag(bundle, Spoiled(reader, change), runtimes, config)
                labels.append(reader.label)
            scores.append(found.probabilities[bundle.manifest.positive])
            refused += any(reason.code in GATES for reason in found.reasons)
            was = before.setdefault(found.patient, found.state)
            if not was.endswith("INDETERMINATE"):
                kept += found.state == was
                withheld += found.state.endswith("INDETERMINATE")
                other += found.state != was and not found.state.endswith("INDETERMINATE")
        positive = np.array([label == bundle.manifest.positive for label in labels])
        auc = roc_auc(positive, np.array(scores))
        print(
            f"{name} | AUC {auc:.3f} | refused {refused} of {len(labels)} | calls kept {kept}, "
            f"withheld {withheld}, another {other}",
            flush=True,
        )


if __name__ == "__main__":
    main()
