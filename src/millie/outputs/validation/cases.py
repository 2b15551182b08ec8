"""The patients of a validation: what the reference says, what was called, and how surely.

Owns how a state counts as a class, and the question of a yes or no: any disease against none, or
one class against the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from millie.errors import DataError
from millie.outputs.patient.records import ModelFacts, PatientResult
from millie.outputs.patient.states import FAILED, SUSPECT_SUFFIX
from millie.outputs.validation.plan import OTHER
from millie.statistics.intervals import Estimate
from millie.statistics.rates import Rate

LEAST_ODDS = 1e-6
"""Probabilities nearer to 0 or 1 are taken for this: log odds then lie within +- 13.8."""

WITHOUT_CALL = ("INDETERMINATE", "URGENT_INDETERMINATE", FAILED)
URGENT = "URGENT_INDETERMINATE"


@dataclass(frozen=True, slots=True)
class Question:
    """A yes or no about a patient.

    Attributes:
        name: as the report says it, such as ``APL against the rest``.
        subject: what a patient with a yes has, such as ``APL``.
        classes: those that mean yes; a disease that the model does not know does, where all
            diseases do.
        threshold: of their probability together, from which the answer is yes; None: not known.
        any_disease: whether the question is about any disease against none.
        urgent: whether an urgent state raises the alarm about it.
    """

    name: str
    subject: str
    classes: frozenset[str]
    threshold: float | None = None
    any_disease: bool = False
    urgent: bool = False

    def holds(self, label: str) -> bool:
        """Whether a class means yes."""
        return label in self.classes or (self.any_disease and label == OTHER)

    def log_odds(self, result: PatientResult) -> float:
        """Natural logarithm of the odds of yes."""
        p = sum(result.probabilities[label] for label in self.classes)
        p = float(np.clip(p, LEAST_ODDS, 1 - LEAST_ODDS))
        return math.log(p / (1 - p))

    @property
    def log_threshold(self) -> float | None:
        """The threshold as log odds."""
        if self.threshold is None:
            return None
        p = float(np.clip(self.threshold, LEAST_ODDS, 1 - LEAST_ODDS))
        return math.log(p / (1 - p))


@dataclass(frozen=True, slots=True)
class Case:
    """A patient that counts.

    Attributes:
        reference: class of the model that the reference means, or ``other``; None: not in it.
        called: class that the state names; None: no call.
    """

    patient: str
    reference: str | None
    called: str | None
    result: PatientResult

    @property
    def urgent(self) -> bool:
        """Whether the class that must not wait is not excluded."""
        return self.result.state == URGENT


def called_class(state: str, labels: Sequence[str], negative: frozenset[str]) -> str | None:
    """The class that a state names; None: no call."""
    if state in WITHOUT_CALL:
        return None
    if state == "NO_SIGNAL":
        return next(label for label in labels if label in negative)
    return state.removesuffix(SUSPECT_SUFFIX)


def cases_of(
    results: Sequence[PatientResult],
    reference: Mapping[str, str],
    words: Mapping[str, str],
    model: ModelFacts,
    negative: frozenset[str],
) -> list[Case]:
    """Each patient beside its reference diagnosis.

    Args:
        results: of the runs, each patient once.
        reference: label by patient, in the laboratory's words.
        words: those words and the classes that they mean.
        model: for its classes.
        negative: of these, those without disease.

    Raises:
        DataError: a label that is no class of the model and is not explained by the plan.
    """
    meant = {label: words.get(label, label) for label in reference.values()}
    if unknown := sorted(k for k, v in meant.items() if v not in {*model.labels, OTHER}):
        raise DataError(
            f"reference diagnosis '{unknown[0]}': the model {model.title} knows "
            f"{', '.join(model.labels)}; say in the plan what it means, for example "
            f'[agreement] labels = {{ "{unknown[0]}" = "{model.labels[0]}" }}, or "{OTHER}" for a '
            "disease that the model does not know"
        )
    return [
        Case(
            result.patient,
            meant[reference[result.patient]] if result.patient in reference else None,
            called_class(result.state, model.labels, negative),
            result,
        )
        for result in results
    ]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of the report with its interval.

    Attributes:
        section: key of the section in the plan.
        name: what it is, unique in its section.
        value: None: cannot be measured; also ``low`` and ``high``.
        n: of what it is counted on; 0: not counted.
        unit: of the number.
        method: how the interval was made.
        successes: for a share, how many; None: it is no share.
    """

    section: str
    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    unit: str = ""
    method: str = ""
    successes: int | None = None

    @classmethod
    def of_rate(cls, section: str, name: str, rate: Rate, confidence: float = 0.95) -> Figure:
        """From a share with its exact interval."""
        return cls(
            section, name, rate.value, rate.low, rate.high, rate.n, "share",
            f"Clopper-Pearson, {100 * confidence:g} %", rate.successes,
        )  # fmt: skip

    @classmethod
    def of(cls, section: str, name: str, found: Estimate, n: int, unit: str = "") -> Figure:
        """From an estimate; an end that is not finite is left out."""
        low, high = (end if math.isfinite(end) else None for end in (found.low, found.high))
        return cls(section, name, found.value, low, high, n, unit, found.method)

    def row(self) -> dict[str, Any]:
        """As a row of ``figures.csv``."""
        return {
            "section": self.section, "figure": self.name, "value": self.value, "low": self.low,
            "high": self.high, "n": self.n, "successes": self.successes, "unit": self.unit,
            "method": self.method,
        }  # fmt: skip
