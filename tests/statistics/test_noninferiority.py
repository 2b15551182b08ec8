"""Non-inferiority on the same patients: the error that it promises, counted and simulated."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy

from millie.errors import ConfigError
from millie.statistics.intervals import Estimate, delong_difference, delong_interval
from millie.statistics.noninferiority import (
    Paired,
    paired_auc,
    paired_rate,
    pairs_needed,
    tango_interval,
)

Z = 1.959964


def patients(gained: int, lost: int, both: int = 10) -> tuple[np.ndarray, np.ndarray]:
    old = np.array([False] * gained + [True] * (lost + both))
    return old, np.array([True] * gained + [False] * lost + [True] * both)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.09, 0.2, "non-inferior"), (0.1, 0.2, "non-inferior"), (-0.3, -0.11, "inferior"),
     (-0.3, 0.1, "not shown"), (-0.1, 0.1, "not shown")],
)  # fmt: skip
def test_the_verdict_is_where_the_interval_lies(low: float, high: float, verdict: str) -> None:
    found = Paired(0.9, 0.9, 30, Estimate(0.0, low, high, ""), 0.1)
    assert found.verdict == verdict
    assert found.to_dict()["verdict"] == verdict
    assert replace(found, margin=0.31).verdict == "non-inferior"


@pytest.mark.parametrize(("n", "gained", "lost"), [(20, 3, 5), (50, 12, 2), (22, 0, 4), (9, 1, 0)])
def test_tango_solves_the_score_equation_of_the_likelihood(n: int, gained: int, lost: int) -> None:
    """At each end the constrained likelihood, maximised by search, gives a score of z."""
    same = n - gained - lost
    for end, sign in zip(tango_interval(n, gained, lost), (1, -1), strict=True):

        def loss(share: float, end: float = end) -> float:
            p = np.array([share + end, share, 1 - 2 * share - end])
            return -float(scipy.special.xlogy([gained, lost, same], np.clip(p, 0, 1)).sum())

        bounds = (max(0.0, -end), (1 - end) / 2)
        best = scipy.optimize.minimize_scalar(
            loss, bounds=bounds, method="bounded", options={"xatol": 1e-10}
        )
        spread = math.sqrt(n * (2 * best.x + end * (1 - end)))
        assert (gained - lost - n * end) / spread == pytest.approx(sign * Z, abs=2e-3)


def test_tango_without_a_difference_has_its_closed_form() -> None:
    for n in (1, 22, 400):
        end = Z**2 / (n + Z**2)
        assert tango_interval(n, 0, 0) == pytest.approx((-end, end), abs=1e-6)
    assert tango_interval(10, 10, 0)[1] == tango_interval(10, 0, 10)[0] * -1 == 1


@pytest.mark.parametrize(("n", "margin"), [(22, 0.1), (36, 0.1), (60, 0.05)])
def test_a_rate_that_is_worse_by_the_margin_passes_once_in_forty(n: int, margin: float) -> None:
    """Every outcome of n patients, weighed by its chance: no simulation."""
    counts = [(g, x) for g in range(n + 1) for x in range(n + 1 - g)]
    passed = np.array(
        [(g, x, n - g - x) for g, x in counts if tango_interval(n, g, x)[0] > -margin]
    )
    for gained in np.linspace(0, (1 - margin) / 2, 12):
        share = [gained, gained + margin, max(0.0, 1 - 2 * gained - margin)]
        assert scipy.stats.multinomial.pmf(passed, n, share).sum() < 0.031


def test_the_fewest_patients_are_just_enough() -> None:
    for margin in (0.02, 0.05, 0.1, 0.25):
        n = pairs_needed(margin)
        assert tango_interval(n, 0, 0)[0] > -margin
        assert tango_interval(n - 1, 0, 0)[0] <= -margin
    assert (pairs_needed(0.1), pairs_needed(0.05)) == (35, 73)


def test_mcnemar_is_a_coin_thrown_for_those_on_whom_both_differ() -> None:
    found = paired_rate(*patients(gained=1, lost=7), margin=0.1)
    assert (found.gained, found.lost, found.n) == (1, 7, 18)
    assert found.p_value == pytest.approx(2 * (1 + 8) / 2**8)
    assert (found.old, found.new) == pytest.approx((17 / 18, 11 / 18))
    assert found.difference.value == pytest.approx(-6 / 18)
    assert paired_rate(*patients(0, 0), margin=0.1).p_value == 1


def scores(
    rng: np.random.Generator, aucs: tuple[float, float], n: tuple[int, int], r: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Binormal scores of both, correlated."""
    positive = np.repeat([True, False], n)
    z = rng.standard_normal((2, len(positive)))
    z[1] = r * z[0] + math.sqrt(1 - r * r) * z[1]
    shift = math.sqrt(2) * scipy.stats.norm.ppf(aucs)
    return positive, z[0] + shift[0] * positive, z[1] + shift[1] * positive


