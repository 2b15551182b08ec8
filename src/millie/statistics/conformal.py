"""What patients that were held out allow to be said of the next one: excluded, or not.

Class-conditional conformal prediction (Vovk et al., Algorithmic Learning in a Random World, 2005,
ch. 4.5) and its order statistics as tolerance limits (Wilks, Ann Math Stat 12:91, 1941). Both
assume that the next patient is drawn like those held out: another laboratory may differ. Owns the
statistics; which class is asked about is its caller's business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy

from millie.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CONFIDENCE = 0.95
"""Of what is assured."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A limit of a class's probability, and what may be promised of it.

    Attributes:
        limit: below it the class counts as excluded.
        expected: share of further patients with the class that are at or above it, on average.
        assured: the same with a confidence of 0.95.
        n: held-out patients with the class.
    """

    limit: float
    expected: float
    assured: float
    n: int


def exclusion(scores: Floats, sensitivity: float) -> Exclusion:
    """The highest limit at which a share of the class is assured, as far as the number allows.

    Of n patients the r-th lowest probability is taken: a further patient is at or above it with
    probability 1 - r / (n + 1) on average, and with confidence 0.95 with at least the 0.05 quantile
    of Beta(n - r + 1, r). Where no r assures the share (fewer than 59 patients for 0.95), r = 1.

    Args:
        scores: (n,) the class's probability in held-out patients that have it.
        sensitivity: share that is to be at or above the limit, 0 to 1.

    Raises:
        ConfigError: no patient, or a share outside 0 to 1.
    """
    n = len(scores)
    if n == 0 or not 0 < sensitivity < 1:
        raise ConfigError(f"{n} patients, sensitivity {sensitivity}: expected some, and 0 to 1")
    ranks = np.arange(1, n + 1)
    assured = scipy.stats.beta.ppf(1 - CONFIDENCE, n - ranks + 1, ranks)
    rank = max(1, int((assured >= sensitivity).sum()))
    return Exclusion(
        float(np.sort(scores)[rank - 1]), 1 - rank / (n + 1), float(assured[rank - 1]), n
    )


def patients_needed(sensitivity: float) -> int:
    """Fewest patients whose lowest probability assures a sensitivity (59 for 0.95)."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(sensitivity))


def p_values(held_out: Floats, truth: NDArray[np.integer], probabilities: Floats) -> Floats:
    """For each class, how unusual the probability would be in a patient that has it.

    (1 + number of held-out patients of the class whose probability of it is not higher) / (n + 1):
    classes whose value is above alpha form a set that holds the true one with probability 1 - alpha
    at least, in each class by itself. Of n patients alpha cannot be below 1 / (n + 1).

    Args:
        held_out: (P, C) probabilities of patients by networks that had not seen them.
        truth: (P,) their classes.
        probabilities: (C,) of the patient in question.

    Returns:
        (C,) above 0 to 1; 1 for a class of which no patient was held out.
    """
    values = np.ones(len(probabilities))
    for label in range(len(probabilities)):
        own = held_out[truth == label, label]
        values[label] = (1 + (own <= probabilities[label]).sum()) / (1 + len(own))
    return values


CERTAIN = 0.99
"""No probability is told to be above this."""


def supported(patients: int) -> float:
    """Highest probability that a class's number of held-out patients lets us tell: n / (n + 1).

    A class that none of n patients contradicted may still be wrong in the next one; at most 0.99,
    and that where the number is not known (0).
    """
    return min(CERTAIN, patients / (patients + 1)) if patients else CERTAIN


def in_words(value: float, most: float = CERTAIN) -> str:
    """A probability with two digits, never surer than supported: 0.87, >0.95, <0.05."""
    high = math.floor(100 * most + 1e-9) / 100
    if value > high:
        return f">{high:.2f}"
    return f"<{1 - high:.2f}" if value < 1 - high else f"{value:.2f}"
