"""Intervals for the figures of a study.

Owns the statistics only: each function takes numbers of independent patients and returns an
:class:`Estimate` that names its method, or the two ends of a band. Repeats of a cross-validation
are never independent patients: average them per patient first, or use :func:`corrected_resampled`.

``scipy.stats`` takes most of a second to load: SciPy loads it when an interval is first computed.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy

from millie.errors import ConfigError, no_warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Drawn = NDArray[np.intp]


_BATCH = 200
"""Resamples whose indices are drawn at once, so that memory does not grow with their number."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: the point estimate.
        low: lower end of the interval.
        high: upper end.
        method: how the interval was made, in words that a methods section can use.
    """

    value: float
    low: float
    high: float
    method: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Estimate:
    """Exact interval of a proportion.

    Raises:
        ConfigError: unless 0 <= successes <= trials and trials >= 1.

    Source: Clopper and Pearson, Biometrika 26:404 (1934).
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ConfigError(f"{successes} of {trials}: expected 0 <= successes <= trials, trials > 0")
    test = scipy.stats.binomtest(successes, trials)
    found = test.proportion_ci(confidence_level=confidence, method="exact")
    return Estimate(
        successes / trials,
        float(found.low),
        float(found.high),
        f"Clopper-Pearson, {successes}/{trials}",
    )


def delong_components(positive: Bools, score: Floats) -> tuple[float, Floats, Floats]:
    """AUC and its structural components, in O(n log n) by midranks.

    Args:
        positive: (n,) True for the positive class; both classes present.
        score: (n,) higher means more positive; ties count one half.

    Returns:
        AUC, components of the positives (m,), components of the negatives (n - m,).

    Source: DeLong et al., Biometrics 44:837 (1988), eq. 3-5; Sun and Xu, IEEE Signal Processing
    Letters 21:1389 (2014).
    """
    _check_two_classes(positive)
    above, below = score[positive], score[~positive]
    m, n = len(above), len(below)
    ranks = scipy.stats.rankdata(np.concatenate([above, below]))
    v10 = (ranks[:m] - scipy.stats.rankdata(above)) / n
    v01 = 1 - (ranks[m:] - scipy.stats.rankdata(below)) / m
    return float(v10.mean()), v10, v01


def delong_variance(positive: Bools, score: Floats) -> float:
    """Variance of the AUC; 0 when the classes are separated.

    Raises:
        ConfigError: a class with fewer than two patients.
    """
    _, v10, v01 = delong_components(positive, score)
    if min(len(v10), len(v01)) < 2:
        raise ConfigError("DeLong variance needs at least two patients of each class")
    return float(v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01))


def delong_interval(positive: Bools, score: Floats, confidence: float = 0.95) -> Estimate:
    """Interval of the AUC by DeLong's variance on the logit scale.

    The logit keeps the interval inside 0 to 1 and its coverage near the nominal one at high AUC
    and few patients. When the classes are separated (or there is one patient of a class) the
    variance is 0 or unknown and says nothing: the interval is then the exact one of all (or no)
    successes among the smaller class.

    Source: DeLong 1988; logit: Pepe, The Statistical Evaluation of Medical Tests (2003), 5.2.
    """
    area, v10, v01 = delong_components(positive, score)
    smaller = min(len(v10), len(v01))
    variance = delong_variance(positive, score) if smaller > 1 else 0.0
    if not 0 < area < 1 or variance <= 0:
        exact = clopper_pearson(round(area * smaller), smaller, confidence)
        return Estimate(
            area, min(exact.low, area), max(exact.high, area),
            f"exact on the smaller class ({smaller}): DeLong's variance is 0",
        )  # fmt: skip
    z = scipy.stats.norm.ppf(0.5 + confidence / 2)
    centre = math.log(area / (1 - area))
    half = float(z) * math.sqrt(variance) / (area * (1 - area))
    low, high = (1 / (1 + math.exp(-x)) for x in (centre - half, centre + half))
    return Estimate(area, low, high, "DeLong, logit scale")


