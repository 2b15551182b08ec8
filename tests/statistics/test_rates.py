"""Shares with exact intervals, and predictive values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millie.errors import ConfigError
from millie.statistics.intervals import clopper_pearson
from millie.statistics.rates import Counts, mean_share, missed_share, predictive_values, rate


@settings(deadline=None)  # the first call imports SciPy
@given(st.integers(0, 40), st.integers(1, 40))
def test_exact_interval_holds_the_share(k: int, n: int) -> None:
    found = rate(min(k, n), n)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert f"{found.successes}/{found.n}" in found.text


@pytest.mark.parametrize("n", [1, 50, 200])
def test_what_cells_can_miss_is_the_exact_limit_of_none(n: int) -> None:
    assert rate(0, n, confidence=0.9).high == pytest.approx(missed_share(n))  # 5 % on either side
    assert missed_share(n) <= 3 / n  # the rule of three


def test_share_of_nobody_is_a_dash() -> None:
    assert rate(0, 0).text == "–"


@settings(deadline=None, max_examples=20)
@given(*[st.integers(0, 30)] * 4)
def test_predictive_values_rise_and_fall_with_the_prevalence(
    a: int, b: int, c: int, d: int
) -> None:
    values = predictive_values(Counts(a + 1, b, c, d + 1), np.array([0.01, 0.1, 0.5]))
    assert (np.diff(values.positive[0]) >= -1e-12).all()
    assert (np.diff(values.negative[0]) <= 1e-12).all()
    for rows in (values.positive, values.negative):
        assert (rows[1] <= rows[0]).all()
        assert (rows[0] <= rows[2]).all()


def test_predictive_values_at_the_study_s_own_share_are_the_counts() -> None:
    values = predictive_values(Counts(8, 2, 1, 9), np.array([0.5]))
    assert values.positive[0][0] == pytest.approx(8 / 9)
    assert values.negative[0][0] == pytest.approx(9 / 11)


def test_a_mean_of_shares_is_as_sure_as_its_patients() -> None:
    whole = mean_share([1.0, 0.0, 1.0, 1.0])
    one = clopper_pearson(3, 4)
    assert (whole.value, whole.low, whole.high) == pytest.approx((one.value, one.low, one.high))
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):  # patients with a rate of their own, ten draws each
        own = rng.beta(6, 2, 15)
        found = mean_share((rng.binomial(10, own) / 10).tolist())
        held += found.low <= 0.75 <= found.high
    assert held / 1000 >= 0.95
    assert mean_share([1.0, 1.0]).high == 1
    with pytest.raises(ConfigError, match="at least one patient"):
        mean_share([])
