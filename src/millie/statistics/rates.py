"""Proportions of patients with exact intervals, and predictive values over prevalences.

Owns the few statistics that a report derives from counts; the figures of merit of a study come from
``metrics.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from millie.errors import ConfigError
from millie.statistics.intervals import Estimate, clopper_pearson

Floats = NDArray[np.float64]

_DRAWS = 20_000
_SEED = 0


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of patients with its exact interval.

    Attributes:
        successes: of ``n``.
        n: patients; 0: there is no share.
        value: successes / n, or None; also ``low`` and ``high``, the Clopper-Pearson interval.
    """

    successes: int
    n: int
    value: float | None
    low: float | None
    high: float | None

    @property
    def text(self) -> str:
        """``0.87 (0.71 to 0.96; 20/23)``, or a dash without patients."""
        if self.value is None or self.low is None or self.high is None:
            return "–"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f}; {self.successes}/{self.n})"


def missed_share(n: int, risk: float = 0.05) -> float:
    """Largest share of which n draws can show none at all, with a chance of ``risk``.

    (1 - share) ** n = risk. For 0.05 it is about 3 / n, the "rule of three".

    Args:
        n: draws, at least 1.
        risk: chance that none is drawn, between 0 and 1.

    Source: Hanley and Lippman-Hand, JAMA 249:1743 (1983).
    """
    return float(1 - risk ** (1 / n))


def rate(successes: int, n: int, confidence: float = 0.95) -> Rate:
    """A share with its exact interval, :func:`millie.statistics.intervals.clopper_pearson`.

    Args:
        successes: 0 to ``n``.
        n: patients; 0 gives a rate without values.
        confidence: of the interval.

    Raises:
        ConfigError: more successes than patients, or fewer than 0.
    """
    if n == 0:
        return Rate(0, 0, None, None, None)
    found = clopper_pearson(successes, n, confidence)
    return Rate(successes, n, found.value, found.low, found.high)


def mean_share(shares: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean of one share a patient, with an interval that counts patients, not draws.

    A share between 0 and 1 never scatters more than a yes or no of the same mean: the exact
    interval of as many patients, with the sum of their shares for the number of successes, is
    wide enough whatever the draws of a patient have in common.

    Args:
        shares: (n,) of independent patients, each 0 to 1; at least one.
        confidence: of the interval.

    Raises:
        ConfigError: no patient.

    Source: Clopper and Pearson, Biometrika 26:404 (1934), by the beta distribution.
    """
    n, tail = len(shares), (1 - confidence) / 2
    if not n:
        raise ConfigError("a mean share needs at least one patient")
    k = float(np.sum(shares))
    return Estimate(
        k / n,
        float(scipy.stats.beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0,
        float(scipy.stats.beta.isf(tail, k + 1, n - k)) if k < n else 1.0,
        f"Clopper-Pearson over {n} patients",
    )


@dataclass(frozen=True, slots=True)
class Counts:
    """Patients by diagnosis and call of one class.

    Attributes:
        hits: have the class and are called so.
        misses: have it and are called otherwise.
        false_alarms: do not have it and are called so.
        rejections: do not have it and are called otherwise.
    """

    hits: int
    misses: int
    false_alarms: int
    rejections: int

    @classmethod
    def of(cls, positive: NDArray[np.bool_], called: NDArray[np.bool_]) -> Counts:
        """Count (n,) diagnoses against (n,) calls."""
        return cls(
            int((positive & called).sum()),
            int((positive & ~called).sum()),
            int((~positive & called).sum()),
            int((~positive & ~called).sum()),
        )

    @property
    def sensitivity(self) -> Rate:
        """Share of those with the class that are called."""
        return rate(self.hits, self.hits + self.misses)

    @property
    def specificity(self) -> Rate:
        """Share of those without the class that are not called."""
        return rate(self.rejections, self.rejections + self.false_alarms)


@dataclass(frozen=True, slots=True, eq=False)
class PredictiveValues:
    """What a call means where the disease is as frequent as stated.

    Attributes:
        prevalence: (n,), 0 to 1.
        positive: (3, n) positive predictive value, lower and upper end of its interval.
        negative: (3, n) the same of the negative predictive value.
    """

    prevalence: Floats
    positive: Floats
    negative: Floats


def predictive_values(
    counts: Counts, prevalence: Floats, confidence: float = 0.95
) -> PredictiveValues:
    """Predictive values by Bayes' rule from sensitivity and specificity.

    Intervals: quantiles over draws of both from their posteriors under Jeffreys' prior, which stays
    proper where no error was seen. They assume that sensitivity and specificity carry over to the
    other population.

    Source: Brown, Cai, DasGupta, Statistical Science 16:101 (2001), for the prior.
    """
    rng = np.random.default_rng(_SEED)
    drawn_se = rng.beta(counts.hits + 0.5, counts.misses + 0.5, _DRAWS)[:, None]
    drawn_sp = rng.beta(counts.rejections + 0.5, counts.false_alarms + 0.5, _DRAWS)[:, None]
    tail = (1 - confidence) / 2
    spread_p, spread_n = (
        np.quantile(values, [tail, 1 - tail], axis=0)
        for values in _bayes(drawn_se, drawn_sp, prevalence)
    )
    se, sp = counts.sensitivity.value or 0.0, counts.specificity.value or 0.0
    value_p, value_n = _bayes(np.array([[se]]), np.array([[sp]]), prevalence)
    return PredictiveValues(
        prevalence,
        np.vstack([value_p, np.minimum(spread_p[:1], value_p), np.maximum(spread_p[1:], value_p)]),
        np.vstack([value_n, np.minimum(spread_n[:1], value_n), np.maximum(spread_n[1:], value_n)]),
    )


def _bayes(sensitivity: Floats, specificity: Floats, prevalence: Floats) -> tuple[Floats, Floats]:
    """Positive and negative predictive value; 0 where nobody would get the call."""
    with_disease, without = prevalence, 1 - prevalence
    called = sensitivity * with_disease + (1 - specificity) * without
    cleared = specificity * without + (1 - sensitivity) * with_disease
    positive = np.divide(
        sensitivity * with_disease, called, out=np.zeros_like(called), where=called > 0
    )
    negative = np.divide(
        specificity * without, cleared, out=np.zeros_like(cleared), where=cleared > 0
    )
    return positive, negative
