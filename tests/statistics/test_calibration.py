"""Temperature, threshold, reliability."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from millie.errors import ConfigError
from millie.statistics.calibration import (
    TEMPERATURE_RANGE,
    apply_temperature,
    balanced_threshold,
    brier,
    calibration_error,
    fit_temperature,
    reliability,
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
    assert fit_temperature(p, np.array([0, 0, 1, 1])) == 1  # four patients prove nothing
    wrong = fit_temperature(p, np.array([1, 1, 0, 0]))
    assert 1 < wrong <= TEMPERATURE_RANGE[1]


def test_temperature_sharpens_no_more_than_the_patients_prove() -> None:
    p, truth = overconfident(4000, 0.5)
    many, some = fit_temperature(p, truth), fit_temperature(p[:100], truth[:100])
    assert 0.5 < many < some <= 1
    assert fit_temperature(p, truth, soften_only=True) == 1
    p, truth = overconfident(4000, 2.0)
    assert fit_temperature(p, truth, soften_only=True) > 1.8


def test_temperature_without_patients_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one patient"):
        fit_temperature(np.empty((0, 2)), np.empty(0, int))


def test_threshold_lies_between_separated_classes() -> None:
    p = np.array([0.1, 0.2, 0.6, 0.9])
    assert 0.2 < balanced_threshold(np.array([False, False, True, True]), p) < 0.6


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_threshold_does_not_depend_on_how_frequent_the_class_is(share: float) -> None:
    """Log odds of the classes are normal around 0 and 2: equally likely at 1."""
    rng = np.random.default_rng(3)
    positive = rng.random(6000) < share
    log_odds = rng.normal(size=6000) + 2 * positive
    found = balanced_threshold(positive, 1 / (1 + np.exp(-log_odds)))
    assert found == pytest.approx(1 / (1 + np.exp(-1)), abs=0.03)


def test_threshold_is_steadier_than_the_best_cut() -> None:
    """Over samples of 55 patients; the best cut is the middle between the best neighbours."""
    ours, best = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        positive = np.arange(55) < 15
        p = 1 / (1 + np.exp(-rng.normal(size=55) - 2 * positive))
        ours.append(balanced_threshold(positive, p))
        edges = np.sort(p)
        cuts = (edges[1:] + edges[:-1]) / 2
        gains = [(p[positive] >= c).mean() - (p[~positive] >= c).mean() for c in cuts]
        best.append(cuts[int(np.argmax(gains))])
    assert np.std(ours) < 0.6 * np.std(best)


def test_threshold_without_any_order_is_one_half() -> None:
    assert balanced_threshold(np.array([True, False]), np.array([0.5, 0.5])) == 0.5
    backwards = np.array([0.9, 0.8, 0.1, 0.2])
    assert balanced_threshold(np.array([False, False, True, True]), backwards) == 0.5


def test_threshold_of_certain_probabilities_is_finite() -> None:
    p = np.array([0.0, 0.0, 1.0, 1.0])
    assert 0 < balanced_threshold(np.array([False, False, True, True]), p) < 1


def test_threshold_needs_both_classes() -> None:
    with pytest.raises(ConfigError, match="both classes"):
        balanced_threshold(np.ones(3, bool), np.arange(3.0))


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


@pytest.mark.parametrize("positive", [[True, False], [True, True], [False, False]])
def test_brier_is_the_mean_squared_distance_with_one_class_too(positive: list[bool]) -> None:
    p = np.array([0.0, 0.9])
    expected = ((p - np.array(positive)) ** 2).mean()
    assert brier(np.array(positive), p) == pytest.approx(expected)


@pytest.mark.parametrize("classes", [2, 4])
def test_temperature_equals_a_direct_search(classes: int) -> None:
    """The cross entropy and its prior by SciPy, on a fine grid of temperatures."""
    rng = np.random.default_rng(classes)
    logits = rng.normal(scale=2.5, size=(60, classes))
    truth = np.array([rng.choice(classes, p=row) for row in softmax(logits / 1.7, axis=1)])
    grid = np.geomspace(*TEMPERATURE_RANGE, 4_001)
    loss = [
        np.log(t) ** 2 / 2 - log_softmax(logits / t, axis=1)[np.arange(60), truth].sum()
        for t in grid
    ]
    found = fit_temperature(softmax(logits, axis=1), truth)
    assert found == pytest.approx(grid[int(np.argmin(loss))], rel=2e-3)
