"""Decision curve: what acting on the model is worth against acting on everybody or nobody.

Owns net benefit over threshold probabilities and its band. The threshold probability is the chance
of disease at which acting and waiting are equally good; it states how many false alarms one is
willing to accept for a hit.

Source: Vickers and Elkin, Medical Decision Making 26:565 (2006).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millie.statistics.intervals import patient_band

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

GRID = np.round(np.arange(1, 100) / 100, 2)


@dataclass(frozen=True, slots=True, eq=False)
class DecisionCurve:
    """Net benefit per patient, in hits.

    Attributes:
        threshold: (G,) threshold probabilities.
        model: (G,) net benefit of acting on the model; ``low`` and ``high`` its pointwise band.
        treat_all: (G,) of acting on everybody; acting on nobody has 0.
        prevalence: share of positives that the values are for.
    """

    threshold: Floats
    model: Floats
    low: Floats
    high: Floats
    treat_all: Floats
    prevalence: float


def decision_curve(
    positive: Bools,
    probability: Floats,
    rng: np.random.Generator,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> DecisionCurve:
    """Net benefit at the study's own share of positives, with a band over resampled patients.

    Args:
        positive: (n,) True for the positive class.
        probability: (n,) calibrated, repeats averaged before.
        rng: source of randomness; the same state gives the same band.
        resamples: draws of patients, within their class.
        confidence: of the pointwise band.
    """
    odds = GRID / (1 - GRID)
    called = probability[:, None] >= GRID[None, :]
    hits, alarms = called & positive[:, None], called & ~positive[:, None]
    gain = (hits - odds * alarms).astype(np.float64)
    low, high = patient_band(
        positive, lambda drawn: gain[drawn].mean(axis=0), resamples, rng, confidence
    )
    share = float(positive.mean())
    return DecisionCurve(GRID, gain.mean(axis=0), low, high, share - odds * (1 - share), share)


def useful_range(curve: DecisionCurve) -> tuple[float, float] | None:
    """The widest run of thresholds where the model beats both acting on all and on none.

    None where there is no such threshold.
    """
    better = curve.model > np.maximum(curve.treat_all, 0) + 1e-12
    runs = np.split(np.arange(len(better)), np.flatnonzero(np.diff(better.astype(int))) + 1)
    inside = [run for run in runs if better[run[0]]]
    if not inside:
        return None
    widest = max(inside, key=len)
    return float(curve.threshold[widest[0]]), float(curve.threshold[widest[-1]])
