"""Tolerance limits and conformal p-values."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from millie.errors import ConfigError
from millie.models.bundle import load_bundle
from millie.statistics.conformal import (
    exclusion,
    in_words,
    p_values,
    patients_needed,
    supported,
)


def test_the_lowest_of_22_patients_assures_87_percent_and_59_are_needed_for_95() -> None:
    found = exclusion(np.linspace(0.1, 0.9, 22), 0.95)
    assert found.limit == pytest.approx(0.1)
    assert found.expected == pytest.approx(22 / 23)
    assert found.assured == pytest.approx(0.05 ** (1 / 22))
    assert patients_needed(0.95) == 59
    assert exclusion(np.linspace(0.1, 0.9, 59), 0.95).assured >= 0.95
    assert exclusion(np.linspace(0.1, 0.9, 58), 0.95).assured < 0.95


def test_of_many_patients_a_higher_limit_assures_the_same() -> None:
    scores = np.random.default_rng(0).random(400)
    found = exclusion(scores, 0.95)
    assert 0 < (scores < found.limit).sum() < 20
    assert found.assured >= 0.95


def test_what_is_assured_holds_in_95_of_100_cohorts() -> None:
    rng = np.random.default_rng(1)
    found = [exclusion(rng.random(60), 0.9) for _ in range(2000)]
    kept = np.mean([1 - e.limit >= e.assured for e in found])  # scores are uniform: share above
    assert kept == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("alpha", [0.1, 0.2])
def test_sets_hold_the_true_class_in_each_class(alpha: float) -> None:
    rng = np.random.default_rng(2)

    def patients(n: int) -> tuple[np.ndarray, np.ndarray]:
        truth = (rng.random(n) < 0.3).astype(int)
        p = 1 / (1 + np.exp(-rng.normal(2.0 * truth - 1, 1.5)))
        return np.stack([1 - p, p], axis=1), truth

    held: dict[int, list[bool]] = {0: [], 1: []}
    for _ in range(60):
        reference, truth = patients(40)
        for p, label in zip(*patients(20), strict=True):
            held[label].append(p_values(reference, truth, p)[label] > alpha)
    for label in (0, 1):
        assert np.mean(held[label]) >= 1 - alpha - 0.03


class _Stated:
    """A classifier of crepes' kind whose features are the probabilities themselves."""

    def __init__(self, classes: int) -> None:
        self.classes_ = np.arange(classes)

    def predict_proba(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return x


def _drawn(seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """40 patients of three classes, tied probabilities among them."""
    rng = np.random.default_rng(seed)
    truth = np.r_[0, 1, 2, rng.integers(0, 3, 37)]
    p = rng.dirichlet(np.ones(3), 40) + np.eye(3)[truth] * rng.random((40, 1))
    return np.round(p / p.sum(axis=1, keepdims=True), 2), truth


def _shipped(name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return load_bundle(name).held_out


@pytest.mark.parametrize(
    "reference",
    [
        *((_drawn, seed) for seed in range(5)),
        (_shipped, "apl-blood"),
        (_shipped, "acute-leukaemia"),
    ],
    ids=lambda made: f"{made[0].__name__.strip('_')}-{made[1]}",
)
def test_p_values_and_sets_are_those_of_crepes(reference: tuple) -> None:
    crepes = pytest.importorskip("crepes", reason="pip install crepes (extra dev)")
    made, of = reference
    held_out, truth = made(of)
    rng = np.random.default_rng(7)
    new = np.r_[held_out[:20], rng.dirichlet(np.ones(held_out.shape[1]), 50)]
    oracle = crepes.WrapClassifier(_Stated(held_out.shape[1]))
    oracle.calibrate(held_out, truth, class_cond=True)
    ours = np.stack([p_values(held_out, truth, p) for p in new])
    assert np.allclose(ours, oracle.predict_p(new, smoothing=False), atol=1e-12)
    for alpha in (0.05, 0.1, 0.2):
        sets = oracle.predict_set(new, confidence=1 - alpha, smoothing=False)
        held = np.array([[label in own for label in oracle.learner.classes_] for own in sets])
        # what stands on the limit itself may fall to either side of it by rounding
        clear = ~np.isclose(ours, alpha, atol=1e-9)
        assert np.array_equal((ours > alpha)[clear], held[clear])


def test_p_values_of_no_patients_exclude_nothing() -> None:
    assert p_values(np.zeros((0, 2)), np.zeros(0, int), np.array([0.1, 0.9])).tolist() == [1, 1]


@pytest.mark.parametrize(("scores", "wanted"), [(np.zeros(0), 0.9), (np.ones(3), 1.0)])
def test_bad_input_is_named(scores: np.ndarray, wanted: float) -> None:
    with pytest.raises(ConfigError, match="expected"):
        exclusion(scores, wanted)


@pytest.mark.parametrize(
    ("value", "patients", "shown"),
    [
        (0.0, 0, "<0.01"), (0.004, 0, "<0.01"), (0.5, 0, "0.50"), (0.9949, 0, ">0.99"),
        (1.0, 5000, ">0.99"), (1.0, 22, ">0.95"), (0.96, 22, ">0.95"), (0.95, 22, "0.95"),
        (0.9563, 22, ">0.95"), (0.0437, 22, "<0.05"),  # 22 of 23 is 0.9565
        (0.04, 22, "<0.05"), (0.0, 4, "<0.20"), (0.85, 4, ">0.80"),
    ],
)  # fmt: skip
def test_no_probability_is_told_surer_than_the_patients_support(
    value: float, patients: int, shown: str
) -> None:
    assert in_words(value, supported(patients)) == shown