def delong_difference(
    positive: Bools, first: Floats, second: Floats, confidence: float = 0.95
) -> Estimate:
    """Difference of two AUCs of the same patients (first minus second), paired.

    Args:
        positive: (n,) True for the positive class.
        first: (n,) scores, or (D, n): D ways to score these patients, whose AUCs are averaged.
        second: likewise.
        confidence: of the interval.

    Source: DeLong 1988, eq. 6-8; the mean of several AUCs is a U statistic of the same patients,
    its components the mean components.

    Raises:
        ConfigError: fewer than two patients of a class.
    """
    auc_a, a10, a01 = _mean_components(positive, first)
    auc_b, b10, b01 = _mean_components(positive, second)
    if min(len(a10), len(a01)) < 2:
        raise ConfigError("a paired DeLong interval needs two patients of each class")
    d10, d01 = a10 - b10, a01 - b01
    sd = math.sqrt(d10.var(ddof=1) / len(d10) + d01.var(ddof=1) / len(d01))
    z = float(scipy.stats.norm.ppf(0.5 + confidence / 2))
    value = auc_a - auc_b
    return Estimate(value, value - z * sd, value + z * sd, "DeLong, paired")


def _mean_components(positive: Bools, scores: Floats) -> tuple[float, Floats, Floats]:
    """:func:`delong_components`, averaged over the rows of scores (n,) or (D, n)."""
    parts = [delong_components(positive, row) for row in np.atleast_2d(scores)]
    areas, v10, v01 = zip(*parts, strict=True)
    return float(np.mean(areas)), np.mean(v10, axis=0), np.mean(v01, axis=0)


def patient_bootstrap(
    strata: Sequence[str] | Bools,
    statistic: Callable[[Drawn], float],
    resamples: int,
    rng: np.random.Generator,
    confidence: float = 0.95,
    method: Literal["percentile", "BCa"] = "percentile",
    smallest: int | None = None,
) -> Estimate:
    """Bootstrap interval over resampled patients, each class keeping its size.

    A class with a single patient cannot be resampled: that patient is part of every resample.
    Where the statistic is undefined (NaN) for a resample, so is the interval. Where it is 0 or 1
    and both ends of the interval with it, resampling tells nothing of other patients: see
    :func:`interval_without_spread`.

    Args:
        strata: class of each patient.
        statistic: takes indices of the drawn patients (with repetition), returns the figure, 0 to
            1. All repeats of a patient move together, so that they are not counted as independent.
        resamples: at least 100.
        rng: source of randomness; the same state gives the same interval.
        confidence: of the interval, between 0 and 1.
        method: ``BCa`` corrects bias and skewness of the percentiles. Where it does not exist (all
            resamples, or all but a few, give the same figure) the percentiles are given, and
            ``Estimate.method`` says so.
        smallest: patients in the smaller of the classes that the figure compares, where these are
            not the strata.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13; BCa: ch. 14.3.
    """
    value = float(statistic(np.arange(len(strata))))
    low, high, used = _interval(strata, statistic, resamples, rng, confidence, method)
    if round(value, 9) in {0.0, 1.0} and abs(high - low) < 1e-9:  # sums of shares miss 1 by a bit
        smallest = smallest or smallest_class(strata)
        return interval_without_spread(value, smallest, confidence, "all resamples are alike")
    return Estimate(
        value, float(low), float(high),
        f"bootstrap of patients within classes, {used}, {resamples} resamples",
    )  # fmt: skip


def smallest_class(strata: Sequence[str] | Bools) -> int:
    """Number of patients in the smallest class."""
    return int(np.unique(np.asarray(strata), return_counts=True)[1].min())


def interval_without_spread(value: float, patients: int, confidence: float, why: str) -> Estimate:
    """Interval of a figure of 0 or 1 where resamples or folds do not vary.

    Such a figure is no surer than that all (or none) of the smallest class were right: the exact
    interval of so many successes, as in :func:`delong_interval`.

    Args:
        value: 0 or 1, but for rounding.
        patients: of the smallest class that the figure compares.
        confidence: of the interval.
        why: what did not vary, for ``Estimate.method``.

    Raises:
        ConfigError: no patients.
    """
    exact = clopper_pearson(round(value * patients), patients, confidence)
    return Estimate(
        float(round(value)),
        exact.low,
        exact.high,
        f"exact on the smallest class ({patients}): {why}",
    )


