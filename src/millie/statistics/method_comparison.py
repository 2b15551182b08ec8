"""Two methods that measure the same quantity on the same samples: regression and differences.

Numbers in, numbers out. Passing-Bablok regression asks whether one method gives a constant or a
proportional difference, whatever the errors of both; Bland-Altman limits say how far two results
of one sample lie apart. ``scipy.stats`` takes most of a second to load and is loaded when used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy

from millie.errors import ConfigError
from millie.statistics.intervals import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST = 5
"""Samples below which neither is computed."""


@dataclass(frozen=True, slots=True)
class Line:
    """The new method as ``intercept + slope * reference``.

    Attributes:
        slope: 1 without a proportional difference.
        intercept: 0 without a constant difference, in the unit of the values.
        n: samples.
    """

    slope: Estimate
    intercept: Estimate
    n: int


@dataclass(frozen=True, slots=True)
class Differences:
    """New method minus reference, in the unit of the values.

    Attributes:
        bias: mean difference.
        sd: standard deviation of the differences.
        lower: lower 95 % limit of agreement with its interval; ``upper`` the upper one.
        n: samples.
    """

    bias: Estimate
    sd: float
    lower: Estimate
    upper: Estimate
    n: int


def passing_bablok(reference: Floats, new: Floats, confidence: float = 0.95) -> Line:
    """Slope and intercept that do not depend on which method is called the reference.

    The slope is the median of the slopes between all pairs of samples, shifted by the number of
    slopes below -1; slopes of exactly -1 and pairs of equal samples do not count.

    Args:
        reference: (n,) results of the reference.
        new: (n,) of the other method, same samples.
        confidence: of the intervals.

    Raises:
        ConfigError: fewer than five samples, all of one value by either method, slopes that lie
            mostly below 0, where the method does not hold, or so many samples of one reference
            value that the line would be vertical.

    Source: Passing and Bablok, Journal of Clinical Chemistry and Clinical Biochemistry 21:709
    (1983), section 3; the interval of the intercept from the ends of that of the slope.
    """
    n = _checked(reference, new)
    if np.ptp(reference) == 0 or np.ptp(new) == 0:
        raise ConfigError("a regression needs samples of different values by both methods")
    i, j = np.triu_indices(n, 1)
    dx, dy = reference[j] - reference[i], new[j] - new[i]
    moved = (dx != 0) | (dy != 0)
    with np.errstate(divide="ignore"):
        slopes = np.sort(dy[moved] / dx[moved])  # two samples of one reference value: infinite
    slopes = slopes[slopes != -1]
    count, shift = len(slopes), int((slopes < -1).sum())
    spread = float(scipy.stats.norm.ppf(0.5 + confidence / 2))
    spread *= math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    first = round((count - spread) / 2)
    places = (first + shift - 1, count - first + shift)
    middle = ((count - 1) // 2 + shift, count // 2 + shift)
    if count == 0 or middle[1] >= count:
        raise ConfigError("the two methods do not rise together: no Passing-Bablok regression")
    slope = float(np.mean(slopes[list(middle)]))
    if not math.isfinite(slope):
        raise ConfigError(
            "too many samples have the same value by the reference: no Passing-Bablok regression; "
            "add samples of other values"
        )
    low = float(slopes[places[0]]) if places[0] >= 0 else -math.inf
    high = float(slopes[places[1]]) if places[1] < count else math.inf
    intercept = float(np.median(new - slope * reference))
    # an open end of the slope leaves that of the intercept open
    top = float(np.median(new - low * reference)) if math.isfinite(low) else math.inf
    bottom = float(np.median(new - high * reference)) if math.isfinite(high) else -math.inf
    method = f"Passing-Bablok, {n} samples"
    return Line(Estimate(slope, low, high, method), Estimate(intercept, bottom, top, method), n)


def bland_altman(reference: Floats, new: Floats, confidence: float = 0.95) -> Differences:
    """Mean difference and 95 % limits of agreement, each with its interval.

    Limits are the mean -+ 1.96 standard deviations; their intervals are exact for differences that
    are normally distributed (noncentral t), which the formula of 1986 only approximates.

    Args:
        reference: (n,) results of the reference.
        new: (n,) of the other method, same samples.
        confidence: of the intervals.

    Raises:
        ConfigError: fewer than five samples.

    Source: Bland and Altman, Lancet 327:307 (1986); intervals of the limits: Carkeet, Optometry
    and Vision Science 92:e71 (2015).
    """
    n = _checked(reference, new)
    differences = new - reference
    bias, sd = float(differences.mean()), float(differences.std(ddof=1))
    error, z = sd / math.sqrt(n), float(scipy.stats.norm.ppf(0.975))
    half = float(scipy.stats.t.ppf(0.5 + confidence / 2, n - 1)) * error
    tails = (0.5 - confidence / 2, 0.5 + confidence / 2)
    near, far = (
        float(scipy.stats.nct.ppf(tail, n - 1, z * math.sqrt(n))) * error for tail in tails
    )
    method = f"Bland-Altman, {n} samples"
    return Differences(
        Estimate(bias, bias - half, bias + half, f"{method}, t"),
        sd,
        Estimate(bias - z * sd, bias - far, bias - near, f"{method}, exact"),
        Estimate(bias + z * sd, bias + near, bias + far, f"{method}, exact"),
        n,
    )


def _checked(reference: Floats, new: Floats) -> int:
    if len(reference) != len(new) or len(new) < LEAST:
        raise ConfigError(
            f"{len(reference)} and {len(new)} results: a comparison needs both of each sample, "
            f"and at least {LEAST} samples"
        )
    return len(new)
