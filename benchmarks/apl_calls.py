"""How patients out of fold are called: APL found, missed, or left to a person.

`python benchmarks/apl_calls.py STORE --repeats 3` cross-validates the default recipe and lets the
rule of `millie predict` decide about each test patient, at each operating point: limits from the
training part and the interval of the probability under new draws of the patient's cells. Quality
gates take no part; "screened" asks `acute-leukaemia` first, as `millie predict apl-blood` does (it
has learnt from these patients). Prints counts with exact intervals (a patient is counted once in
each repeat, so intervals are for single repeats), the coverage of conformal sets, what the calls of
the surest patients are worth (risk and coverage), and how the rates move with the number of cells.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from millie.bags.store import Store
from millie.config import Config, PredictionConfig, load
from millie.evaluation.crossval import Study, open_study
from millie.inference.calls import CallRule, decide
from millie.inference.operating import call_rule
from millie.inference.quality import SampleQuality
from millie.inference.resampling import probability_ranges
from millie.inference.screen import Screen
from millie.learning.ensemble import Cast, Ensemble, fit_ensemble
from millie.learning.fit import held_out
from millie.learning.material import participants
from millie.learning.sampling import whole_bag
from millie.learning.splits import make_splits
from millie.learning.train import silent
from millie.models.bundle import load_bundle
from millie.models.golden import ensemble_probabilities
from millie.statistics.conformal import p_values
from millie.statistics.intervals import clopper_pearson

GOOD = SampleQuality(1000, 1000, 0.0, 1.0, 0.3)
POINTS = ("sensitive", "balanced", "specific")
ALPHAS = (0.05, 0.1, 0.2)
PARTS = (10, 25, 50)
DRAWS = 20


class Called(NamedTuple):
    """A test patient: the truth, a state by operating point, and p-values by class.

    ``parts`` are shares of sub-bags called APL, by number of cells; none of patients with fewer.
    """

    label: str
    repeat: int
    states: Mapping[str, str]
    p_values: Mapping[str, float]
    probability: float
    parts: Mapping[int, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    found = out_of_fold(Store(arguments.store), load(), arguments.repeats)
    for point in (*POINTS, "sensitive, screened", "threshold alone"):
        print_states(found, point)
    print_sets(found)
    print_risk(found)
    print_parts(found)


class Fold(NamedTuple):
    """A trained ensemble with its rules and settings by operating point, and who was held out."""

    fitted: Ensemble
    classes: tuple[str, ...]
    held: tuple[NDArray[np.float64], NDArray[np.int64]]
    rules: Mapping[str, CallRule]
    settings: Mapping[str, PredictionConfig]

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Calibrated (n, C) of logits (M, n, C)."""
        return ensemble_probabilities(logits, self.fitted.temperature)

    @torch.no_grad()
    def of_bags(self, bags: torch.Tensor) -> NDArray[np.float64]:
        """Probabilities (B, C) of bags (B, N, D)."""
        logits = torch.stack([network.bag_logits(bags) for network in self.fitted.networks])
        return self.probabilities(logits).numpy()


def out_of_fold(store: Store, config: Config, repeats: int) -> list[Called]:
    """Every patient once in each repeat, called by networks that had not seen it."""
    who = participants(store)
    study = open_study(store, who, config, "APL", silent)
    source, found = study.material.source, []
    screen = Screen(load_bundle("acute-leukaemia"))
    for split in make_splits(who.labels, 3, repeats, config.evaluation.seed).assignments:
        train = tuple(sorted({*split.train, *split.validation}))
        seed = config.training.seed + split.repeat * 100 + split.fold
        fold = fitted_fold(study, Cast(study.classes, "APL", study.labels, train, seed), config)
        for patient in split.test:
            cells = source.cells(patient, whole_bag(source, patient).indices)
            found.append(called(fold, screen, cells, study.labels[patient], split.repeat))
    return found


def fitted_fold(study: Study, cast: Cast, config: Config) -> Fold:
    """Train on a training part and work out the limits of each operating point."""
    fitted = fit_ensemble(study.material, cast, config)
    held = held_out(fitted, cast)
    settings = {
        point: config.with_settings([f"prediction.operating_point={point}"]).prediction
        for point in POINTS
    }
    rules = {
        point: call_rule("APL", fitted.threshold, cast.classes, held, own, {})
        for point, own in settings.items()
    }
    return Fold(fitted, cast.classes, held, rules, settings)


