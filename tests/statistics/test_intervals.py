"""Intervals against slow references, other implementations and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from MLstatkit import Delong_test
from scipy import stats
from sklearn.metrics import roc_auc_score

from millie.errors import ConfigError
from millie.statistics.intervals import (
    Estimate,
    clopper_pearson,
    corrected_resampled,
    delong_components,
    delong_difference,
    delong_interval,
    delong_variance,
    patient_bootstrap,
)
from millie.statistics.metrics import roc_auc
from millie.statistics.rates import rate


def slow_delong(positive: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """The definition, pair by pair: psi is 1, 1/2 or 0."""
    x, y = score[positive], score[~positive]
    psi = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
    area = psi.mean()
    s10 = ((psi.mean(axis=1) - area) ** 2).sum() / (len(x) - 1)
    s01 = ((psi.mean(axis=0) - area) ** 2).sum() / (len(y) - 1)
    return float(area), float(s10 / len(x) + s01 / len(y))


def draw(n: int, m: int, shift: float, seed: int, decimals: int = 9) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    positive = np.r_[np.ones(m, bool), np.zeros(n, bool)]
    score = np.round(rng.normal(size=m + n) + shift * positive, decimals)
    order = rng.permutation(m + n)
    return positive[order], score[order]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 30), m=st.integers(2, 30), shift=st.floats(-2, 3),
    seed=st.integers(0, 999), decimals=st.sampled_from([0, 1, 9]),
)  # fmt: skip
def test_delong_equals_the_pairwise_definition(
    n: int, m: int, shift: float, seed: int, decimals: int
) -> None:
    positive, score = draw(n, m, shift, seed, decimals)
    area, variance = slow_delong(positive, score)
    assert delong_components(positive, score)[0] == pytest.approx(area, abs=1e-12)
    assert delong_variance(positive, score) == pytest.approx(variance, abs=1e-12)
    assert roc_auc(positive, score) == pytest.approx(area, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(3, 40), m=st.integers(3, 40), shift=st.floats(-1, 2),
    seed=st.integers(0, 999), decimals=st.sampled_from([0, 1, 9]),
)  # fmt: skip
def test_delong_equals_mlstatkit(n: int, m: int, shift: float, seed: int, decimals: int) -> None:
    positive, score = draw(n, m, shift, seed, decimals)
    noise = np.random.default_rng(seed + 1).normal(scale=0.7, size=n + m)
    other = np.round(score + noise, decimals)
    ours = delong_difference(positive, score, other)
    assume(ours.high - ours.low > 1e-6)  # else MLstatkit resamples
    *_, first, second, facts = Delong_test(positive, score, other)
    assert facts["method"] == "delong"
    assert first == pytest.approx(roc_auc_score(positive, score), abs=1e-12)
    assert roc_auc(positive, score) == pytest.approx(first, abs=1e-12)
    assert ours.value == pytest.approx(first - second, abs=1e-12)
    half = stats.norm.ppf(0.975) * np.sqrt(facts["var_diff"])
    assert (ours.high - ours.low) / 2 == pytest.approx(half, rel=1e-9)


def test_delong_variance_is_that_of_mlstatkits_interval() -> None:
    positive, score = draw(60, 40, 0.5, 0, decimals=1)
    _, _, (low, high), _ = Delong_test(positive, score, -score, return_auc=False)
    assert 0 < low < high < 1  # not cut
    variance = ((high - low) / 2 / stats.norm.ppf(0.975)) ** 2
    assert delong_variance(positive, score) == pytest.approx(variance, rel=1e-9)


def test_delong_agrees_with_the_bootstrap() -> None:
    positive, score = draw(120, 80, 1.0, 3)
    delong = delong_interval(positive, score)
    boot = patient_bootstrap(
        [str(p) for p in positive],
        lambda i: roc_auc(positive[i], score[i]),
        1000,
        np.random.default_rng(0),
    )
    assert boot.value == pytest.approx(delong.value)
    assert boot.low == pytest.approx(delong.low, abs=0.015)
    assert boot.high == pytest.approx(delong.high, abs=0.015)


def test_delong_interval_covers_the_truth() -> None:
    truth = stats.norm.cdf(2 / np.sqrt(2))
    inside = 0
    for seed in range(400):
        interval = delong_interval(*draw(60, 22, 2.0, seed))
        inside += interval.low <= truth <= interval.high
    assert 0.92 <= inside / 400 <= 0.985


def test_a_perfect_separation_does_not_claim_certainty() -> None:
    positive = np.r_[np.ones(12, bool), np.zeros(40, bool)]
    interval = delong_interval(positive, positive.astype(float))
    assert interval.value == interval.high == 1
    assert interval.low == pytest.approx(clopper_pearson(12, 12).low)
    assert "DeLong's variance is 0" in interval.method


def test_interval_lies_inside_zero_to_one() -> None:
    for seed in range(30):
        interval = delong_interval(*draw(5, 4, 1.5, seed))
        assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_paired_difference_of_equal_scores_is_zero() -> None:
    positive, score = draw(20, 20, 1.0, 0)
    difference = delong_difference(positive, score, score)
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_paired_difference_to_the_mean_of_several_ways() -> None:
    positive, score = draw(60, 60, 1.0, 0)
    ways = score + np.random.default_rng(1).normal(scale=0.8, size=(6, 120))
    copies = delong_difference(positive, score, np.stack([ways[0]] * 3))
    assert copies.low == pytest.approx(delong_difference(positive, score, ways[0]).low)
    mean = delong_difference(positive, score, ways)
    own = roc_auc(positive, score)
    assert mean.value == pytest.approx(np.mean([own - roc_auc(positive, w) for w in ways]))
    boot = patient_bootstrap(
        [str(p) for p in positive],
        lambda i: float(
            np.mean([roc_auc(positive[i], score[i]) - roc_auc(positive[i], w[i]) for w in ways])
        ),
        1000,
        np.random.default_rng(0),
    )
    assert mean.low == pytest.approx(boot.low, abs=0.01)
    assert mean.high == pytest.approx(boot.high, abs=0.01)


def test_paired_difference_is_narrower_than_unpaired() -> None:
    positive, score = draw(60, 60, 1.0, 0)
    other = score + np.random.default_rng(1).normal(scale=0.3, size=120)
    difference = delong_difference(positive, score, other)
    unpaired = np.sqrt(delong_variance(positive, score) + delong_variance(positive, other))
    assert (difference.high - difference.low) / (2 * 1.96) < unpaired / 2
    swapped = delong_difference(positive, other, score)
    assert swapped.value == pytest.approx(-difference.value)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 22), (21, 22), (22, 22), (30, 60)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_clopper_pearson_equals_its_closed_form(k: int, n: int, confidence: float) -> None:
    """Quantiles of the beta distribution; 0 and 1 where none or all succeed."""
    tail = (1 - confidence) / 2
    low = stats.beta.ppf(tail, k, n - k + 1) if k else 0.0
    high = stats.beta.ppf(1 - tail, k + 1, n - k) if k < n else 1.0
    ours, share = clopper_pearson(k, n, confidence), rate(k, n, confidence)
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=1e-9)
    assert (share.value, share.low, share.high) == (ours.value, ours.low, ours.high)


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (0, 0)])
def test_impossible_counts_are_refused(k: int, n: int) -> None:
    with pytest.raises(ConfigError, match="expected 0 <= successes <= trials"):
        clopper_pearson(k, n)


def test_corrected_resampled_equals_the_formula_written_out() -> None:
    values = [0.91, 0.95, 0.88, 0.97, 0.90, 0.93]
    interval = corrected_resampled(values, test_share=0.5)
    sd = np.std(values, ddof=1) * np.sqrt(1 / 6 + 1 / 2)
    assert interval.value == pytest.approx(np.mean(values))
    assert interval.high - interval.value == pytest.approx(stats.t.ppf(0.975, 5) * sd)


def test_more_repeats_do_not_buy_certainty() -> None:
    values = [0.91, 0.95, 0.88]
    wide = corrected_resampled(values * 30, test_share=0.5)
    naive = 1.96 * np.std(values) / np.sqrt(90)
    assert (wide.high - wide.low) / 2 > 5 * naive


def test_one_fold_has_no_interval() -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        corrected_resampled([0.9], 0.5)


def test_bootstrap_keeps_classes_and_is_reproducible() -> None:
    strata = ["A"] * 5 + ["B"] * 3
    drawn: list[tuple[int, int]] = []

    def statistic(index: np.ndarray) -> float:
        drawn.append((int((index < 5).sum()), int((index >= 5).sum())))
        return float(index.mean())

    first = patient_bootstrap(strata, statistic, 100, np.random.default_rng(4))
    assert set(drawn) == {(5, 3)}
    assert first == patient_bootstrap(strata, statistic, 100, np.random.default_rng(4))


def test_bootstrap_equals_resampling_written_out() -> None:
    positive, score = draw(52, 30, 1.2, 5)
    members = [np.flatnonzero(~positive), np.flatnonzero(positive)]
    rng = np.random.default_rng(7)
    drawn = [m[rng.integers(0, len(m), (200, len(m)))] for m in members]
    values = [roc_auc(positive[i], score[i]) for i in np.concatenate(drawn, axis=1)]
    found = patient_bootstrap(
        positive, lambda i: roc_auc(positive[i], score[i]), 200, np.random.default_rng(7)
    )
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_bca_is_given_where_it_is_asked_for_and_exists() -> None:
    positive, score = draw(52, 30, 1.2, 5)

    def interval(score: np.ndarray, method: str) -> Estimate:
        return patient_bootstrap(
            positive, lambda i: roc_auc(positive[i], score[i]), 400, np.random.default_rng(0),
            method=method,
        )  # fmt: skip

    plain, better = interval(score, "percentile"), interval(score, "BCa")
    assert "BCa" in better.method
    assert better.value == plain.value
    assert better.low < plain.low  # the distribution of an AUC has its tail below
    level = patient_bootstrap(positive, lambda _: 0.5, 400, np.random.default_rng(0), method="BCa")
    assert (level.low, level.high) == (0.5, 0.5)
    assert "percentile (BCa is undefined)" in level.method


def test_a_figure_that_misses_one_by_rounding_is_no_certainty_either() -> None:
    found = patient_bootstrap(
        ["A"] * 7, lambda i: 1 - 2.0**-52 * len(set(i)), 100, np.random.default_rng(0)
    )
    assert (found.value, found.low, found.high) == (1, clopper_pearson(7, 7).low, 1)


def test_the_smaller_class_may_be_another_than_the_smallest_stratum() -> None:
    found = patient_bootstrap(
        ["ALL"] * 5 + ["AML"] * 40 + ["APL"] * 20, lambda _: 1.0, 100, np.random.default_rng(0),
        smallest=20,
    )  # fmt: skip
    assert found.low == clopper_pearson(20, 20).low


@pytest.mark.parametrize("method", ["percentile", "BCa"])
@pytest.mark.parametrize("separated", [0.0, 1.0])
def test_classes_that_are_separated_are_no_certainty(method: str, separated: float) -> None:
    positive = np.repeat([True, False], [8, 30])
    score = np.where(positive, separated, 1 - separated)
    found = patient_bootstrap(
        positive, lambda i: roc_auc(positive[i], score[i]), 100, np.random.default_rng(0),
        method=method,
    )  # fmt: skip
    assert found.value == separated
    exact = clopper_pearson(round(8 * separated), 8)
    assert (found.low, found.high) == (exact.low, exact.high)
    delong = delong_interval(positive, score)
    assert (found.low, found.high) == (delong.low, delong.high)
    assert found.method == "exact on the smallest class (8): all resamples are alike"


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_a_single_patient_of_a_class_is_part_of_every_resample(method: str) -> None:
    drawn: list[np.ndarray] = []

    def statistic(index: np.ndarray) -> float:
        drawn.append(index)
        return float(index.mean())

    rng = np.random.default_rng(0)
    found = patient_bootstrap(["A", "B", "B", "B"], statistic, 100, rng, method=method)
    assert found.low < found.value < found.high
    assert all((index == 0).sum() == 1 for index in drawn)
    alone = patient_bootstrap(["A", "B"], statistic, 100, rng, method=method)
    assert (alone.low, alone.high) == (alone.value, alone.value)


def test_an_undefined_resample_leaves_the_interval_undefined() -> None:
    found = patient_bootstrap(
        ["A"] * 5,
        lambda i: float("nan") if (i == 0).sum() > 1 else 0.5,
        200,
        np.random.default_rng(0),
    )
    assert found.value == 0.5
    assert np.isnan([found.low, found.high]).all()


def test_one_class_has_no_auc() -> None:
    with pytest.raises(ConfigError, match="needs both classes"):
        delong_interval(np.ones(4, bool), np.arange(4.0))


def test_one_patient_of_a_class_has_no_delong_variance() -> None:
    positive = np.array([True, False, False])
    with pytest.raises(ConfigError, match="two patients"):
        delong_variance(positive, np.arange(3.0))
    with pytest.raises(ConfigError, match="two patients"):
        delong_difference(positive, np.arange(3.0), np.arange(3.0))
    assert delong_interval(positive, np.array([1.0, 0.0, 2.0])).low == pytest.approx(0, abs=0.02)
