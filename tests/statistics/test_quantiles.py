"""Quantiles without a distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest

from millie.errors import ConfigError
from millie.statistics.quantiles import quantile_interval


def test_the_median_of_few_values() -> None:
    # the tabled ranks: n = 10: 2nd and 9th value, 97.9 %; n = 30: 10th and 21st
    found = quantile_interval(np.arange(1.0, 11.0), 0.5)
    assert (found.value, found.low, found.high) == (5.5, 2, 9)
    found = quantile_interval(np.arange(1.0, 31.0), 0.5)
    assert (found.low, found.high) == (10, 21)


def test_the_interval_covers() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        found = quantile_interval(rng.exponential(1, 60), 0.9)
        held += found.low <= math.log(10) <= found.high
    assert held / 2000 >= 0.945


def test_an_end_that_few_values_cannot_give_is_infinite() -> None:
    assert quantile_interval(np.arange(5.0), 0.9).high == math.inf
    assert quantile_interval(np.arange(5.0), 0.1).low == -math.inf
    with pytest.raises(ConfigError, match="at least one"):
        quantile_interval(np.zeros(0), 0.5)
