"""Every fusion of cells on equal terms: the same patients, folds and seeds, compared in pairs.

Owns the comparison of Supplementary Fig. 1. A difference of two fusions is taken fold by fold; the
test knows that training parts overlap (corrected resampled t test) and that several fusions are
tried (Holm). Significance is not size: differences stand with their intervals.

Source: Nadeau and Bengio, Machine Learning 52:239 (2003), eq. 16; Holm, Scandinavian Journal of
Statistics 6:65 (1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from millie import pipeline
from millie.bags.store import Store
from millie.errors import MissingFileError
from millie.evaluation.crossval import crossval
from millie.files import Value, write_csv, write_text
from millie.models.aggregators import AGGREGATORS
from millie.outputs.figure_files import write_figures
from millie.outputs.figures import intervals_figure
from millie.outputs.page import render
from millie.outputs.result_folder import new_results
from millie.reproduce.deviations import of_profile, with_weights
from millie.reproduce.experiments import EXPERIMENTS, POOLING_CLAIM, POOLING_FIGURE, Experiment
from millie.reproduce.gather import Gathered, gather
from millie.reproduce.run import settings
from millie.statistics.intervals import corrected_resampled

if TYPE_CHECKING:
    from millie.config import Config
    from millie.pipeline import Progress
    from millie.reproduce.run import Task
    from millie.types import Problem

REFERENCE = "max"
"""The paper's fusion; all others are compared with it."""

