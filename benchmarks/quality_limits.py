"""How often quality limits refuse patients of the cohort that they were not fitted to.

    python benchmarks/quality_limits.py STORE

STORE: bags of ``millie segment``. Limits are fitted to a random two thirds of the patients and
applied to the rest, 20 times; needs a minute for 82 patients on one core.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np

from millie.bags.store import BagReader, Store
from millie.config import PredictionConfig
from millie.inference.gates import failed_gates, quality_limits
from millie.inference.quality import measure_bag

_REPEATS, _PARTS = 20, 3


def main() -> None:
    """Print the limits of all patients, the rate out of fold, and which gates failed."""
    samples = []
    for path in Store(Path(sys.argv[1])).files():
        with BagReader(path) as reader:
            samples.append(measure_bag(reader))
    config = PredictionConfig(min_cells=1)  # quality alone, whatever the number of cells
    codes: Counter[str] = Counter()
    refused = tried = 0
    for seed in range(_REPEATS):
        order = np.random.default_rng(seed).permutation(len(samples))
        for part in np.array_split(order, _PARTS):
            limits = quality_limits([samples[i] for i in np.setdiff1d(order, part)])
            for i in part:
                reasons = failed_gates(samples[i], limits, config)
                tried, refused = tried + 1, refused + bool(reasons)
                codes.update(reason.code for reason in reasons)
    for name, limit in quality_limits(samples).items():
        print(f"{name:<22} {limit:.4f}")
    print(f"{len(samples)} patients, out of fold {refused} of {tried} refused: {dict(codes)}")


if __name__ == "__main__":
    main()
