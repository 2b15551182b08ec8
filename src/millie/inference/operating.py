"""Where to call the class that must not wait, and where to exclude it: a clinical decision.

Three operating points stand to choice (``prediction.operating_point``). Their limits come from the
training patients that each network left out, and are kept with a bundle; this module makes limits
of them, and owns what may be promised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from millie.inference.calls import CallRule, must_not_wait
from millie.statistics.conformal import exclusion, p_values, patients_needed, supported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from millie.config import PredictionConfig
    from millie.models.bundle import Bundle


def bundle_rule(bundle: Bundle, config: PredictionConfig) -> CallRule:
    """How a bundle's probabilities become a call under these settings."""
    stated = bundle.manifest
    return call_rule(
        stated.positive, stated.threshold, bundle.labels, bundle.held_out, config, stated.qc
    )


def call_rule(
    positive: str,
    threshold: float,
    labels: Sequence[str],
    held_out: tuple[NDArray[np.float64], NDArray[np.int64]],
    config: PredictionConfig,
    limits: Mapping[str, float],
) -> CallRule:
    """Limits of an operating point.

    Args:
        positive: the class of the threshold.
        threshold: fitted to weigh both errors alike.
        labels: classes in the order of the probabilities.
        held_out: calibrated probabilities (H, C) and classes (H,) of patients out of fold; of none
            the threshold is the limit.
        config: the operating point and what it is to assure.
        limits: of the gates.
    """
    p, truth = held_out
    urgent = labels.index(must_not_wait(labels, positive))
    having, others = p[truth == urgent, urgent], p[truth != urgent, urgent]
    called_from = excluded_below = threshold
    if config.operating_point == "sensitive" and len(having):
        excluded_below = min(threshold, exclusion(having, config.target_sensitivity).limit)
    if config.operating_point == "specific" and len(others) and labels[urgent] == positive:
        called_from = max(threshold, 1 - exclusion(1 - others, config.target_sensitivity).limit)
    return CallRule(positive, called_from, excluded_below, limits, supported_by(p, truth))


def supported_by(p: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """The highest probability to be told, by the held-out patients (H, C) of the rarest class."""
    return supported(min((int((truth == c).sum()) for c in range(p.shape[1])), default=0))


def promise(
    rule: CallRule,
    labels: Sequence[str],
    held_out: tuple[NDArray[np.float64], NDArray[np.int64]],
    config: PredictionConfig,
) -> str:
    """What the limits of an operating point assure, in words for a model card."""
    p, truth = held_out
    urgent = must_not_wait(labels, rule.positive)
    own = p[truth == labels.index(urgent), labels.index(urgent)]
    stands = (
        f"Operating point `{config.operating_point}`: {urgent} is suspected at a probability of "
        f"{rule.threshold:.3f} or above, and excluded only where the whole interval of its "
        f"probability lies below {rule.excluded_below:.3f}."
    )
    if not len(own):
        return stands
    wanted = config.target_sensitivity
    found = exclusion(own, wanted)
    return (
        f"{stands} Of {len(own)} patients with {urgent}, held out of training, "
        f"{int((own < rule.excluded_below).sum())} are below that. The limit `sensitive` "
        f"({min(found.limit, rule.threshold):.3f}) keeps {found.expected:.0%} of further patients "
        f"like these on average, {found.assured:.0%} with 95 % confidence; to assure "
        f"{wanted:.0%} takes {patients_needed(wanted)} patients."
    )


def not_excluded(bundle: Bundle, probabilities: Mapping[str, float]) -> dict[str, float]:
    """Conformal p-value of each class, see :func:`millie.statistics.conformal.p_values`.

    Returns:
        By class, in the bundle's order; empty where the bundle keeps no held-out patients.
    """
    held_out, truth = bundle.held_out
    if not len(truth):
        return {}
    found = p_values(held_out, truth, np.array([probabilities[x] for x in bundle.labels]))
    return dict(zip(bundle.labels, found.tolist(), strict=True))