@pytest.mark.parametrize(
    ("aucs", "n", "r"),
    [((0.95, 0.9), (22, 60), 0.6), ((0.99, 0.94), (22, 60), 0.6), ((0.95, 0.9), (60, 60), 0.6)],
)
def test_an_area_that_is_worse_by_the_margin_rarely_passes(
    aucs: tuple[float, float], n: tuple[int, int], r: float
) -> None:
    rng = np.random.default_rng(1)
    drawn = [scores(rng, aucs, n, r) for _ in range(600)]
    passed = [paired_auc(*one, margin=0.05).verdict == "non-inferior" for one in drawn]
    assert np.mean(passed) < 0.045
    if n == (22, 60):  # what it is measured against
        plain = [delong_difference(p, b, a).low > -0.05 for p, a, b in drawn]
        assert np.mean(plain) > 1.5 * np.mean(passed)


def test_an_area_that_is_as_good_is_shown_where_patients_are_many() -> None:
    rng = np.random.default_rng(2)
    drawn = [scores(rng, (0.95, 0.95), (80, 160), 0.8) for _ in range(50)]
    verdicts = [paired_auc(*one, margin=0.05).verdict for one in drawn]
    assert verdicts.count("non-inferior") > 40
    worse = [paired_auc(*scores(rng, (0.95, 0.7), (80, 160), 0.8), margin=0.05) for _ in range(20)]
    assert {one.verdict for one in worse} == {"inferior"}


def test_equal_scores_differ_by_nothing_and_separated_ones_by_what_few_patients_leave() -> None:
    positive = np.repeat([True, False], (22, 60))
    old = np.arange(82.0)[::-1]
    assert delong_interval(positive, old).value == 1
    same = paired_auc(positive, old, old, margin=0.01)
    assert (same.difference.low, same.difference.high, same.verdict) == (0, 0, "non-inferior")
    other = paired_auc(positive, old, old**2, margin=0.1)
    assert other.difference.low == pytest.approx(-(1 - 0.025 ** (1 / 22)))
    assert other.verdict == "not shown"


def test_more_alike_scores_give_a_narrower_interval() -> None:
    widths = []
    for r in (0.0, 0.5, 0.95):
        one = paired_auc(*scores(np.random.default_rng(5), (0.9, 0.9), (40, 40), r), margin=0.1)
        widths.append(one.difference.high - one.difference.low)
    assert widths[0] > widths[1] > widths[2]


@pytest.mark.parametrize("margin", [0.0, -0.1, 1.0, math.nan])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(ConfigError, match="expected more than 0 and less than 1"):
        paired_rate(*patients(1, 1), margin=margin)
    with pytest.raises(ConfigError, match="expected more than 0 and less than 1"):
        paired_auc(*scores(np.random.default_rng(0), (0.9, 0.9), (5, 5), 0), margin=margin)


def test_nobody_has_no_rate() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        paired_rate(np.zeros(0, bool), np.zeros(0, bool), margin=0.1)
