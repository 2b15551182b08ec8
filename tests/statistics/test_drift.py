"""Exact tests of counts, Holm's correction, and the online test on steady and changed streams."""

from __future__ import annotations

import numpy as np
import pytest

from millie.statistics.drift import against_counts, against_rate, against_values, holm, martingale

LIMIT = 20.0
"""Reached by at most one of twenty streams without a change."""


def test_binomial_by_hand() -> None:
    assert against_rate(0, 10, 0.5) == pytest.approx(2 / 2**10)
    assert against_rate(3, 10, 0.3) == pytest.approx(1)
    assert against_rate(1, 1, 0.0) == 0


def test_fisher_by_hand() -> None:
    """The tea: 3 of 4 against 1 of 4."""
    assert against_counts(3, 4, 1, 4) == pytest.approx(34 / 70)


def test_none_in_a_short_baseline_does_not_make_one_later_impossible() -> None:
    assert against_rate(1, 100, 0.0) == 0
    assert against_counts(1, 100, 0, 20) == pytest.approx(1)


def test_kolmogorov_smirnov_by_hand() -> None:
    """Three above three others: 2 of the 20 orders are so far apart."""
    assert against_values(np.array([4.0, 5, 6]), np.array([1.0, 2, 3])) == pytest.approx(0.1)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_steady_streams_rarely_alarm() -> None:
    rng = np.random.default_rng(5)
    alarms = sum(martingale(rng.normal(size=60), seed).max() >= LIMIT for seed in range(40))
    assert alarms <= 2


@pytest.mark.parametrize("shift", [3.0, -3.0])
def test_a_shift_either_way_alarms_after_it_and_not_before(shift: float) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=90)
    values[50:] += shift
    evidence = martingale(values)
    assert evidence[:50].max() < LIMIT
    assert evidence.max() >= LIMIT


def test_later_values_leave_the_path_as_it_was() -> None:
    values = np.round(np.random.default_rng(2).random(30), 1)  # with ties
    np.testing.assert_array_equal(martingale(values)[:20], martingale(values[:20]))


def test_it_is_the_simple_jumper() -> None:
    """Algorithm 1 of Vovk et al. 2021, on p-values that no tie makes random."""
    values = np.arange(12.0)  # each is the largest so far
    seen, seed = martingale(values, 3), np.random.default_rng(3)
    capital, expected = np.full(3, 1 / 3), []
    for n in range(len(values)):
        u = seed.uniform()
        p = seed.uniform() if n == 0 else u / (n + 1)
        capital = 0.99 * capital + 0.01 / 3 * capital.sum()
        capital = capital * (1 + np.array([-1.0, 0.0, 1.0]) * (p - 0.5))
        expected.append(capital.sum())
    np.testing.assert_allclose(seen, expected)
