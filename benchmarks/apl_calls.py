"""How patients out of fold are called: APL found, missed, or left to a person.

`python benchmarks/apl_calls.py STORE --repeats 3` cross-validates the default recipe and lets the
rule of `millie predict` decide about each test patient: the threshold and the interval of the
probability under new draws of the patient's cells. Quality gates take no part. Prints counts with
exact intervals; a patient is counted once in each repeat, so intervals are for single repeats.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import torch

from millie.bags.store import Store
from millie.config import load
from millie.evaluation.crossval import open_study
from millie.inference.calls import CallRule, decide
from millie.inference.gates import SampleQuality
from millie.inference.resampling import probability_ranges
from millie.learning.ensemble import Cast, fit_ensemble
from millie.learning.material import participants
from millie.learning.sampling import whole_bag
from millie.learning.splits import make_splits
from millie.learning.train import silent
from millie.models.golden import ensemble_probabilities
from millie.statistics.intervals import clopper_pearson

GOOD = SampleQuality(1000, 1000, 0.0, 1.0, 0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    store, config = Store(arguments.store), load()
    who = participants(store)
    study = open_study(store, who, config, "APL", silent)
    states: dict[int, Counter[tuple[str, str]]] = {}
    for fold in make_splits(who.labels, 3, arguments.repeats, config.evaluation.seed).assignments:
        train = tuple(sorted({*fold.train, *fold.validation}))
        seed = config.training.seed + fold.repeat * 100 + fold.fold
        cast = Cast(study.classes, "APL", study.labels, train, seed)
        fitted = fit_ensemble(study.material, cast, config)
        rule = CallRule("APL", fitted.threshold, {})

        def probabilities(logits: torch.Tensor, by: float = fitted.temperature) -> torch.Tensor:
            return ensemble_probabilities(logits, by)

        for patient in fold.test:
            cells = study.material.source.cells(
                patient, whole_bag(study.material.source, patient).indices
            )
            with torch.no_grad():
                logits = torch.stack([n.bag_logits(cells[None])[0] for n in fitted.networks])
            point = dict(zip(study.classes, probabilities(logits).tolist(), strict=True))
            ranges = probability_ranges(fitted.networks, [cells], probabilities, point)
            state = decide(point, rule, GOOD, (), config.prediction, ranges)[0]
            plain = decide(
                point, rule, GOOD, (), config.prediction, {k: (p, p) for k, p in point.items()}
            )[0]
            own = states.setdefault(fold.repeat, Counter())
            own[study.labels[patient], state] += 1
            own[study.labels[patient], f"{plain} by the threshold alone"] += 1
    for repeat, counts in states.items():
        apl = sum(
            n for (label, state), n in counts.items() if label == "APL" and "alone" not in state
        )
        found = apl - counts["APL", "AML"]
        everyone = len(who.labels)
        held = sum(n for (_, state), n in counts.items() if state == "URGENT_INDETERMINATE")
        print(f"repeat {repeat}: {dict(sorted(counts.items()))}")
        for what, k, n in (("APL found", found, apl), ("left to a person", held, everyone)):
            share = clopper_pearson(k, n, 0.95)
            print(f"  {what}: {k} of {n}, {share.value:.3f} ({share.low:.3f} to {share.high:.3f})")
    total = sum(states.values(), Counter())
    missed, alone = total["APL", "AML"], total["APL", "AML by the threshold alone"]
    wrong = total["AML", "APL_SUSPECT"] / len(states)
    print(
        f"all repeats: {missed} APL called AML, {alone} by the threshold alone; "
        f"{wrong:.1f} AML a repeat called APL"
    )


if __name__ == "__main__":
    main()
