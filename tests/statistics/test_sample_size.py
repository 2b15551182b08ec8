"""Numbers of patients: the interval they give is as narrow as asked, and with fewer it is not."""

from __future__ import annotations

import numpy as np
import pytest

from millie.errors import ConfigError
from millie.statistics.intervals import clopper_pearson
from millie.statistics.sample_size import MOST, _ends, patients_for_limit, patients_for_width


def _width(n: int, expected: float) -> float:
    found = clopper_pearson(round(n * expected), n)
    return found.high - found.low


@pytest.mark.parametrize(("expected", "width"), [(0.95, 0.1), (0.9, 0.1), (0.5, 0.2), (1.0, 0.05)])
def test_the_interval_is_as_narrow_as_asked(expected: float, width: float) -> None:
    n = patients_for_width(expected, width)
    assert _width(n - 1, expected) > width
    assert all(_width(k, expected) <= width for k in range(n, n + 200))


def test_when_all_agree_the_answer_has_a_formula() -> None:
    # all of n agree: the lower end is 0.025 ** (1 / n), so n = log(0.025) / log(0.95) = 71.9
    assert patients_for_width(1.0, 0.05) == 72
    assert patients_for_limit(1.0, 0.95) == 72


def test_the_limit_is_reached_with_the_chance_asked_for() -> None:
    found = patients_for_limit(0.97, 0.9, power=0.8)
    assert _chance(found, 0.97, 0.9) >= 0.8 > _chance(found - 1, 0.97, 0.9)


def _chance(n: int, rate: float, least: float) -> float:
    """Share of draws of n patients whose interval lies above a limit."""
    reached = np.array([clopper_pearson(k, n).low >= least for k in range(n + 1)])
    return float(reached[np.random.default_rng(0).binomial(n, rate, 50_000)].mean())


def test_many_intervals_at_once_are_those_of_one() -> None:
    k, n = np.array([0, 3, 10]), np.array([5, 9, 10])
    low, high = _ends(k, n, 0.95)
    for i in range(3):
        one = clopper_pearson(int(k[i]), int(n[i]))
        assert (low[i], high[i]) == pytest.approx((one.low, one.high))


def test_what_cannot_be_had_is_refused() -> None:
    with pytest.raises(ConfigError, match=f"more than {MOST:,}"):
        patients_for_width(0.5, 0.001)
    with pytest.raises(ConfigError, match=f"more than {MOST:,}"):
        patients_for_limit(0.9, 0.8999)
    with pytest.raises(ConfigError, match="below the rate"):
        patients_for_limit(0.9, 0.95)
    with pytest.raises(ConfigError, match="expected 0 to 1"):
        patients_for_width(1.5, 0.1)
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        patients_for_width(0.9, 0.0)
