"""Components of variance against a published analysis of variance and another package."""

from __future__ import annotations

import numpy as np
import pytest

from millie.errors import ConfigError
from millie.statistics.variance_components import variance_components

USP = [[100.70, 101.05, 101.15], [99.46, 99.37, 99.59], [99.96, 100.17, 101.01],
       [101.80, 102.16, 102.44], [101.91, 102.00, 101.67]]  # fmt: skip
"""Five runs of three replicates: USP 29, chapter 1010, tables 1 to 3."""


def test_the_published_analysis_of_variance() -> None:
    found = variance_components([USP])
    assert found.mean_square_days == pytest.approx(3.550, abs=0.0005)
    assert found.mean_square_replicates == pytest.approx(0.102, abs=0.0005)
    assert (found.df_days, found.df_replicates, found.n) == (4, 10, 15)
    # "variance of the mean" there: one run, one replicate 1.251; one run, three replicates 1.183
    assert found.within_laboratory.value**2 == pytest.approx(1.251, abs=0.001)
    repeatability = found.repeatability.value**2
    assert found.between_days**2 + repeatability / 3 == pytest.approx(1.183, abs=0.001)


def test_samples_around_their_own_means() -> None:
    shifted = [[x + 40 for x in day] for day in USP]
    one, two = variance_components([USP]), variance_components([USP, shifted])
    assert two.repeatability.value == pytest.approx(one.repeatability.value)
    assert two.between_days == pytest.approx(one.between_days)
    assert two.df_days == 8
    assert two.repeatability.high < one.repeatability.high


def test_unequal_numbers_are_unbiased() -> None:
    rng = np.random.default_rng(0)
    sizes = (1, 2, 4, 3, 2, 1, 5)
    found = [
        variance_components([[rng.normal(0, 2) + rng.normal(0, 1, n) for n in sizes]])
        for _ in range(3000)
    ]
    within = np.mean([one.mean_square_replicates for one in found])
    assert within == pytest.approx(1, rel=0.05)
    # without the cut at 0, days have the variance that was drawn
    per_day = (sum(sizes) - sum(n**2 for n in sizes) / sum(sizes)) / (len(sizes) - 1)
    days = np.mean([(one.mean_square_days - one.mean_square_replicates) / per_day for one in found])
    assert days == pytest.approx(4, rel=0.05)


def test_statsmodels_gives_the_same_for_equal_numbers() -> None:
    models = pytest.importorskip("statsmodels.regression.mixed_linear_model")
    values = np.ravel(USP)
    days = np.repeat(range(5), 3)
    fitted = models.MixedLM(values, np.ones((15, 1)), groups=days).fit(reml=True)
    found = variance_components([USP])
    assert found.mean_square_replicates == pytest.approx(fitted.scale, rel=1e-3)
    assert found.between_days**2 == pytest.approx(float(fitted.cov_re[0, 0]), rel=1e-3)


def test_days_that_differ_less_than_replicates_add_nothing() -> None:
    found = variance_components([[[0.0, 2.0], [0.1, 1.9], [2.0, 0.0]]])
    assert found.between_days == 0
    assert found.within_laboratory.value == found.repeatability.value


def test_identical_results_have_no_scatter() -> None:
    found = variance_components([[[1.0, 1.0], [1.0, 1.0]]])
    assert (found.repeatability.value, found.within_laboratory.high) == (0, 0)


@pytest.mark.parametrize("samples", [[], [[[1.0, 2.0]]], [[[1.0], [2.0]]], [[[], [1.0, 2.0]]]])
def test_a_design_without_replicates_or_days_is_refused(samples: list[list[list[float]]]) -> None:
    with pytest.raises(ConfigError, match="two days"):
        variance_components(samples)
