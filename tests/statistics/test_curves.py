"""Bands over resampled patients, and the curves they belong to."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from millie.errors import ConfigError
from millie.statistics.curves import roc_band
from millie.statistics.decision_curve import decision_curve
from millie.statistics.intervals import patient_band


def patients(decimals: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    positive = rng.permutation(60) < 25
    return positive, np.round(rng.normal(positive * 1.0, 1), decimals)


@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_roc_band_equals_that_of_scikit_learns_curves(decimals: int) -> None:
    positive, score = patients(decimals)
    grid = np.linspace(0, 1, 201)

    def height(drawn: np.ndarray) -> np.ndarray:
        fpr, tpr, _ = roc_curve(positive[drawn], score[drawn], drop_intermediate=False)
        return np.interp(grid, fpr, tpr)

    band = roc_band(positive, score, np.random.default_rng(0), resamples=100)
    low, high = patient_band(positive, height, 100, np.random.default_rng(0))
    np.testing.assert_array_equal(band.grid, grid)
    np.testing.assert_allclose(band.low, low, atol=1e-12)
    np.testing.assert_allclose(band.high, high, atol=1e-12)


def test_roc_band_takes_the_highest_of_points_above_each_other() -> None:
    """Separated classes: sensitivity 1 from a false-positive rate of 0 on."""
    positive = np.arange(10) < 4
    band = roc_band(positive, positive.astype(float), np.random.default_rng(0), resamples=100)
    np.testing.assert_array_equal(band.low, 1)
    np.testing.assert_array_equal(band.high, 1)


def test_roc_band_needs_both_classes() -> None:
    with pytest.raises(ConfigError, match="needs both classes"):
        roc_band(np.ones(3, bool), np.arange(3.0), np.random.default_rng(0))


def test_decision_band_equals_resampling_written_out() -> None:
    positive, score = patients(9)
    p = 1 / (1 + np.exp(-score))
    curve = decision_curve(positive, p, np.random.default_rng(2), resamples=200)
    rng = np.random.default_rng(2)
    members = [np.flatnonzero(~positive), np.flatnonzero(positive)]
    drawn = np.concatenate([m[rng.integers(0, len(m), (200, len(m)))] for m in members], axis=1)
    for place in (4, 29, 69):
        t = curve.threshold[place]
        called = p[drawn] >= t
        hits, alarms = called & positive[drawn], called & ~positive[drawn]
        benefit = hits.mean(axis=1) - t / (1 - t) * alarms.mean(axis=1)
        assert curve.low[place] == pytest.approx(np.quantile(benefit, 0.025))
        assert curve.high[place] == pytest.approx(np.quantile(benefit, 0.975))


def test_decision_curve_of_one_class_has_a_band() -> None:
    curve = decision_curve(np.ones(5, bool), np.full(5, 0.5), np.random.default_rng(0), 100)
    assert (curve.low <= curve.model).all()
    assert (curve.model <= curve.high).all()