HEADER = (
    "experiment", "aggregator", "auc", "auc_low", "auc_high", "auc_folds", "auc_folds_low",
    "auc_folds_high", "difference", "difference_low", "difference_high", "p", "p_holm", "folds",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """A fusion against the reference, over the folds.

    Attributes:
        value: mean AUC minus that of the reference.
        low: lower end of the corrected interval; also ``high``.
        p: two-sided, corrected resampled t test.
        p_holm: adjusted for the number of fusions compared.
    """

    value: float
    low: float
    high: float
    p: float
    p_holm: float = 1.0


@dataclass(frozen=True, slots=True)
class Pooled:
    """One fusion on one experiment.

    Attributes:
        experiment: where.
        aggregator: name in the table of aggregators.
        auc: of patients, averaged over repeats: value, low, high.
        auc_folds: mean of single folds: value, low, high.
        difference: to the reference; None for the reference itself.
        n_folds: over all repeats.
    """

    experiment: str
    aggregator: str
    auc: tuple[float, float, float]
    auc_folds: tuple[float, float, float]
    difference: Difference | None
    n_folds: int


@dataclass(frozen=True, slots=True)
class PoolingResult:
    """All fusions on all experiments whose data are there.

    Attributes:
        out: the folder.
        report: the page.
        rows: in the order of experiments, the reference first.
        missing: experiments that could not be run, and why.
        problems: files and patients that could not be used.
    """

    out: Path
    report: Path
    rows: tuple[Pooled, ...]
    missing: tuple[str, ...]
    problems: tuple[Problem, ...]

    def lines(self) -> list[str]:
        """One fusion a line."""
        return [pooled_line(row) for row in self.rows]


def pooled_line(row: Pooled) -> str:
    """A fusion for the console."""
    mean, low, high = row.auc_folds
    told = f"{row.experiment}, {row.aggregator}: AUC {mean:.3f} ({low:.3f} to {high:.3f})"
    if row.difference is None:
        return f"{told}, mean of {row.n_folds} folds; the reference for the others"
    d = row.difference
    return (
        f"{told}; {d.value:+.3f} ({d.low:+.3f} to {d.high:+.3f}), p {d.p:.3f}, Holm {d.p_holm:.3f}"
    )


def compare_pooling(
    task: Task,
    folds: int | None = None,
    repeats: int | None = None,
    progress: Progress = pipeline.silent,
    aggregators: Sequence[str] = (),
) -> PoolingResult:
    """Cross-validate every fusion on every experiment whose data are there.

    Args:
        task: data, settings, folder; its controls are not run.
        folds: None: those of each experiment.
        repeats: None: as the settings say.
        progress: called often.
        aggregators: names; empty: all in the table.

    Raises:
        MissingFileError: the data of no experiment are there.
        TrainingError: too few patients of a class for the folds.
        BusyError: another run is writing to the folder.
    """
    chosen = [REFERENCE, *(a for a in aggregators or AGGREGATORS if a != REFERENCE)]
    config, stand_in = with_weights(task.config)
    there: list[tuple[Experiment, Gathered]] = []
    missing: list[str] = []
    for known in EXPERIMENTS.values():
        try:
            there.append((known, gather(known, task.data)))
        except MissingFileError as error:
            missing.append(str(error))
    if not there:
        raise MissingFileError("no experiment can be run:\n" + "\n".join(missing))
    rows: list[Pooled] = []
    problems: list[Problem] = []
    with new_results(task.out, "reproduction") as results:
        results.claim()
        for known, gathered in there:
            own_config = settings(known.name, config, folds, repeats)
            own = replace(task, out=task.out / known.name, config=own_config)
            found, problem = _one(known, gathered, own, chosen, progress)
            rows += found
            problems += problem
        differences = (*of_profile(task.profile, task.config), *stand_in)
        _write(task.profile, rows, missing, differences, results.new)
        results.publish()
    report = task.out / "report.html"
    return PoolingResult(task.out, report, tuple(rows), tuple(missing), tuple(problems))


def _one(
    known: Experiment,
    gathered: Gathered,
    task: Task,
    aggregators: Sequence[str],
    progress: Progress,
) -> tuple[list[Pooled], list[Problem]]:
    """All fusions on one experiment; `millie report` makes the page of a single one."""
    store = task.out / "store"
    cut = pipeline.segment(gathered.cohort, store, task.config, task.engine, progress=progress)
    bags, metrics = Store(store), {}
    for aggregator in aggregators:
        config = with_aggregator(task.config, aggregator)
        metrics[aggregator] = crossval(bags, config, task.out / aggregator, progress).metrics
    confidence = task.config.evaluation.confidence
    return pooled_rows(known.name, metrics, confidence), list(cut.problems)


def with_aggregator(config: Config, aggregator: str) -> Config:
    """The same settings with another fusion, and a gradient that all fusions can have."""
    model = config.model.model_copy(update={"aggregator": aggregator})
    training = config.training.model_copy(update={"exact_gradient": False})
    return config.model_copy(update={"model": model, "training": training})


def pooled_rows(
    experiment: str, metrics: Mapping[str, Mapping[str, Any]], confidence: float = 0.95
) -> list[Pooled]:
    """Rows of an experiment from the metrics of each fusion, the reference first.

    Raises:
        MissingFileError: the reference is not among them.
    """
    if REFERENCE not in metrics:
        raise MissingFileError(f"no study with the aggregator {REFERENCE}: run it first")
    reference = _by_fold(metrics[REFERENCE])
    differences = {
        name: difference(_by_fold(found), reference, _share(found), confidence)
        for name, found in metrics.items()
        if name != REFERENCE
    }
    adjusted = holm({name: d.p for name, d in differences.items()})
    return [
        Pooled(
            experiment,
            name,
            _triple(found["headline"]["auc"]),
            _triple(found["headline"]["auc_folds"]),
            replace(differences[name], p_holm=adjusted[name]) if name in differences else None,
            len(found["per_fold"]),
        )
        for name, found in metrics.items()
    ]


def difference(
    first: Mapping[tuple[int, int], float],
    second: Mapping[tuple[int, int], float],
    test_share: float,
    confidence: float = 0.95,
) -> Difference:
    """Mean difference over folds with its corrected interval and test.

    Args:
        first: figure of each fold, by (repeat, fold).
        second: of the same folds.
        test_share: n_test / n_train.
        confidence: of the interval.
    """
    gaps = [first[key] - second[key] for key in sorted(first)]
    found = corrected_resampled(gaps, test_share, confidence)
    count = len(gaps)
    sd = math.sqrt(float(np.var(gaps, ddof=1)) * (1 / count + test_share))
    if sd > 0:
        p = float(2 * stats.t.sf(abs(found.value) / sd, count - 1))
    else:
        p = 1.0 if found.value == 0 else 0.0
    return Difference(found.value, found.low, found.high, p)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """P values adjusted for their number; at least as large, in the same order."""
    adjusted, running = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda n: (p[n], n))):
        running = max(running, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = running
    return adjusted


def _by_fold(metrics: Mapping[str, Any]) -> dict[tuple[int, int], float]:
    return {(f["repeat"], f["fold"]): float(f["auc"]) for f in metrics["per_fold"]}


def _share(metrics: Mapping[str, Any]) -> float:
    return float(np.mean([f["n_test"] / f["n_train"] for f in metrics["per_fold"]]))


def _triple(estimate: Mapping[str, Any]) -> tuple[float, float, float]:
    return float(estimate["value"]), float(estimate["low"]), float(estimate["high"])


def _write(
    profile: str,
    rows: Sequence[Pooled],
    missing: Sequence[str],
    differences: Sequence[str],
    new: Path,
) -> None:
    """Table and page, in the folder of new results."""
    lines: list[Sequence[Value]] = []
    for row in rows:
        d = row.difference
        gap = (None,) * 5 if d is None else (d.value, d.low, d.high, d.p, d.p_holm)
        lines.append((row.experiment, row.aggregator, *row.auc, *row.auc_folds, *gap, row.n_folds))
    write_csv(new / "pooling.csv", HEADER, lines)
    figures = {
        f"pooling_{name}": _figure(name, [row for row in rows if row.experiment == name])
        for name in dict.fromkeys(row.experiment for row in rows)
    }
    page = render(
        "pooling.html.j2",
        rows=rows,
        profile=profile,
        claim=POOLING_CLAIM,
        printed=POOLING_FIGURE,
        reference=REFERENCE,
        missing=missing,
        differences=differences,
        figures=write_figures(new / "figure", figures),
    )
    write_text(new / "report.html", page)


def _figure(experiment: str, rows: Sequence[Pooled]) -> Any:
    drawn = [(row.aggregator.replace("_", " "), *row.auc_folds) for row in rows]
    reference = rows[0].auc_folds[0]
    return intervals_figure(drawn, reference, "ROC AUC, mean of folds", experiment)
