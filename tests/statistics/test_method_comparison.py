"""Passing-Bablok and Bland-Altman against published numbers."""

from __future__ import annotations

import numpy as np
import pytest

from millie.errors import ConfigError
from millie.statistics.method_comparison import bland_altman, passing_bablok

# Of the tests of methcomp (MIT), whose figures are from R's mcr (mcreg, method.reg="PaBa",
# method.ci="analytical").
X = np.arange(1.0, 21.0)
Y = np.array([1.03, 2.05, 2.79, 3.67, 5.00, 5.82, 7.16, 7.69, 8.53, 10.38, 11.11, 12.17, 13.47,
              13.83, 15.15, 16.12, 16.94, 18.09, 19.13, 19.54])  # fmt: skip

# Peak expiratory flow, l/min, first readings: Bland and Altman, Lancet 327:307 (1986), table 1.
WRIGHT = np.array([494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423,
                   427], float)  # fmt: skip
MINI = np.array([512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350,
                 451], float)  # fmt: skip


def test_passing_bablok_gives_the_numbers_of_mcr() -> None:
    line = passing_bablok(X, Y)
    assert line.slope.value == pytest.approx(1.0050, abs=1e-9)
    assert line.intercept.value == pytest.approx(0.0125, abs=1e-9)
    # mcr halves the way between two neighbouring slopes where Passing and Bablok round the rank
    assert line.slope.low == pytest.approx(0.9848077, abs=2.5e-4)
    assert line.slope.high == pytest.approx(1.0265805, abs=1.3e-3)
    assert line.intercept.low == pytest.approx(-0.2975146, abs=1.3e-2)
    assert line.intercept.high == pytest.approx(0.1393271, abs=2e-3)


def test_it_does_not_matter_which_method_is_the_reference() -> None:
    rng = np.random.default_rng(3)
    x = rng.uniform(5, 80, 25)
    y = 1.2 * x + rng.normal(0, 6, 25)
    line, other = passing_bablok(x, y), passing_bablok(y, x)
    assert other.slope.value == pytest.approx(1 / line.slope.value, rel=0.02)
    assert other.slope.low == pytest.approx(1 / line.slope.high, rel=0.02)


def test_the_interval_of_the_slope_covers() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        truth = rng.uniform(5, 80, 30)
        line = passing_bablok(truth + rng.normal(0, 3, 30), truth + rng.normal(0, 3, 30))
        held += line.slope.low <= 1 <= line.slope.high
    assert 0.92 <= held / 300 <= 0.98


def test_equal_samples_and_slopes_of_minus_one_do_not_count() -> None:
    x = np.array([1.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    assert passing_bablok(x, x).slope.value == 1
    with pytest.raises(ConfigError, match="do not rise together"):
        passing_bablok(X[:6], X[:6][::-1].copy())


def test_limits_of_agreement_are_those_of_1986() -> None:
    found = bland_altman(MINI, WRIGHT)
    assert found.bias.value == pytest.approx(-2.1, abs=0.05)
    assert found.sd == pytest.approx(38.8, abs=0.05)
    assert (found.bias.low, found.bias.high) == pytest.approx((-22.0, 17.8), abs=0.05)
    # there with 2 standard deviations: -79.7 and 75.5
    assert found.bias.value - 2 * found.sd == pytest.approx(-79.7, abs=0.1)
    assert found.lower.value == pytest.approx(-79.7, abs=1.7)
    assert found.upper.value == pytest.approx(75.5, abs=1.7)


def test_the_interval_of_a_limit_covers() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(2000):
        d = rng.normal(2, 5, 12)
        found = bland_altman(np.zeros(12), d)
        held += found.upper.low <= 2 + 1.959964 * 5 <= found.upper.high
    assert 0.935 <= held / 2000 <= 0.965


def test_too_few_samples_or_no_spread_is_said() -> None:
    with pytest.raises(ConfigError, match="at least 5 samples"):
        bland_altman(X[:4], Y[:4])
    with pytest.raises(ConfigError, match="different values"):
        passing_bablok(np.ones(6), Y[:6])


def test_most_patients_without_an_abnormal_cell_by_eye_give_no_line() -> None:
    by_eye = np.concatenate([np.zeros(25), [20.0, 40, 60, 80, 90]])
    new = 0.9 * by_eye + np.random.default_rng(0).uniform(0, 3, 30)
    with pytest.raises(ConfigError, match="same value by the reference"):
        passing_bablok(by_eye, new)
    line = passing_bablok(by_eye[18:], new[18:])  # the upper end of the slope alone is open
    assert np.isfinite([line.slope.value, line.slope.low, line.intercept.value]).all()
    assert (line.slope.high, line.intercept.low) == (np.inf, -np.inf)
