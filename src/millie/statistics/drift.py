"""Whether rates and scores change over time: exact tests of counts, an online test of a stream.

Numbers in, numbers out. What is counted, and which runs are the baseline, is decided by the caller.
``scipy.stats`` and MAPIE take seconds to load: they are loaded when a test is first made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy

from millie.errors import no_warnings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def against_rate(successes: int, trials: int, expected: float) -> float:
    """Two-sided p-value of the exact binomial test against a rate that is known.

    Args:
        successes: 0 to ``trials``.
        trials: at least 1.
        expected: 0 to 1.

    Source: the sum of all outcomes that are no likelier, as :func:`scipy.stats.binomtest`.
    """
    return float(scipy.stats.binomtest(successes, trials, expected).pvalue)


def against_counts(successes: int, trials: int, earlier: int, earlier_trials: int) -> float:
    """Two-sided p-value that two binomial counts have one rate: Fisher's exact test.

    A rate counted on a few patients is not known: with 0 of 20 as the truth, one success among the
    next hundred would be impossible. This test takes both counts as they are.

    Source: Fisher, Journal of the Royal Statistical Society 98:39 (1935).
    """
    table = [[successes, trials - successes], [earlier, earlier_trials - earlier]]
    return float(scipy.stats.fisher_exact(table).pvalue)


def against_values(values: Floats, earlier: Floats) -> float:
    """Two-sided p-value that two samples have one distribution: Kolmogorov-Smirnov, exact.

    Args:
        values: (n,), at least one.
        earlier: (m,), at least one.

    Source: Hodges, Arkiv för Matematik 3:469 (1958), as :func:`scipy.stats.ks_2samp`.
    """
    with no_warnings(RuntimeWarning):  # of large samples, for which SciPy takes the limit law
        return float(scipy.stats.ks_2samp(values, earlier).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the error of the whole family, whatever their dependence.

    Source: Holm, Scandinavian Journal of Statistics 6:65 (1979).
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p) for p in adjusted]


def martingale(values: Floats, seed: int = 0) -> Floats:
    """Evidence against "the order of these values means nothing", after each of them.

    A bet at fair odds on conformal p-values: it starts at 1, and while the values are exchangeable
    it ever reaches c with a probability of at most 1/c (Ville's inequality), however often one
    looks. Values that are appended leave the path before them as it was.

    Args:
        values: (n,) in the order of time; equal ones are told apart by a seeded draw.
        seed: of these draws.

    Returns:
        (n,) the simple jumper martingale.

    Source: Vovk et al., Retrain or not retrain, PMLR 152:191 (2021), algorithm 1, its constants;
    Vovk, Statistical Science 36:595 (2021), on testing exchangeability online. MAPIE computes it.
    """
    from mapie.exchangeability_testing import OnlineMartingaleTest  # noqa: PLC0415

    test = OnlineMartingaleTest(test_method="jumper_martingale", random_state=seed)
    for place, value in enumerate(values.tolist()):
        test.update_simple_jumper_martingale(test.compute_p_value(value, values[:place]))
    return np.asarray(test.martingale_value_history, dtype=np.float64)
