"""How far repeated results of the same samples scatter within a day and from day to day.

Numbers in, numbers out: a nested analysis of variance, as in evaluations of precision by the
laboratory. ``scipy.stats`` takes most of a second to load and is loaded when used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from millie.errors import ConfigError
from millie.statistics.intervals import Estimate

Sample = Sequence[Sequence[float]]
"""Results of one sample: a sequence of days, each with its replicates."""


@dataclass(frozen=True, slots=True)
class Components:
    """Standard deviations in the unit of the results.

    Attributes:
        repeatability: of replicates of one sample on one day.
        between_days: of the means of days, beyond what repeatability explains.
        within_laboratory: of single results on any day: both together.
        mean_square_days: of the analysis of variance; also ``mean_square_replicates``.
        df_days: their degrees of freedom; also ``df_replicates``.
        n: results.
    """

    repeatability: Estimate
    between_days: float
    within_laboratory: Estimate
    mean_square_days: float
    mean_square_replicates: float
    df_days: int
    df_replicates: int
    n: int


def variance_components(samples: Sequence[Sample], confidence: float = 0.95) -> Components:
    """Components of variance of all samples together, each around its own mean.

    Days may differ in their number of replicates. Where days differ less than replicates do, the
    component between days is 0 and the scatter within the laboratory is that of repeatability.

    Args:
        samples: each with days, each with results; days without results do not count.
        confidence: of the intervals.

    Raises:
        ConfigError: no day has two results, or no sample has two days.

    Source: the design and estimates of CLSI EP05-A3 and EP15-A3 for one factor (days); unequal
    numbers: Searle, Casella and McCulloch, Variance Components (1992), section 3.6; interval of a
    sum of components: Satterthwaite, Biometrics Bulletin 2:110 (1946).
    """
    kept = [[np.asarray(day, float) for day in sample if len(day)] for sample in samples]
    kept = [sample for sample in kept if sample]
    df_days = sum(len(sample) - 1 for sample in kept)
    df_replicates = sum(len(day) - 1 for sample in kept for day in sample)
    if df_days < 1 or df_replicates < 1:
        raise ConfigError(
            "components of variance need a sample with results of two days, and a day with two "
            "replicates"
        )
    within = sum(float(((day - day.mean()) ** 2).sum()) for sample in kept for day in sample)
    between, per_day = 0.0, 0.0
    for sample in kept:
        sizes = np.array([len(day) for day in sample], float)
        means = np.array([day.mean() for day in sample])
        mean = float((sizes * means).sum() / sizes.sum())
        between += float((sizes * (means - mean) ** 2).sum())
        per_day += float(sizes.sum() - (sizes**2).sum() / sizes.sum())
    per_day /= df_days  # replicates a day, averaged as its mean square needs it
    ms_days, ms_replicates = between / df_days, within / df_replicates
    variance_days = max(0.0, (ms_days - ms_replicates) / per_day)
    parts = [(ms_replicates, df_replicates)]
    if variance_days > 0:
        parts = [(ms_days / per_day, df_days), (ms_replicates * (1 - 1 / per_day), df_replicates)]
    total = sum(part for part, _ in parts)
    df_total = total**2 / sum(part**2 / df for part, df in parts) if total > 0 else df_replicates
    return Components(
        _sd(ms_replicates, df_replicates, confidence),
        math.sqrt(variance_days),
        _sd(total, df_total, confidence),
        ms_days,
        ms_replicates,
        df_days,
        df_replicates,
        sum(len(day) for sample in kept for day in sample),
    )


def _sd(variance: float, df: float, confidence: float) -> Estimate:
    tails = (0.5 + confidence / 2, 0.5 - confidence / 2)
    low, high = (math.sqrt(variance * df / float(scipy.stats.chi2.ppf(t, df))) for t in tails)
    return Estimate(math.sqrt(variance), low, high, f"ANOVA, chi-squared, {df:.1f} df")
