"""The tests of single cells in an experiment: run where their data are, with figures and caveats.

Owns the choice of cells for a test and its AUC. Cells of one film are not independent: of test
patients the patients are resampled; of sets that do not say whose a cell is, the interval takes
cells for independent, is too narrow, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from millie import pipeline
from millie.bags.store import Store
from millie.readers.datasets import DATASETS
from millie.reproduce.gather import Missing, find
from millie.reproduce.scored_cells import (
    ExternalRun,
    ScoredCell,
    choose_images,
    external_cells,
    marked_cells,
    own_cells,
    side_of,
)
from millie.reproduce.seen_cells import seen_cells
from millie.statistics.intervals import delong_interval, patient_bootstrap
from millie.statistics.metrics import both_classes, confusion, roc, roc_auc

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from millie.config import EvaluationConfig
    from millie.outputs.study.records import Study
    from millie.pipeline import Progress
    from millie.reproduce.experiments import CellTest, Experiment
    from millie.statistics.intervals import Estimate
    from millie.types import Cohort, Problem

_FEWEST = 10
_UNSEEN = "without the cells that also occur among the training cells"
_INDEPENDENT = "donors unknown: cells are treated as independent, so the interval is too narrow"


@dataclass(frozen=True, slots=True, eq=False)
class CellTestResult:
    """What a test of single cells found.

    Attributes:
        test: the entry of the table.
        n_target: cells of the wanted types; ``n_other`` against them.
        auc: None where it could not be had; ``why`` then says so.
        roc: false-positive rate and sensitivity, or None.
        confusion: rows other, target; columns not called, called; or None.
        caveats: of this test, with what this run adds.
        why: what is missing, or empty.
    """

    test: CellTest
    n_target: int = 0
    n_other: int = 0
    auc: Estimate | None = None
    roc: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None
    caveats: tuple[str, ...] = ()
    why: str = ""


def external_cohorts(
    experiment: Experiment, data: Path
) -> tuple[dict[str, Cohort], tuple[Missing, ...]]:
    """The sets that the experiment's external tests need and that are there, read."""
    names = sorted({n for t in experiment.cell_tests if t.where == "external" for n in t.datasets})
    cohorts, missing = {}, []
    for name in names:
        found = find(DATASETS[name], data)
        if isinstance(found, Missing):
            missing.append(found)
        else:
            cohorts[name] = DATASETS[name].prepare(found)
    return cohorts, tuple(missing)


def run_external(
    experiment: Experiment,
    cohorts: Mapping[str, Cohort],
    run: ExternalRun,
    progress: Progress = pipeline.silent,
) -> tuple[list[CellTestResult], list[Problem]]:
    """Run the external tests on the sets that are there."""
    tests = [t for t in experiment.cell_tests if t.where == "external"]
    chosen = choose_images(tests, cohorts)
    wanted = frozenset().union(*chosen.values()) if chosen else frozenset()
    if not wanted:
        return [CellTestResult(t, why=_absent(t, cohorts)) for t in tests], []
    cells, problems = external_cells(run, cohorts, wanted, progress)
    seen = seen_cells(run.training, Store(run.out), {cell.patient for cell in cells})
    manifest = run.bundle.manifest
    results = []
    for test in tests:
        own = [cell for cell in cells if (cell.patient, cell.source) in chosen[test.name]]
        lacking = tuple(f"without cells of {n}" for n in test.datasets if n not in cohorts)
        threshold = manifest.threshold if test.score == manifest.positive else 0.5
        caveats = (*test.caveats, *lacking, _INDEPENDENT)
        unseen = [cell for cell in own if (cell.patient, cell.source) not in seen]
        n_seen = len(own) - len(unseen)
        told = (f"{n_seen} of its cells also occur among the training cells",) * (n_seen > 0)
        wanted_config = run.config.evaluation
        results.append(judge(test, own, threshold, wanted_config, (*caveats, *told)))
        if n_seen and results[-1].auc is not None:
            rest = replace(
                test, name=f"{test.name}_unseen", title=f"{test.title}, unseen cells only"
            )
            results.append(judge(rest, unseen, threshold, wanted_config, (*caveats, _UNSEEN)))
    return results, problems


def run_own(
    experiment: Experiment,
    study: Study,
    store: Store,
    roots: Mapping[str, Path],
    config: EvaluationConfig,
) -> list[CellTestResult]:
    """Run the tests on cells of the test patients."""
    results = []
    for test in experiment.cell_tests:
        if test.where == "external":
            continue
        if test.where == "own":
            cells = own_cells(study)
        elif test.datasets[0] in roots:
            cells = marked_cells(study, store, test.datasets[0], roots[test.datasets[0]])
        else:
            cells = []
        threshold = study.threshold if test.score == study.positive else None
        cut = 0.5 if threshold is None else threshold
        results.append(judge(test, cells, cut, config, test.caveats))
    return results


def judge(
    test: CellTest,
    cells: Sequence[ScoredCell],
    threshold: float,
    config: EvaluationConfig,
    caveats: tuple[str, ...],
) -> CellTestResult:
    """AUC, ROC and confusion of a test on scored cells."""
    sides = [(side_of(test, cell.label), cell) for cell in cells]
    kept = [(side, cell) for side, cell in sides if side is not None]
    target = np.array([side == 0 for side, _ in kept], bool)
    n_target, n_other = int(target.sum()), int((~target).sum())
    if cells and test.score not in cells[0].probabilities:
        return CellTestResult(test, caveats=caveats, why=f"no patients with {test.score}")
    if min(n_target, n_other) < _FEWEST:
        why = f"{n_target} target cells and {n_other} others: at least {_FEWEST} of each are needed"
        return CellTestResult(test, n_target, n_other, caveats=caveats, why=why)
    score = np.array([cell.probabilities[test.score] for _, cell in kept])
    curve = roc(target, score)
    counts = confusion(target.astype(np.intp), (score >= threshold).astype(np.intp), 2)
    return CellTestResult(
        test,
        n_target,
        n_other,
        _interval(test, [cell for _, cell in kept], target, score, config),
        (curve.fpr, curve.tpr),
        tuple(tuple(int(n) for n in row) for row in counts),
        caveats,
    )


def _interval(
    test: CellTest,
    cells: Sequence[ScoredCell],
    target: NDArray[np.bool_],
    score: NDArray[np.float64],
    config: EvaluationConfig,
) -> Estimate:
    if test.where == "external":
        return delong_interval(target, score, config.confidence)
    owners = np.array([cell.patient for cell in cells])
    names, first = np.unique(owners, return_index=True)
    members = [np.flatnonzero(owners == name) for name in names]

    def statistic(drawn: NDArray[np.intp]) -> float:
        rows = np.concatenate([members[i] for i in drawn])
        return roc_auc(target[rows], score[rows]) if both_classes(target[rows]) else 0.5

    strata = [cells[i].diagnosis for i in first]
    rng = np.random.default_rng(config.seed)
    having = min(len(np.unique(owners[target])), len(np.unique(owners[~target])))
    return patient_bootstrap(
        strata, statistic, config.bootstrap, rng, config.confidence, config.bootstrap_method, having
    )


def _absent(test: CellTest, cohorts: Mapping[str, Cohort]) -> str:
    absent = [name for name in test.datasets if name not in cohorts]
    return f"{', '.join(absent)} not found" if absent else "no cells of the types tested"
