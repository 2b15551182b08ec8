"""How often a cell gets the type that experts gave it: `looks_like` against labels of cells.

`python benchmarks/cell_types.py STORE [BUNDLE]` reads a bag store whose cells have labels (`millie
prepare apl_aml`, `millie segment`) and prints, for whole cells of types that the encoder knows, the
share that got their type, with an interval from 2,000 draws of the patients. Types that the set
does not tell apart as the encoder does stand together: neutrophils with and without segments,
blasts of both lines.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from millie.bags.store import BagReader, Store
from millie.inference.predict import predict_bag
from millie.inference.runtime import feature_runtime
from millie.models.bundle import load_bundle

NEUTROPHILS = ("segmented neutrophil", "band neutrophil")
SAME = {
    "blast": ("myeloblast", "lymphoblast"),
    "segmented neutrophil": NEUTROPHILS,
    "band neutrophil": NEUTROPHILS,
}


def main() -> None:
    bundle = load_bundle(sys.argv[2] if len(sys.argv) > 2 else "acute-leukaemia")
    (encoder,) = bundle.encoders()
    runtime = feature_runtime(encoder, bundle.config.prediction)
    assert encoder.types is not None
    known = {name: (name,) for name in encoder.types.names} | SAME
    taken: dict[str, Counter[str]] = defaultdict(Counter)
    counts = []
    for path in Store(Path(sys.argv[1])).files():
        with BagReader(path) as bag:
            found = predict_bag(
                bundle, bag, runtime, bundle.config.prediction, types=encoder.types
            ).cell_types
            own = [(c.label, x) for c, x in zip(bag.cells, found, strict=True) if c.label and x]
        own = [(label, looks) for label, looks in own if label in known]
        for label, looks in own:
            taken[label][looks] += 1
        counts.append((sum(looks in known[label] for label, looks in own), len(own)))
    whole = np.array(counts)
    drawn = np.random.default_rng(0).integers(0, len(whole), (2000, len(whole)))
    right, cells = whole[drawn].sum(axis=1).T
    low, high = np.quantile(right / cells, (0.025, 0.975))
    total = whole.sum(axis=0)
    print(f"{total[0] / total[1]:.2f} ({low:.2f} to {high:.2f}) of {total[1]:,} cells, "
          f"{len(whole)} patients")  # fmt: skip
    for label, looks in sorted(taken.items(), key=lambda item: -item[1].total()):
        share = sum(looks[name] for name in known[label]) / looks.total()
        others = [(x, n) for x, n in looks.most_common() if x not in known[label]][:1]
        print(f"{label}: {share:.2f} of {looks.total()}; next {others}")


if __name__ == "__main__":
    main()
