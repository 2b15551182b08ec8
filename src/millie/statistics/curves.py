"""The ROC curve a report draws, with its band over resampled patients, from predictions on disk.

The numbers of a study and their intervals come from ``metrics.json``, never from here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millie.statistics.intervals import patient_band
from millie.statistics.metrics import roc

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_GRID = 201


@dataclass(frozen=True, slots=True, eq=False)
class RocBand:
    """An ROC curve with a pointwise band.

    Attributes:
        fpr: (P,) false-positive rate of the curve's corners, rising from 0 to 1.
        tpr: (P,) sensitivity there.
        grid: (G,) false-positive rates at which the band is given.
        low: (G,) lower end of the band.
        high: (G,) upper end.
        n_positive: patients of the positive class.
        n_negative: all others.
    """

    fpr: Floats
    tpr: Floats
    grid: Floats
    low: Floats
    high: Floats
    n_positive: int
    n_negative: int


def roc_band(
    positive: Bools,
    score: Floats,
    rng: np.random.Generator,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> RocBand:
    """The ROC curve with a percentile band over patients resampled within their class.

    Args:
        positive: (n,) True for the positive class.
        score: (n,) one value a patient, repeats averaged before.
        rng: source of randomness; the same state gives the same band.
        resamples: draws of patients.
        confidence: of the pointwise band.

    Raises:
        ConfigError: only one class.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13; vertical
    averaging: Fawcett, Pattern Recognition Letters 27:861 (2006).
    """
    curve = roc(positive, score)
    grid = np.linspace(0, 1, _GRID)
    called = score[:, None] >= np.append(np.inf, np.unique(score)[::-1])

    def height(drawn: NDArray[np.intp]) -> Floats:
        hits, alarms = called[drawn[positive[drawn]]], called[drawn[~positive[drawn]]]
        # Of points above each other the last counts, which is the highest.
        reached: Floats = np.interp(grid, alarms.mean(axis=0), hits.mean(axis=0))
        return reached

    low, high = patient_band(positive, height, resamples, rng, confidence)
    n_positive = int(positive.sum())
    return RocBand(curve.fpr, curve.tpr, grid, low, high, n_positive, len(positive) - n_positive)
