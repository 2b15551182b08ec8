"""How patients out of fold are called: APL found, missed, or left to a person.

`python benchmarks/apl_calls.py STORE --repeats 3` cross-validates the default recipe and lets the
rule of `millie predict` decide about each test patient, at each operating point: limits from the
training part, the interval of the probability under new draws of the patient's cells, and the least
share of immature cells. Quality gates take no part; "screened" asks `acute-leukaemia` first, as
`millie predict apl-blood` does (it has learnt from these patients). Prints counts with exact
intervals (a patient is counted once in each repeat, so intervals are for single repeats), why
patients are left to a person whom the threshold alone would have called rightly, the coverage of
conformal sets, what the calls of the surest patients are worth (risk and coverage), and how the
rates move with the number of cells.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from millie.bags.store import Store
from millie.config import Config, PredictionConfig, load
from millie.evaluation.crossval import Study, open_study
from millie.inference.calls import CallRule, decide
from millie.inference.immature import immature, immature_cells, immature_limit
from millie.inference.operating import call_rule
from millie.inference.quality import SampleQuality
from millie.inference.resampling import probability_ranges
from millie.inference.screen import Screen
from millie.learning.ensemble import Cast, Ensemble, fit_ensemble
from millie.learning.fit import held_out
from millie.learning.material import participants
from millie.learning.sampling import CellSource, whole_bag
from millie.learning.splits import Fold as Split
from millie.learning.splits import make_splits
from millie.learning.train import silent
from millie.models.bundle import load_bundle
from millie.models.golden import ensemble_probabilities
from millie.statistics.conformal import p_values
from millie.statistics.intervals import clopper_pearson

ENCODER = "blood_cell"
GOOD = SampleQuality(1000, 1000, 0.0, 1.0, 0.3)
POINTS = ("sensitive", "balanced", "specific")
ALPHAS = (0.05, 0.1, 0.2)
PARTS = (10, 25, 50)
"""Cells of a sub-bag, each of the patient's once; no patient has enough for more."""
DRAWN = (25, 50, 100, 200)
"""The same drawn with replacement, as if the patient had more cells of the same kinds."""
DRAWS = 20


