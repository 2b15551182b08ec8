"""Agreement of two raters beyond chance. Numbers in, numbers out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import scipy

from millie.errors import ConfigError
from millie.statistics.intervals import Estimate, clopper_pearson

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NONE = 1e-9
"""A standard error that is 0 but for rounding."""


def cohen_kappa(counts: NDArray[np.intp], confidence: float = 0.95) -> Estimate:
    """Cohen's kappa with the interval of its asymptotic standard error.

    Where all samples agree, or none, that error is 0 and says nothing: the interval is then that
    of the ends of the exact interval of the share that agrees, chance taken as observed.

    Args:
        counts: (C, C) samples by the class that one rater (row) and the other (column) gave.
        confidence: of the interval, which is cut at -1 and 1.

    Raises:
        ConfigError: no square table, no sample, or both raters gave one and the same class to all:
            agreement beyond chance is undefined then.

    Source: Cohen, Educational and Psychological Measurement 20:37 (1960); standard error: Fleiss,
    Cohen and Everitt, Psychological Bulletin 72:323 (1969), eq. 13.
    """
    n = int(counts.sum())
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or n == 0:
        raise ConfigError(f"table {counts.shape} of {n} samples: kappa needs a square one with any")
    p = counts / n
    rows, columns, agreed = p.sum(axis=1), p.sum(axis=0), np.diag(p)
    observed, chance = float(agreed.sum()), float(rows @ columns)
    if chance >= 1:
        raise ConfigError("kappa needs two classes: all samples have one and the same")
    kappa = (observed - chance) / (1 - chance)
    kept = float((agreed * (1 - (rows + columns) * (1 - kappa)) ** 2).sum())
    crossed = p * (columns[:, None] + rows[None, :]) ** 2
    missed = float((crossed.sum() - np.diag(crossed).sum()) * (1 - kappa) ** 2)
    spare = (kappa - chance * (1 - kappa)) ** 2
    error = math.sqrt(max(0.0, kept + missed - spare) / n) / (1 - chance)
    if error < _NONE:
        exact = clopper_pearson(round(observed * n), n, confidence)
        low, high = ((end - chance) / (1 - chance) for end in (exact.low, exact.high))
        method = f"Cohen's kappa, exact interval of the agreement, n = {n}"
        return Estimate(kappa, max(-1.0, low), min(1.0, high), method)
    half = float(scipy.stats.norm.ppf(0.5 + confidence / 2)) * error
    return Estimate(
        kappa, max(-1.0, kappa - half), min(1.0, kappa + half),
        f"Cohen's kappa, asymptotic standard error {error:.3f}, n = {n}",
    )  # fmt: skip
