"""From probabilities to a state: what may be called, and what moves a sample to a person.

A call stands where every gate is passed, where its probability reaches the limits, and where no new
draw of the patient's cells would overturn it; the class that must not wait is suspected by its
probability alone, and where it is neither suspected nor excluded, the state is urgent. No disease
is named and nothing is urgent where hardly any immature cells are seen. This module owns the
limits' meaning and the states; measures are the gates' business.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from millie.config import PredictionConfig
from millie.inference.immature import Immature
from millie.inference.quality import SampleQuality
from millie.inference.reasons import Code, reason
from millie.statistics.conformal import CERTAIN, in_words
from millie.types import Reason

NO_SIGNAL = "NO_SIGNAL"
INDETERMINATE = "INDETERMINATE"
URGENT = "URGENT_INDETERMINATE"

EVEN = 0.5
"""Probability of one of two that no draw of the cells may take away."""

_URGENT_LABEL = "APL"


@dataclass(frozen=True, slots=True)
class CallRule:
    """How probabilities become a call.

    Attributes:
        positive: the class that ``threshold`` is about.
        threshold: calibrated probability of ``positive`` from which it is called.
        excluded_below: probability of the class that must not wait below which it is excluded.
        limits: of the bundle (``qc`` of its manifest).
        supported: the highest probability to be told.
    """

    positive: str
    threshold: float
    excluded_below: float
    limits: Mapping[str, float]
    supported: float = CERTAIN

    def called(self, probabilities: Mapping[str, float]) -> str:
        """The class to call: the positive one from its threshold, else the best of the others."""
        if probabilities[self.positive] >= self.threshold:
            return self.positive
        others = {k: p for k, p in probabilities.items() if k != self.positive}
        return max(others, key=lambda label: others[label])


def must_not_wait(labels: Container[str], positive: str) -> str:
    """The class that must not wait: APL, else the positive one."""
    return _URGENT_LABEL if _URGENT_LABEL in labels else positive


def decide(
    probabilities: Mapping[str, float],
    rule: CallRule,
    quality: SampleQuality,
    failed: Sequence[Reason],
    config: PredictionConfig,
    ranges: Mapping[str, tuple[float, float]],
    *,
    elsewhere: Sequence[Reason] = (),
    immature: Immature | None = None,
) -> tuple[str, tuple[Reason, ...]]:
    """The state a prediction ends in, and why.

    A class is named or excluded only where no new draw of the cells would overturn it, so that
    another film of the same patient would have ended alike; suspicion of the class that must not
    wait alone needs no more than its probability.

    Args:
        probabilities: calibrated, by class.
        rule: threshold and limits of the bundle.
        quality: of the sample.
        failed: reasons of :func:`failed_gates`.
        config: least number of cells for NO_SIGNAL, and the labels that mean no disease.
        ranges: ends of each probability's interval, by class; hold the probability.
        elsewhere: why another model rules out all of these diseases. No name is given then, and the
            interval of the class that must not wait is no reason for urgency, its probability is.
        immature: cells that look immature; None: not known, or not to be relied upon because a
            gate failed. Where fewer are seen than patients with the class that must not wait have,
            no disease is named and nothing is urgent.

    Returns:
        ``NO_SIGNAL``, a disease label (APL as ``APL_SUSPECT``), ``INDETERMINATE`` or
        ``URGENT_INDETERMINATE``; and the reasons: none for a call, at least one else, and first the
        one that names the class that must not wait where the state is urgent.
    """
    urgent = must_not_wait(probabilities, rule.positive)
    called = rule.called(probabilities)
    state = state_of(called, config.negative_labels)
    if elsewhere and probabilities[urgent] < rule.excluded_below:
        return INDETERMINATE, (*failed, *elsewhere)
    open_ended = urgent_open(probabilities, ranges, rule, called)
    others = (*failed, *elsewhere)
    if not open_ended and not others and state == NO_SIGNAL:
        others = _why_not_negative(probabilities, ranges, quality, rule, config)
    elif not open_ended and not others:
        others = _why_not_disease(probabilities, ranges, rule, config)
    named = not open_ended and not others
    if named and (state == NO_SIGNAL or immature is None or immature.seen):
        return state, ()
    if not open_ended and ranges[urgent][1] >= rule.excluded_below:
        open_ended = (_not_excluded(urgent, ranges[urgent], rule.excluded_below, rule),)
    if (named or open_ended) and immature is not None and not immature.seen:
        label = urgent if open_ended else called
        few = _few_immature(label, ranges[label], immature, rule.supported)
        return INDETERMINATE, (few, *others)
    return URGENT if open_ended else INDETERMINATE, (*open_ended, *others)


def urgent_open(
    probabilities: Mapping[str, float],
    ranges: Mapping[str, tuple[float, float]],
    rule: CallRule,
    called: str,
) -> tuple[Reason, ...]:
    """Why the class that must not wait is neither called nor excluded; empty if it is.

    Errors do not weigh alike: the class is excluded only where its whole interval lies below the
    limit, and suspected where its probability reaches the upper one, whatever the interval says.
    """
    urgent = must_not_wait(probabilities, rule.positive)
    if called == urgent:
        return ()
    if urgent == max(probabilities, key=lambda label: probabilities[label]):
        text = f"{urgent} is the most likely class but below its threshold"
        return (reason(_not_excluded_code(urgent), text),)
    limit = min(rule.excluded_below, ranges[called][0])
    if ranges[urgent][1] >= limit:
        return (_not_excluded(urgent, ranges[urgent], limit, rule),)
    return ()


def _not_excluded(urgent: str, ends: tuple[float, float], limit: float, rule: CallRule) -> Reason:
    told = _between(ends, rule.supported)
    text = (
        f"{urgent} is not excluded: its probability lies {told} when cells are drawn anew, "
        f"excluded below {limit:.2f}"
    )
    return reason(_not_excluded_code(urgent), text)


def _few_immature(label: str, ends: tuple[float, float], found: Immature, most: float) -> Reason:
    text = (
        f"hardly any immature cells: {found.share:.1%} of the cells look like blasts or "
        f"promyelocytes, at most {found.high:.1%} when cells are drawn anew, and "
        f"{found.limit:.1%} is the least that supports a disease; yet the probability of {label} "
        f"lies {_between(ends, most)}"
    )
    return reason(Code.FEW_IMMATURE_CELLS, text)


def _between(ends: tuple[float, float], most: float) -> str:
    low, high = (in_words(end, most) for end in ends)
    return f"at {low}" if low == high else f"between {low} and {high}"


def _not_excluded_code(urgent: str) -> Code:
    apl = urgent == _URGENT_LABEL
    return Code.APL_NOT_EXCLUDED if apl else Code.POSITIVE_NOT_EXCLUDED


def is_seen(
    probabilities: Mapping[str, float],
    ranges: Mapping[str, tuple[float, float]],
    others: Sequence[str],
    needed: float,
) -> bool:
    """Whether something else than some classes is seen.

    Its probability reaches what is needed, and whichever cells are drawn it is likelier than not.
    """
    return (
        1 - sum(probabilities[label] for label in others) >= needed
        and 1 - sum(ranges[label][1] for label in others) >= EVEN
    )


def how_sure(
    probabilities: Mapping[str, float],
    ranges: Mapping[str, tuple[float, float]],
    others: Sequence[str],
    needed: float,
    most: float,
) -> str:
    """What :func:`is_seen` looked at, in words, no probability surer than ``most``."""
    value = in_words(1 - sum(probabilities[label] for label in others), most)
    low, high = (max(0.0, 1 - sum(ranges[label][i] for label in others)) for i in (1, 0))
    return (
        f"probability {value}, {_between((low, high), most)} when cells are drawn anew; "
        f"{needed:.2f} and never below {EVEN:.2f} needed to name one"
    )


def _why_not_disease(
    probabilities: Mapping[str, float],
    ranges: Mapping[str, tuple[float, float]],
    rule: CallRule,
    config: PredictionConfig,
) -> tuple[Reason, ...]:
    """Why no disease may be named although every gate is passed; empty if it may.

    The positive class is named by its threshold, any other one by being the likeliest disease.
    """
    negative = _negative(probabilities, config)
    needed = config.min_disease_probability
    if negative and not is_seen(probabilities, ranges, negative, needed):
        told = how_sure(probabilities, ranges, negative, needed, rule.supported)
        text = f"leukaemia is not certain: {told}"
        return (reason(Code.LEUKAEMIA_NOT_CERTAIN, text),)
    called = rule.called(probabilities)
    rivals = [label for label in probabilities
              if label != called != rule.positive and ranges[label][1] > ranges[called][0]
              and state_of(label, config.negative_labels) != NO_SIGNAL]  # fmt: skip
    if not rivals:
        return ()
    told = ", ".join(f"{x} {_between(ranges[x], rule.supported)}" for x in (called, *rivals))
    text = f"which disease is not settled: probability of {told}"
    return (reason(Code.DISEASE_NOT_SETTLED, text),)


def _why_not_negative(
    probabilities: Mapping[str, float],
    ranges: Mapping[str, tuple[float, float]],
    quality: SampleQuality,
    rule: CallRule,
    config: PredictionConfig,
) -> tuple[Reason, ...]:
    """Why NO_SIGNAL may not be given although every gate is passed; empty if it may."""
    reasons = []
    needed = max(config.min_cells_negative, int(rule.limits.get("min_cells_negative", 0)))
    if (missing := needed - quality.n_usable) > 0:
        text = f"too few cells: {quality.n_usable} usable, at least {needed} needed for NO_SIGNAL"
        reasons.append(reason(Code.TOO_FEW_CELLS_FOR_NO_SIGNAL, text, missing=missing))
    if not quality.pictures:
        text = "focus, exposure, stain and scale were not checked: the cells came as vectors"
        reasons.append(reason(Code.NO_PICTURES, text))
    least = config.min_negative_probability
    low, high = (
        min(1.0, sum(ranges[x][i] for x in _negative(probabilities, config))) for i in (0, 1)
    )
    if low <= least:
        told = _between((low, high), rule.supported)
        text = (
            f"leukaemia is not excluded: probability of no disease {told}, more than {least:.2f} "
            "needed for NO_SIGNAL"
        )
        reasons.append(reason(Code.LEUKAEMIA_NOT_EXCLUDED, text))
    return tuple(reasons)


def _negative(labels: Iterable[str], config: PredictionConfig) -> list[str]:
    """Those that mean no disease."""
    return [label for label in labels if state_of(label, config.negative_labels) == NO_SIGNAL]


def state_of(label: str, negative: Sequence[str]) -> str:
    """The state that calls a class; ``negative`` are the labels that mean no disease."""
    if label.casefold() in {name.casefold() for name in negative}:
        return NO_SIGNAL
    return f"{label}_SUSPECT" if label == _URGENT_LABEL else label
