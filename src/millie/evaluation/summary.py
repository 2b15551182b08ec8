"""From folds to the figures of a study, each with its interval and the name of its method.

Repeats of a cross-validation are not independent samples: a patient's probabilities are averaged
over repeats first, so that n is always a number of patients. Owns ``metrics.json`` but for the part
on single cells (:mod:`millie.evaluation.cells`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from millie.statistics import metrics
from millie.statistics.calibration import brier, calibration_error, reliability
from millie.statistics.intervals import (
    Estimate,
    clopper_pearson,
    corrected_resampled,
    delong_interval,
    interval_without_spread,
    patient_bootstrap,
    smallest_class,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from millie.config import EvaluationConfig
    from millie.evaluation.folds import FoldResult

    Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Averaged:
    """Test results by patient, averaged over repeats.

    Attributes:
        patients: n ids, sorted.
        truth: (n,) class index.
        probabilities: (n, C), mean over repeats.
        margin: (n,) mean over repeats of probability of the positive class minus the fold's
            threshold; called positive from 0 on.
        positive: index of the positive class.
        by_repeat: (R, n) probability of the positive class in each repeat.
    """

    patients: tuple[str, ...]
    truth: NDArray[np.intp]
    probabilities: Floats
    margin: Floats
    positive: int
    by_repeat: Floats

    @property
    def is_positive(self) -> NDArray[np.bool_]:
        """(n,) whether the diagnosis is the positive class."""
        found: NDArray[np.bool_] = np.equal(self.truth, self.positive)
        return found

    @property
    def score(self) -> Floats:
        """(n,) mean probability of the positive class."""
        return self.probabilities[:, self.positive]

    @property
    def calls(self) -> NDArray[np.intp]:
        """(n,) class index: positive from the threshold on, else the best other class."""
        shifted = self.probabilities.copy()
        shifted[:, self.positive] = self.margin
        return metrics.make_calls(shifted, self.positive, 0.0)


def average(
    results: Sequence[FoldResult],
    classes: Sequence[str],
    positive: str,
    *,
    without_smudge: bool = False,
) -> Averaged:
    """Bring the folds together.

    Args:
        results: all folds of all repeats.
        classes: in the order of the probabilities.
        positive: class of the binary figures.
        without_smudge: use the probabilities without smudge cells where a patient has such.
    """
    labels = {p: s.label for r in results for p, s in r.patients.items()}
    patients = tuple(sorted(labels))
    row = {p: i for i, p in enumerate(patients)}
    index = list(classes).index(positive)
    repeats = 1 + max(r.repeat for r in results)
    values = np.zeros((repeats, len(patients), len(classes)))
    margins = np.zeros((repeats, len(patients)))
    for result in results:
        for patient, score in result.patients.items():
            p = score.probabilities
            if without_smudge and score.without_smudge is not None:
                p = score.without_smudge
            values[result.repeat, row[patient]] = p
            margins[result.repeat, row[patient]] = p[index] - result.threshold
    return Averaged(
        patients,
        np.array([list(classes).index(labels[p]) for p in patients]),
        values.mean(axis=0),
        margins.mean(axis=0),
        index,
        values[:, :, index],
    )


def headline(
    averaged: Averaged,
    folds: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    config: EvaluationConfig,
) -> dict[str, Estimate]:
    """The figures of the study.

    ``auc`` is that of the probabilities averaged over repeats, so with several repeats that of an
    ensemble; ``auc_repeats`` (single repeats, folds pooled) and ``auc_folds`` (single folds) are
    those of single runs and the ones to compare with papers that report fold means.
    """
    positive, score, calls = averaged.is_positive, averaged.score, averaged.calls
    called = calls == averaged.positive
    confidence = config.confidence
    strata = [classes[t] for t in averaged.truth]
    either = smallest_class(positive)

    def boot(
        statistic: Callable[[NDArray[np.intp]], float], smallest: int | None = either
    ) -> Estimate:
        rng = np.random.default_rng(config.seed)
        return patient_bootstrap(
            strata, statistic, config.bootstrap, rng, confidence, config.bootstrap_method, smallest
        )

    def repeats_auc(i: NDArray[np.intp]) -> float:
        return float(np.mean([metrics.roc_auc(positive[i], r[i]) for r in averaged.by_repeat]))

    found = {
        "auc": delong_interval(positive, score, confidence),
        "auc_bootstrap": boot(lambda i: metrics.roc_auc(positive[i], score[i])),
        "auc_repeats": boot(repeats_auc),
        "auc_folds": over_folds(folds, "auc", either, config),
        "average_precision": boot(lambda i: metrics.average_precision(positive[i], score[i])),
        "balanced_accuracy": boot(
            lambda i: metrics.balanced_accuracy(averaged.truth[i], calls[i]), None
        ),
        "accuracy": clopper_pearson(int((calls == averaged.truth).sum()), len(calls), confidence),
        "sensitivity": clopper_pearson(
            int(called[positive].sum()), int(positive.sum()), confidence
        ),
        "specificity": clopper_pearson(
            int((~called[~positive]).sum()), int((~positive).sum()), confidence
        ),
    }
    if len(classes) > 2:
        p, truth = averaged.probabilities, averaged.truth
        found["macro_auc"] = boot(lambda i: metrics.macro_auc(truth[i], p[i]), None)
    return found


def over_folds(
    folds: Sequence[Mapping[str, Any]], name: str, smallest: int, config: EvaluationConfig
) -> Estimate:
    """Mean of a figure over folds with the corrected interval, cut to 0 to 1.

    Where every fold has 0, or every fold 1, the interval is the exact one of the patients of the
    ``smallest`` class.

    Raises:
        ConfigError: a single fold.
    """
    values = [float(f[name]) for f in folds]
    if set(values) in ({0.0}, {1.0}):
        why = f"all {len(values)} folds alike"
        return interval_without_spread(values[0], smallest, config.confidence, why)
    share = float(np.mean([f["n_test"] / f["n_train"] for f in folds]))
    found = corrected_resampled(values, share, config.confidence)
    return Estimate(found.value, max(0.0, found.low), min(1.0, found.high), found.method)


def fold_table(
    results: Sequence[FoldResult], classes: Sequence[str], positive: str, n_patients: int
) -> list[dict[str, Any]]:
    """A row a fold: sizes, figures on its test patients, threshold, temperature, epochs."""
    index = list(classes).index(positive)
    rows = []
    for result in results:
        p = np.array([s.probabilities for s in result.patients.values()])
        truth = np.array([list(classes).index(s.label) for s in result.patients.values()])
        calls = metrics.make_calls(p, index, result.threshold)
        is_positive, called = truth == index, calls == index
        rows.append(
            {
                "repeat": result.repeat,
                "fold": result.fold,
                "n_train": n_patients - len(result.patients),
                "n_test": len(result.patients),
                "auc": metrics.roc_auc(is_positive, p[:, index]),
                "average_precision": metrics.average_precision(is_positive, p[:, index]),
                "balanced_accuracy": metrics.balanced_accuracy(truth, calls),
                "sensitivity": metrics.sensitivity(is_positive, called),
                "specificity": metrics.specificity(is_positive, called),
                "threshold": result.threshold,
                "temperature": result.temperature,
                "best_epochs": list(result.best_epochs),
            }
        )
    return rows


def fold_spread(folds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over folds of each figure; not an interval."""
    names = ("auc", "average_precision", "balanced_accuracy", "sensitivity", "specificity",
             "threshold", "temperature")  # fmt: skip
    spread = {}
    for name in names:
        values = [f[name] for f in folds]
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        spread[name] = {"mean": float(np.mean(values)), "sd": sd}
    return spread