def called(fold: Fold, screen: Screen, cells: torch.Tensor, label: str, repeat: int) -> Called:
    """What is said of a test patient."""
    p = fold.of_bags(cells[None])[0]
    point_of = dict(zip(fold.classes, p.tolist(), strict=True))
    ranges = probability_ranges(fold.fitted.networks, [cells], fold.probabilities, point_of)
    states = {
        name: decide(point_of, rule, GOOD, (), fold.settings[name], ranges)[0]
        for name, rule in fold.rules.items()
    }
    doubt, ruled_out = screen.ask([cells], fold.classes)
    states["sensitive, screened"] = decide(
        point_of, fold.rules["sensitive"], GOOD, doubt, fold.settings["sensitive"], ranges,
        elsewhere=ruled_out,
    )[0]  # fmt: skip
    plain = CallRule("APL", fold.fitted.threshold, fold.fitted.threshold, {})
    alone = {x: (value, value) for x, value in point_of.items()}
    states["threshold alone"] = decide(
        point_of, plain, GOOD, (), fold.settings["balanced"], alone
    )[0]  # fmt: skip
    values = dict(zip(fold.classes, p_values(*fold.held, p).tolist(), strict=True))
    return Called(label, repeat, states, values, point_of["APL"], parts_called(fold, cells))


def parts_called(fold: Fold, cells: torch.Tensor) -> dict[int, float]:
    """Share of sub-bags called APL, by number of cells; none of patients with fewer."""
    found = {}
    for size in PARTS if len(cells) >= max(PARTS) else ():
        rng = np.random.default_rng(0)
        drawn = np.stack([rng.permutation(len(cells))[:size] for _ in range(DRAWS)])
        own = fold.of_bags(cells[torch.from_numpy(drawn)])[:, fold.classes.index("APL")]
        found[size] = float((own >= fold.fitted.threshold).mean())
    return found


def print_states(called: list[Called], point: str) -> None:
    """Counts of each repeat at an operating point."""
    print(f"\n{point}")
    by_repeat: dict[int, Counter[tuple[str, str]]] = defaultdict(Counter)
    for one in called:
        by_repeat[one.repeat][one.label, one.states[point]] += 1
    for repeat, counts in by_repeat.items():
        apl = sum(n for (label, _), n in counts.items() if label == "APL")
        held = sum(n for (_, state), n in counts.items() if state.endswith("INDETERMINATE"))
        print(f"  repeat {repeat}: {dict(sorted(counts.items()))}")
        rows = (
            ("APL found", apl - counts["APL", "AML"], apl),
            ("AML not called APL", counts.total() - apl - counts["AML", "APL_SUSPECT"],
             counts.total() - apl),
            ("left to a person", held, counts.total()),
        )  # fmt: skip
        for what, k, n in rows:
            share = clopper_pearson(k, n, 0.95)
            print(
                f"    {what}: {k} of {n}, {share.value:.3f} ({share.low:.3f} to {share.high:.3f})"
            )


def print_sets(called: list[Called]) -> None:
    """How often conformal sets hold the true class, and how many hold one class alone."""
    print("\nconformal sets")
    for alpha in ALPHAS:
        for label in sorted({one.label for one in called}):
            own = [one for one in called if one.label == label and one.repeat == 0]
            k = sum(one.p_values[label] > alpha for one in own)
            single = sum(sum(v > alpha for v in one.p_values.values()) == 1 for one in own)
            share = clopper_pearson(k, len(own), 0.95)
            print(
                f"  alpha {alpha}, {label}: held by {k} of {len(own)}, {share.value:.3f} "
                f"({share.low:.3f} to {share.high:.3f}); one class alone for {single}"
            )


def print_risk(called: list[Called]) -> None:
    """Share of wrong calls among the surest patients, mean over repeats."""
    print("\nrisk and coverage (surest by |p - 0.5|, called by the threshold alone)")
    repeats = sorted({one.repeat for one in called})
    for coverage in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        risks = []
        for repeat in repeats:
            own = sorted(
                (one for one in called if one.repeat == repeat),
                key=lambda one: -abs(one.probability - 0.5),
            )
            kept = own[: round(coverage * len(own))]
            wrong = [
                (one.states["threshold alone"] == "APL_SUSPECT") != (one.label == "APL")
                for one in kept
            ]
            risks.append(np.mean(wrong))
        print(f"  {coverage:.0%} of patients: {np.mean(risks):.3f} called wrongly")


def print_parts(called: list[Called]) -> None:
    """Rates of sub-bags by number of cells, by the threshold alone; the same patients for all."""
    own = [one for one in called if one.parts]
    having = len({id(one) for one in own}) // max(1, len({one.repeat for one in own}))
    print(f"\nnumber of cells ({having} patients with {max(PARTS)} or more)")
    for size in PARTS:
        rates = [
            np.mean([one.parts[size] for one in own if one.label == label])
            for label in ("APL", "AML")
        ]
        print(f"  {size} cells: APL called APL {rates[0]:.3f}, AML called APL {rates[1]:.3f}")


if __name__ == "__main__":
    main()