def patient_band(
    strata: Sequence[str] | Bools,
    statistic: Callable[[Drawn], Floats],
    resamples: int,
    rng: np.random.Generator,
    confidence: float = 0.95,
) -> tuple[Floats, Floats]:
    """Lower and upper end of the pointwise percentile band of a curve, patients resampled.

    Args:
        strata: class of each patient; a single patient of a class is part of every resample.
        statistic: takes indices of the drawn patients, returns the (G,) heights of the curve.
        resamples: draws of patients.
        rng: source of randomness; the same state gives the same band.
        confidence: of the band at each of its points, between 0 and 1.

    Returns:
        (G,) lower and (G,) upper ends.

    Source: as for :func:`patient_bootstrap`.
    """
    low, high, _ = _interval(strata, statistic, resamples, rng, confidence, "percentile")
    return low, high


def _interval(
    strata: Sequence[str] | Bools,
    statistic: Callable[[Drawn], float] | Callable[[Drawn], Floats],
    resamples: int,
    rng: np.random.Generator,
    confidence: float,
    method: Literal["percentile", "BCa"],
) -> tuple[Floats, Floats, str]:
    """Both ends, and the method that gave them."""
    classes = np.asarray(strata)
    members = [np.flatnonzero(classes == name) for name in np.unique(classes)]
    alone = [patients for patients in members if len(patients) == 1]  # refused by SciPy
    several = [patients for patients in members if len(patients) > 1]

    def figure(*drawn: Drawn) -> Floats:
        return np.asarray(statistic(np.concatenate([*alone, *drawn])), dtype=np.float64)

    if not several:
        return figure(), figure(), "no class has two patients"
    common = {"vectorized": False, "confidence_level": confidence}
    # Of a degenerate sample: the ends are NaN then, which is for the caller to see.
    with no_warnings(scipy.stats.DegenerateDataWarning):
        found = scipy.stats.bootstrap(
            several,
            figure,
            n_resamples=resamples,
            batch=_BATCH,
            method="percentile",
            rng=rng,
            **common,
        )
        ends, used = found.confidence_interval, "percentile"
        if method == "BCa":
            with np.errstate(divide="ignore", invalid="ignore"):
                better = scipy.stats.bootstrap(
                    several, figure, n_resamples=0, method="BCa", bootstrap_result=found, **common
                ).confidence_interval
            exists = np.isfinite([better.low, better.high]).all()
            ends, used = (better, "BCa") if exists else (ends, "percentile (BCa is undefined)")
    return ends.low, ends.high, used


def corrected_resampled(
    values: Sequence[float], test_share: float, confidence: float = 0.95
) -> Estimate:
    """Interval of the mean over folds of a (repeated) cross-validation.

    Training parts overlap, so folds are correlated and sd / sqrt(J) is far too small; the variance
    is multiplied by 1 / J + n_test / n_train instead of 1 / J.

    Args:
        values: the figure of each of the J folds of all repeats.
        test_share: n_test / n_train, for example 0.5 for 3 folds.
        confidence: of the interval.

    Raises:
        ConfigError: fewer than two values.

    Source: Nadeau and Bengio, Machine Learning 52:239 (2003), eq. 16; Bouckaert and Frank,
    PAKDD (2004) for repeats.
    """
    if len(values) < 2:
        raise ConfigError(f"{len(values)} folds: an interval over folds needs at least 2")
    mean, count = float(np.mean(values)), len(values)
    sd = math.sqrt(float(np.var(values, ddof=1)) * (1 / count + test_share))
    half = float(scipy.stats.t.ppf(0.5 + confidence / 2, count - 1)) * sd
    return Estimate(
        mean, mean - half, mean + half,
        f"mean of {count} folds, corrected resampled t (Nadeau-Bengio)",
    )  # fmt: skip


def _check_two_classes(positive: Bools) -> None:
    if positive.all() or not positive.any():
        raise ConfigError(
            f"{int(positive.sum())} positive of {len(positive)}: an AUC needs both classes"
        )
