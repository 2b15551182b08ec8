"""Quantiles with intervals that assume no distribution. Numbers in, numbers out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import scipy

from millie.errors import ConfigError
from millie.statistics.intervals import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray


def quantile_interval(
    values: NDArray[np.float64], share: float, confidence: float = 0.95
) -> Estimate:
    """A quantile between two of the values, each end with half of the error.

    Args:
        values: (n,), at least one.
        share: of the values below the quantile, between 0 and 1.
        confidence: of the interval; an end that so few values cannot give is infinite.

    Raises:
        ConfigError: no value.

    Source: order statistics; Conover, Practical Nonparametric Statistics (1999), section 3.2.
    """
    n = len(values)
    if not n:
        raise ConfigError("a quantile needs at least one value")
    ordered, tail = np.sort(values), (1 - confidence) / 2
    drawn = scipy.stats.binom(n, share)
    below = int(drawn.ppf(tail))  # P(below - 1 or fewer) < tail: rank `below` is low enough
    above = int(drawn.ppf(1 - tail)) + 1
    return Estimate(
        float(np.quantile(values, share)),
        float(ordered[below - 1]) if below >= 1 else -math.inf,
        float(ordered[above - 1]) if above <= n else math.inf,
        f"order statistics, n = {n}",
    )
