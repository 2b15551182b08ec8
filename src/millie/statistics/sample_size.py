"""How many patients a proportion needs. Numbers in, numbers out."""

from __future__ import annotations

import numpy as np
import scipy

from millie.errors import ConfigError

MOST = 20_000
"""Patients beyond which no answer is sought."""


def patients_for_width(expected: float, width: float, confidence: float = 0.95) -> int:
    """Smallest number of patients whose exact interval is no wider, if the rate is as expected.

    The number that agrees is a whole one, so widths fall in small steps up and down: the answer is
    the number from which on every larger one holds too.

    Args:
        expected: rate, 0 to 1.
        width: of the interval, from its lower to its upper end, above 0 and below 1.
        confidence: of the interval.

    Raises:
        ConfigError: a number out of its range, or more than 20,000 patients are needed.

    Source: the interval is Clopper and Pearson's, Biometrika 26:404 (1934).
    """
    _check(expected, confidence)
    if not 0 < width < 1:
        raise ConfigError(f"width {width}: expected above 0 and below 1, for example 0.1")
    n = np.arange(1, MOST + 1)
    low, high = _ends(np.rint(n * expected), n, confidence)
    too_wide = np.flatnonzero(high - low > width)
    if len(too_wide) and too_wide[-1] == MOST - 1:
        raise ConfigError(f"more than {MOST:,} patients are needed: give a larger width")
    return int(n[too_wide[-1] + 1]) if len(too_wide) else 1


def patients_for_limit(
    expected: float, least: float, power: float = 0.8, confidence: float = 0.95
) -> int:
    """Smallest number of patients whose interval will lie above a limit, with a given chance.

    Args:
        expected: true rate, 0 to 1.
        least: what the lower end of the exact interval must reach; below ``expected``.
        power: chance that it does.
        confidence: of the interval.

    Raises:
        ConfigError: a number out of its range, or more than 20,000 patients are needed.

    Source: the exact binomial distribution of the number that agrees.
    """
    _check(expected, confidence)
    if not 0 <= least < expected:
        raise ConfigError(f"limit {least}: expected 0 or more, and below the rate of {expected}")
    if not 0 < power < 1:
        raise ConfigError(f"power {power}: expected above 0 and below 1, for example 0.8")
    n = np.arange(1, MOST + 1)
    # the fewest that must agree, found by halving; one more never lowers the end
    few, many = np.zeros(MOST, int), n + 1
    while (few < many).any():
        middle = (few + many) // 2
        low, _ = _ends(np.minimum(middle, n), n, confidence)
        enough = (low >= least) | (middle > n)
        few, many = (
            np.where(enough, few, np.minimum(middle + 1, many)),
            np.where(enough, np.minimum(middle, many), many),
        )
    chance = scipy.stats.binom.sf(few - 1, n, expected)
    short = np.flatnonzero(chance < power)
    if len(short) and short[-1] == MOST - 1:
        raise ConfigError(
            f"more than {MOST:,} patients are needed: a limit nearer to the rate than that cannot "
            "be shown"
        )
    return int(n[short[-1] + 1]) if len(short) else 1


def _ends(k: np.ndarray, n: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Clopper-Pearson ends for many counts at once."""
    tail = (1 - confidence) / 2
    low = np.where(k > 0, scipy.stats.beta.ppf(tail, k, n - k + 1), 0.0)
    high = np.where(k < n, scipy.stats.beta.isf(tail, k + 1, n - k), 1.0)
    return low, high


def _check(expected: float, confidence: float) -> None:
    if not 0 <= expected <= 1:
        raise ConfigError(f"expected rate {expected}: expected 0 to 1")
    if not 0.5 < confidence < 1:
        raise ConfigError(f"confidence {confidence}: expected above 0.5 and below 1")
