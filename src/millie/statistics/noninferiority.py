"""Whether something new is not worse than the old by more than a margin, on the same patients.

Non-inferior: the whole interval of the difference (new minus old) lies above minus the margin.
Inferior: the whole interval lies below it. Anything else is not shown, which is no proof of either.
The intervals are two-sided; of 95 % means an error of 2.5 % at most where the new is worse by the
margin. Owns the paired statistics and the verdict; who the patients are is for others to say.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy

from millie.errors import ConfigError
from millie.statistics.intervals import Estimate, delong_components, delong_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

Verdict = Literal["non-inferior", "inferior", "not shown"]


@dataclass(frozen=True, slots=True)
class Paired:
    """One figure of old and new on the same patients.

    Attributes:
        old: the figure, 0 to 1.
        new: likewise.
        n: patients it is of.
        difference: new minus old, with its interval.
        margin: the largest loss that counts as none, above 0.
        p_value: of no difference; None where none is computed.
        lost: patients right with the old alone; None for an AUC.
        gained: patients right with the new alone.
    """

    old: float
    new: float
    n: int
    difference: Estimate
    margin: float
    p_value: float | None = None
    lost: int | None = None
    gained: int | None = None

    @property
    def verdict(self) -> Verdict:
        """By the ends of the interval."""
        if self.difference.low > -self.margin:
            return "non-inferior"
        return "inferior" if self.difference.high < -self.margin else "not shown"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "verdict": self.verdict}


def paired_auc(
    positive: Bools, old: Floats, new: Floats, margin: float, confidence: float = 0.95
) -> Paired:
    """Areas under the ROC curve, with the interval of their difference.

    Each area has its interval of DeLong's variance on the logit scale, and the two are joined with
    DeLong's correlation of the paired areas. The plain interval of the difference is symmetric,
    which areas near 1 are not: where the new is worse by just the margin, it found 6 to 11 of 100
    such models non-inferior (22 and 60 patients, areas of 0.90 to 0.99), this one 1 to 3.

    Args:
        positive: (n,) True for the class; both kinds of patients.
        old: (n,) scores, higher means more positive.
        new: likewise; the very same scores differ by 0 for certain.
        margin: above 0.
        confidence: of the interval.

    Source: Zou and Donner, Statistics in Medicine 27:1693 (2008), eq. 4 (MOVER); DeLong 1988.

    Raises:
        ConfigError: a margin that is none, or no patient of a class.
    """
    _check(margin)
    first, second = (delong_interval(positive, scores, confidence) for scores in (old, new))
    value = second.value - first.value
    if np.array_equal(old, new):
        found = Estimate(value, value, value, "the same scores")
    else:
        r = _correlation(positive, old, new)
        low = value - _joined(second.value - second.low, first.high - first.value, r)
        high = value + _joined(second.high - second.value, first.value - first.low, r)
        found = Estimate(value, low, high, "DeLong, logit scale, joined by MOVER")
    return Paired(first.value, second.value, len(positive), found, margin)


def _correlation(positive: Bools, old: Floats, new: Floats) -> float:
    """Of the two areas, by DeLong; 0 where one has no variance or a class has one patient."""
    parts = [delong_components(positive, scores)[1:] for scores in (old, new)]
    if min(len(part) for part in parts[0]) < 2:
        return 0.0
    cov = np.sum([np.cov(a, b) / len(a) for a, b in zip(*parts, strict=True)], axis=0)
    both = float(cov[0, 0] * cov[1, 1])
    return float(cov[0, 1]) / math.sqrt(both) if both > 0 else 0.0


def _joined(a: float, b: float, correlation: float) -> float:
    """Length of one arm of the difference from the arms of both figures."""
    return math.sqrt(max(a * a + b * b - 2 * correlation * a * b, 0.0))


def paired_rate(old: Bools, new: Bools, margin: float, confidence: float = 0.95) -> Paired:
    """A proportion of the same patients, right by the old and by the new.

    The interval is Tango's score interval of the difference; the p-value McNemar's exact one.

    Args:
        old: (n,) True where the old is right; n >= 1.
        new: likewise.
        margin: above 0.
        confidence: of the interval.

    Source: Tango, Statistics in Medicine 17:891 (1998); McNemar, Psychometrika 12:153 (1947), exact
    by the binomial distribution of the patients on which both differ.

    Raises:
        ConfigError: a margin that is none, or no patient.
    """
    _check(margin)
    n, gained, lost = len(old), int((new & ~old).sum()), int((old & ~new).sum())
    if not n:
        raise ConfigError("no patients: a proportion needs at least one")
    low, high = tango_interval(n, gained, lost, confidence)
    differ = gained + lost
    p_value = float(scipy.stats.binomtest(gained, differ, 0.5).pvalue) if differ else 1.0
    words = f"Tango score interval, {gained} gained and {lost} lost of {n}"
    difference = Estimate((gained - lost) / n, low, high, words)
    return Paired(
        float(old.mean()), float(new.mean()), n, difference, margin, p_value, lost, gained
    )


def tango_interval(n: int, gained: int, lost: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of ``(gained - lost) / n``, the difference of two paired proportions.

    Args:
        n: pairs, at least 1.
        gained: pairs right by the second alone.
        lost: pairs right by the first alone.
        confidence: of the interval.

    Source: Tango 1998, eq. 2 and 7, with his closed form of the constrained estimate.
    """
    z = float(scipy.stats.norm.ppf(0.5 + confidence / 2))

    def excess(delta: float, target: float) -> float:
        b = -gained - lost + (2 * n - gained + lost) * delta
        c = -lost * delta * (1 - delta)
        share = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        spread = math.sqrt(max(n * (2 * share + delta * (1 - delta)), 0.0))
        return gained - lost - n * delta - target * spread

    value, beside = (gained - lost) / n, 1e-9  # at the value itself both sides may be 0
    low = high = value
    if value - beside > -1:
        low = float(scipy.optimize.brentq(excess, -1, value - beside, (z,)))
    if value + beside < 1:
        high = float(scipy.optimize.brentq(excess, value + beside, 1, (-z,)))
    return low, high


def pairs_needed(margin: float, confidence: float = 0.95) -> int:
    """The fewest patients from whom a rate can be shown non-inferior, if not one of them is lost.

    Args:
        margin: above 0, below 1.
        confidence: of the interval.
    """
    z = float(scipy.stats.norm.ppf(0.5 + confidence / 2))
    return math.floor(z * z * (1 - margin) / margin) + 1


def _check(margin: float) -> None:
    if not 0 < margin < 1:
        raise ConfigError(f"margin {margin:g}: expected more than 0 and less than 1")
