"""Temperature, threshold, reliability."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from millie.errors import ConfigError
from millie.learning.calibration import (
    TEMPERATURE_RANGE,
    apply_temperature,
    brier,
    calibration_error,
    fit_temperature,
    reliability,
    youden_threshold,
)


def overconfident(n: int, factor: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities whose log odds are ``factor`` times too large."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(scale=1.5, size=n)
    truth = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(int)
    p = 1 / (1 + np.exp(-factor * logit))
    return np.stack([1 - p, p], axis=1), truth


def test_temperature_one_changes_nothing_and_order_stays() -> None:
    p, _ = overconfident(50, 2.0)
    np.testing.assert_allclose(apply_temperature(p, 1.0), p, atol=1e-12)
    flat = apply_temperature(p, 3.0)
    assert (np.argsort(flat[:, 1]) == np.argsort(p[:, 1])).all()
    np.testing.assert_allclose(flat.sum(axis=1), 1)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_temperature_undoes_a_known_distortion(factor: float) -> None:
    p, truth = overconfident(4000, factor)
    assert fit_temperature(p, truth) == pytest.approx(factor, rel=0.1)


def test_temperature_stays_in_range_when_patients_are_separated() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7]])
    assert TEMPERATURE_RANGE[0] < fit_temperature(p, np.array([0, 0, 1, 1])) < 1
    wrong = fit_temperature(p, np.array([1, 1, 0, 0]))
    assert 1 < wrong <= TEMPERATURE_RANGE[1]


def test_temperature_without_patients_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one patient"):
        fit_temperature(np.empty((0, 2)), np.empty(0, int))


def test_threshold_lies_in_the_middle_of_the_gap() -> None:
    p = np.array([0.1, 0.2, 0.6, 0.9])
    assert youden_threshold(np.array([False, False, True, True]), p) == pytest.approx(0.4)


def test_threshold_is_the_best_of_all() -> None:
    rng = np.random.default_rng(1)
    positive = rng.random(40) < 0.4
    p = np.clip(rng.normal(0.5, 0.2, 40) + 0.2 * positive, 0, 1)

    def gain(t: float) -> float:
        return (p[positive] >= t).mean() - (p[~positive] >= t).mean()

    best = max(gain(t) for t in np.linspace(0, 1, 2001))
    assert gain(youden_threshold(positive, p)) == pytest.approx(best)


def test_threshold_with_constant_probabilities_is_defined() -> None:
    assert 0 < youden_threshold(np.array([True, False]), np.array([0.5, 0.5])) < 1


def test_threshold_needs_both_classes() -> None:
    with pytest.raises(ConfigError, match="both classes"):
        youden_threshold(np.ones(3, bool), np.arange(3.0))


def test_reliability_counts_everyone_once() -> None:
    p, truth = overconfident(83, 1.0)
    curve = reliability(truth == 1, p[:, 1], 10)
    assert sum(point["n"] for point in curve) == 83
    assert len(curve) == 10
    assert all(a["probability"] < b["probability"] for a, b in itertools.pairwise(curve))
    assert all(point["low"] <= point["share"] <= point["high"] for point in curve)


def test_reliability_never_tears_equal_probabilities_apart() -> None:
    curve = reliability(np.array([True, False] * 10), np.full(20, 0.5), 5)
    assert len(curve) == 1
    assert curve[0]["share"] == 0.5


def test_calibration_error_sees_overconfidence() -> None:
    good, truth = overconfident(4000, 1.0)
    bad, _ = overconfident(4000, 4.0)
    assert calibration_error(truth == 1, good[:, 1]) < 0.03
    assert calibration_error(truth == 1, bad[:, 1]) > 0.08
    assert brier(truth == 1, good[:, 1]) < brier(truth == 1, bad[:, 1])