def calibration_part(averaged: Averaged, confidence: float) -> dict[str, Any]:
    """Reliability of the averaged probability of the positive class."""
    positive, score = averaged.is_positive, averaged.score
    return {
        "error": calibration_error(positive, score),
        "brier": brier(positive, score),
        "bins": reliability(positive, score, confidence=confidence),
        "method": "bins of equal numbers of patients, Clopper-Pearson intervals; temperature "
        "fitted inside each training part",
    }


def roc_part(averaged: Averaged) -> dict[str, list[float]]:
    """The ROC curve of the averaged probabilities."""
    curve = metrics.roc(averaged.is_positive, averaged.score)
    return {"fpr": curve.fpr.tolist(), "tpr": curve.tpr.tolist()}


def confusion_part(averaged: Averaged, n_classes: int) -> list[list[int]]:
    """Patients by diagnosis (rows) and call of the averaged probabilities (columns)."""
    counts: list[list[int]] = metrics.confusion(averaged.truth, averaged.calls, n_classes).tolist()
    return counts


def smudge_part(
    results: Sequence[FoldResult], classes: Sequence[str], positive: str, confidence: float
) -> dict[str, Any] | None:
    """The AUC with smudge cells left out of every bag; None if no patient has any."""
    patients = {p for r in results for p, s in r.patients.items() if s.without_smudge is not None}
    if not patients:
        return None
    clean = average(results, classes, positive, without_smudge=True)
    auc = delong_interval(clean.is_positive, clean.score, confidence)
    return {"n_patients_with_smudge": len(patients), "auc": auc.to_dict()}