class Called(NamedTuple):
    """A test patient: the truth, a state by operating point, and p-values by class.

    ``parts`` are shares of sub-bags called APL, by number of cells; none of patients with fewer.
    ``drawn`` are the same of draws with replacement, by the threshold and by limits that follow the
    number of cells (:func:`limits_by_number`).
    """

    label: str
    repeat: int
    states: Mapping[str, str]
    codes: Mapping[str, tuple[str, ...]]
    p_values: Mapping[str, float]
    probability: float
    parts: Mapping[int, float]
    drawn: Mapping[int, tuple[float, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    found = out_of_fold(Store(arguments.store), load(), arguments.repeats)
    for point in (*POINTS, "sensitive, screened", "threshold alone"):
        print_states(found, point)
        print_withheld(found, point)
    print_sets(found)
    print_risk(found)
    print_parts(found)
    print_drawn(found)


class Fold(NamedTuple):
    """A trained ensemble with its rules and settings by operating point, and who was held out."""

    fitted: Ensemble
    classes: tuple[str, ...]
    labels: Mapping[str, str]
    source: CellSource
    held: tuple[NDArray[np.float64], NDArray[np.int64]]
    rules: Mapping[str, CallRule]
    settings: Mapping[str, PredictionConfig]
    least_immature: Mapping[str, float]
    by_number: Mapping[int, float]

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
    found = []
    screen = Screen(load_bundle("acute-leukaemia"))
    for fold, split in folds(store, config, repeats):
        for patient in split.test:
            cells = cells_of(fold.source, patient)
            found.append(called(fold, screen, cells, fold.labels[patient], split.repeat))
    return found


def folds(store: Store, config: Config, repeats: int) -> Iterator[tuple[Fold, Split]]:
    """Ensembles of three folds a repeat, each with who was left out for testing."""
    who = participants(store)
    study = open_study(store, who, config, "APL", silent)
    for split in make_splits(who.labels, 3, repeats, config.evaluation.seed).assignments:
        train = tuple(sorted({*split.train, *split.validation}))
        seed = config.training.seed + split.repeat * 100 + split.fold
        cast = Cast(study.classes, "APL", study.labels, train, seed)
        yield fitted_fold(study, cast, config), split


def fitted_fold(study: Study, cast: Cast, config: Config) -> Fold:
    """Train on a training part and work out the limits of each operating point."""
    fitted, source = fit_ensemble(study.material, cast, config), study.material.source
    held = held_out(fitted, cast)
    settings = {
        point: config.with_settings([f"prediction.operating_point={point}"]).prediction
        for point in POINTS
    }
    rules = {
        point: call_rule("APL", fitted.threshold, cast.classes, held, own, {})
        for point, own in settings.items()
    }
    shares = [
        float(found.mean())
        for patient in cast.patients
        if cast.labels[patient] == "APL"
        and (found := immature_cells(fitted.networks[0], ENCODER, cells_of(source, patient)))
        is not None
    ]
    least = immature_limit(shares, settings["sensitive"].target_sensitivity)
    return Fold(
        fitted, cast.classes, cast.labels, source, held, rules, settings, least,
        limits_by_number(fitted, cast, source),
    )  # fmt: skip


def cells_of(source: CellSource, patient: str) -> torch.Tensor:
    """All cells (N, D) of a patient."""
    return source.cells(patient, whole_bag(source, patient).indices)


@torch.no_grad()
def limits_by_number(fitted: Ensemble, cast: Cast, source: CellSource) -> dict[int, float]:
    """Thresholds at which samples of so many cells have the false-positive rate of 50 cells.

    Of patients without APL whom a network left out, by that network, drawn with replacement.
    """
    others: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    for network, patients in zip(fitted.networks, fitted.held_out, strict=True):
        for patient in (p for p in patients if cast.labels[p] != "APL"):
            cells = cells_of(source, patient)
            for size in DRAWN:
                logits = network.bag_logits(cells[drawn_of(len(cells), size)])[None]
                p = ensemble_probabilities(logits, fitted.temperature).numpy()
                others[size].append(p[:, cast.classes.index("APL")])
    rate = float(np.mean(np.concatenate(others[50]) >= fitted.threshold))
    return {size: float(np.quantile(np.concatenate(p), 1 - rate)) for size, p in others.items()}


def drawn_of(count: int, size: int) -> torch.Tensor:
    """Numbers (DRAWS, size) of cells, with replacement."""
    return torch.from_numpy(np.random.default_rng(size).integers(0, count, (DRAWS, size)))


def called(fold: Fold, screen: Screen, cells: torch.Tensor, label: str, repeat: int) -> Called:
    """What is said of a test patient."""
    p = fold.of_bags(cells[None])[0]
    point_of = dict(zip(fold.classes, p.tolist(), strict=True))
    ranges = probability_ranges(fold.fitted.networks, [cells], fold.probabilities, point_of)
    young = immature(fold.fitted.networks[0], ENCODER, cells, fold.least_immature)
    found = {
        name: decide(point_of, rule, GOOD, (), fold.settings[name], ranges, immature=young)
        for name, rule in fold.rules.items()
    }
    doubt, ruled_out = screen.ask([cells], fold.classes)
    found["sensitive, screened"] = decide(
        point_of, fold.rules["sensitive"], GOOD, doubt, fold.settings["sensitive"], ranges,
        elsewhere=ruled_out, immature=young,
    )  # fmt: skip
    plain = CallRule("APL", fold.fitted.threshold, fold.fitted.threshold, {})
    alone = {x: (value, value) for x, value in point_of.items()}
    found["threshold alone"] = decide(point_of, plain, GOOD, (), fold.settings["balanced"], alone)
    values = dict(zip(fold.classes, p_values(*fold.held, p).tolist(), strict=True))
    return Called(
        label, repeat, {name: state for name, (state, _) in found.items()},
        {name: tuple(one.code for one in why) for name, (_, why) in found.items()},
        values, point_of["APL"], parts_called(fold, cells), drawn_called(fold, cells),
    )  # fmt: skip


def drawn_called(fold: Fold, cells: torch.Tensor) -> dict[int, tuple[float, float]]:
    """Share of draws called APL by the threshold, and by limits that follow the number of cells."""
    found = {}
    for size in DRAWN if len(cells) >= max(PARTS) else ():
        own = fold.of_bags(cells[drawn_of(len(cells), size)])[:, fold.classes.index("APL")]
        limits = (fold.fitted.threshold, fold.by_number[size])
        by_threshold, by_number = (float((own >= limit).mean()) for limit in limits)
        found[size] = by_threshold, by_number
    return found


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


def print_withheld(called: list[Called], point: str) -> None:
    """Patients left to a person whom the threshold alone would have called rightly, and why."""
    right = {"APL": "APL_SUSPECT", "AML": "AML"}
    for repeat in sorted({one.repeat for one in called}):
        own = [one for one in called if one.repeat == repeat]
        lost = [
            one for one in own
            if one.states[point].endswith("INDETERMINATE")
            and one.states["threshold alone"] == right[one.label]
        ]  # fmt: skip
        share = clopper_pearson(len(lost), len(own), 0.95)
        codes = Counter(" ".join(one.codes[point]) for one in lost)
        print(
            f"  repeat {repeat}: called rightly by the threshold, left to a person: {len(lost)} of "
            f"{len(own)}, {share.value:.3f} ({share.low:.3f} to {share.high:.3f}): {dict(codes)}"
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


def print_drawn(called: list[Called]) -> None:
    """The same of draws with replacement, by the threshold and by limits for the number."""
    print("\nnumber of cells, drawn with replacement")
    own = [one for one in called if one.drawn]
    for rule, name in enumerate(("threshold", "limit for the number of cells")):
        for size in DRAWN:
            rates = [
                np.mean([one.drawn[size][rule] for one in own if one.label == label])
                for label in ("APL", "AML")
            ]
            print(f"  {name}, {size} cells: APL {rates[0]:.3f}, AML called APL {rates[1]:.3f}")


if __name__ == "__main__":
    main()
