"""What `acute-leukaemia` is worth elsewhere: leave one source out.

`python benchmarks/acute_leukaemia.py STORE OUT --fold WEIGHTS SITE...`, a fold each. STORE is the
cohort of ``benchmarks/training/acute_leukaemia.py`` cut by `millie segment`, WEIGHTS the encoder of
``blasts.py --without SITE...``. Prints, for each left-out site and class, the lowest, median and
highest probability of any leukaemia and which class is the likeliest, and AUCs with DeLong
intervals. Figures of pseudo-patients say nothing about persons.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from millie.bags.store import Store
from millie.config import Config, load
from millie.evaluation.crossval import open_study
from millie.evaluation.folds import FoldResult, finish_fold
from millie.learning.material import participants
from millie.learning.splits import Fold
from millie.learning.train import silent
from millie.statistics.intervals import delong_interval

NORMAL = "normal"
CLASSES = ("ALL", "AML", "APL", NORMAL)


def score(store: Store, config: Config, sites: list[str], number: int, out: Path) -> FoldResult:
    """Train on the other sites, score the patients of these; APL is AML where none is left."""
    who = participants(store)
    left = {bag.patient for bag in store.index() if bag.site in sites}
    if not any(label == "APL" for p, label in who.labels.items() if p not in left):
        merged = {p: "AML" if label == "APL" else label for p, label in who.labels.items()}
        who = replace(who, labels=merged)
    study = open_study(store, who, config, "APL" if "APL" in who.classes else "AML", silent)
    test = tuple(sorted(p for p in who.labels if p in left))
    train = tuple(sorted(p for p in who.labels if p not in left))
    return finish_fold(study, Fold(0, number, train, (), test), out, silent)


def told(result: FoldResult, site_of: dict[str, str]) -> None:
    """Print the fold."""
    classes = tuple(sorted({*CLASSES} - ({"APL"} if _width(result) == 3 else set())))
    patients = sorted(result.patients)
    truth = np.array([result.patients[p].label for p in patients])
    site = np.array([site_of[p] for p in patients])
    p = np.array([result.patients[patient].probabilities for patient in patients])
    leukaemia = 1 - p[:, classes.index(NORMAL)]
    called = np.array(classes)[p.argmax(axis=1)]
    for name, label in sorted({*zip(site.tolist(), truth.tolist(), strict=True)}):
        own = (site == name) & (truth == label)
        low, middle, high = np.quantile(leukaemia[own], (0, 0.5, 1))
        calls = ", ".join(f"{n} {c}" for c, n in Counter(called[own].tolist()).most_common())
        print(
            f"  {name:14s} {label:7s} n={own.sum():3d}  P(leukaemia) {low:.2f} {middle:.2f} "
            f"{high:.2f}  most likely: {calls}"
        )
    for label in ("leukaemia", *classes):
        own = truth != NORMAL if label == "leukaemia" else truth == label
        either = own | (truth == NORMAL)
        if label != NORMAL and own.any() and (truth == NORMAL).any():
            found = delong_interval(own[either], leukaemia[either], 0.95)
            counts = f"{own.sum()} against {(truth == NORMAL).sum()} normal"
            ends = f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
            print(f"  AUC {label} by P(leukaemia), {counts}: {ends}")


def _width(result: FoldResult) -> int:
    return len(next(iter(result.patients.values())).probabilities)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fold", nargs="+", action="append", required=True,
                        metavar=("WEIGHTS", "SITE"))  # fmt: skip
    parser.add_argument("--profile", default="acute-leukaemia")
    parser.add_argument("--set", nargs="*", default=[], metavar="stage.field=value")
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    store = Store(arguments.store)
    site_of = {bag.patient: bag.site for bag in store.index()}
    for number, (weights, *sites) in enumerate(arguments.fold):
        words = [f'model.weights="{weights}"', *arguments.set]
        config = load(profile=arguments.profile).with_settings(words)
        print(f"without {', '.join(sites)}", flush=True)
        result = score(store, config, sites, number, arguments.out)
        told(result, site_of)


if __name__ == "__main__":
    main()
