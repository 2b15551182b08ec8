"""Net benefit against acting on everybody or nobody."""

from __future__ import annotations

import numpy as np

from millie.statistics.decision_curve import decision_curve, useful_range


def test_net_benefit_of_a_perfect_model_is_the_prevalence() -> None:
    positive = np.array([True] * 3 + [False] * 7)
    rng = np.random.default_rng(0)
    curve = decision_curve(positive, np.where(positive, 1.0, 0.0), rng, resamples=50)
    np.testing.assert_allclose(curve.model, 0.3)
    assert useful_range(curve) == (0.01, 0.99)
    nothing = decision_curve(positive, np.full(10, 0.3), np.random.default_rng(0), resamples=50)
    below = nothing.threshold <= 0.3
    np.testing.assert_allclose(nothing.model[below], nothing.treat_all[below], atol=1e-12)
    np.testing.assert_allclose(nothing.model[~below], 0)
    assert useful_range(nothing) is None
