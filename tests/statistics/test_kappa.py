"""Kappa against a published example and another package."""

from __future__ import annotations

import numpy as np
import pytest

from millie.errors import ConfigError
from millie.statistics.kappa import cohen_kappa

DIAGNOSES = np.array([[75, 1, 4], [5, 4, 1], [0, 0, 10]])
"""Psychotic, neurotic, organic by two raters: Fleiss, Levin and Paik, Statistical Methods for Rates
and Proportions (2003), table 18.1; kappa 0.68, there with an interval of 0.51 to 0.85."""


def test_the_published_example() -> None:
    kappa = cohen_kappa(DIAGNOSES)
    assert kappa.value == pytest.approx(0.676, abs=0.0005)
    assert (kappa.low, kappa.high) == pytest.approx((0.51, 0.85), abs=0.006)


def test_statsmodels_gives_the_same() -> None:
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    rng = np.random.default_rng(0)
    for size in (2, 3, 4):
        table = rng.integers(0, 20, (size, size)) + 10 * np.eye(size, dtype=int)
        theirs, ours = inter_rater.cohens_kappa(table), cohen_kappa(table)
        assert ours.value == pytest.approx(theirs.kappa)
        assert (ours.low, ours.high) == pytest.approx((theirs.kappa_low, theirs.kappa_upp))


def test_full_agreement_and_none() -> None:
    full, none = cohen_kappa(np.diag([5, 5])), cohen_kappa(np.array([[0, 5], [5, 0]]))
    # 10 of 10 agree: 0.6915 to 1, and half of them by chance
    assert (full.value, full.low, full.high) == pytest.approx((1, 2 * 0.6915 - 1, 1), abs=1e-4)
    assert (none.value, none.low, none.high) == pytest.approx((-1, -1, 1 - 2 * 0.6915), abs=1e-4)
    with pytest.raises(ConfigError, match="two classes"):
        cohen_kappa(np.array([[7, 0], [0, 0]]))
    with pytest.raises(ConfigError, match="of 0 samples"):
        cohen_kappa(np.zeros((2, 2), int))
