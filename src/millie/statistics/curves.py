"""Points of the curves a report draws, from the predictions on disk.

Owns the step curves of sensitivity against false positives (with its band over resampled patients)
and of precision against recall.
The numbers of a study and their intervals come from ``metrics.json``, never from here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


def roc_points(positive: Bools, score: Floats) -> tuple[Floats, Floats]:
    """False-positive rate and sensitivity at every distinct threshold, from (0, 0) to (1, 1).

    Args:
        positive: (n,) True for the positive class; both classes occur.
        score: (n,) higher means more positive; equal scores move together.
    """
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = np.cumsum(positive[order])[last]
    misses = last + 1 - hits
    return (
        np.concatenate([[0.0], misses / (~positive).sum()]),
        np.concatenate([[0.0], hits / positive.sum()]),
    )


def recall_points(positive: Bools, score: Floats) -> tuple[Floats, Floats]:
    """Recall and precision at every distinct threshold, from the strictest to the loosest.

    Args:
        positive: (n,) True for the positive class; at least one.
        score: (n,) higher means more positive; equal scores move together.
    """
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = np.cumsum(positive[order])[last]
    return hits / positive.sum(), hits / (last + 1)


def roc_band(
    positive: Bools,
    score: Floats,
    rng: np.random.Generator,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> RocBand:
    """The ROC curve with a percentile band over patients resampled within their class.

    Args:
        positive: (n,) True for the positive class; both classes occur.
        score: (n,) one value a patient, repeats averaged before.
        rng: source of randomness; the same state gives the same band.
        resamples: draws of patients.
        confidence: of the pointwise band.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13; vertical
    averaging: Fawcett, Pattern Recognition Letters 27:861 (2006).
    """
    grid = np.linspace(0, 1, _GRID)
    above, below = score[positive], score[~positive]
    truth = np.arange(len(score)) < len(above)
    drawn = np.empty((resamples, _GRID))
    for i in range(resamples):
        sample = np.concatenate([rng.choice(above, len(above)), rng.choice(below, len(below))])
        drawn[i] = _height(grid, *roc_points(truth, sample))
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    fpr, tpr = roc_points(positive, score)
    return RocBand(fpr, tpr, grid, low, high, len(above), len(below))


def _height(grid: Floats, fpr: Floats, tpr: Floats) -> Floats:
    """Sensitivity reached at each false-positive rate of the grid."""
    # Of points above each other the highest counts: search from the right.
    right = np.searchsorted(fpr, grid, side="right") - 1
    following = np.minimum(right + 1, len(fpr) - 1)
    run = fpr[following] - fpr[right]
    share = np.divide(grid - fpr[right], run, out=np.zeros_like(grid), where=run > 0)
    height: Floats = tpr[right] + share * (tpr[following] - tpr[right])
    return height
