"""A prediction run as it lies on disk, in typed form.

Owns the shapes between ``predictions.json`` and the reports. Reading and writing the files is
:mod:`millie.outputs.tables`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from millie.outputs.patient.states import FAILED
from millie.statistics.rates import missed_share
from millie.types import Measure, Prediction, Problem, Reason, Winner

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The bundle behind a run.

    Attributes:
        name: the bundle's name; also ``version``.
        sha256: digest of its manifest.
        labels: classes in the order of every table.
        positive: the class of the threshold, or None.
        more: whatever else the bundle's card says, kept as it is.
    """

    name: str
    version: str
    sha256: str
    labels: tuple[str, ...]
    positive: str | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Self:
        """From a bundle's card: ``name``, ``version``, ``sha256``, ``labels`` and more."""
        own = {"name", "version", "sha256", "labels", "positive"}
        positive = card.get("positive")
        return cls(
            str(card["name"]),
            str(card["version"]),
            str(card["sha256"]),
            tuple(str(label) for label in card["labels"]),
            None if positive is None else str(positive),
            {k: v for k, v in card.items() if k not in own},
        )

    def to_card(self) -> dict[str, Any]:
        """The card again, JSON-able."""
        return {
            "name": self.name,
            "version": self.version,
            "sha256": self.sha256,
            "labels": list(self.labels),
            "positive": self.positive,
            **self.more,
        }

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"

    @property
    def urgent(self) -> str | None:
        """The class that must not wait, as far as it is known."""
        return self.more.get("urgent", self.positive)

    @property
    def scope(self) -> str:
        """What the model can tell and what it cannot, in one sentence."""
        return str(self.more.get("scope", ""))

    def limits_of(self, label: str) -> list[float]:
        """Probabilities at which the call of a class changes, where the card says them."""
        ends = {("positive", "threshold"), ("urgent", "excluded_below")}
        card = {**self.more, "positive": self.positive}
        found = {
            float(card[end]) for whose, end in ends if card.get(whose) == label and end in card
        }
        return sorted(found)

    @property
    def settings(self) -> dict[str, Any]:
        """What was set otherwise than the model states, as ``stage.field``."""
        return dict(self.more.get("settings", {}))


@dataclass(frozen=True, slots=True)
class PatientResult:
    """One patient of a run: a call, or the error that prevented it.

    Attributes:
        patient: pseudonym.
        state: as in :class:`millie.types.Prediction`, or ``FAILED``.
        reasons: why no call was made; empty for a call.
        label: the class with the highest probability; empty when failed.
        probabilities: of each class in the bundle's order; empty when failed.
        n_cells: usable cells.
        winners: for each class the cells that made it, strongest first.
        error: what went wrong and what to do, or None.
        ranges: ends of each probability's interval, by class; empty when failed.
        quality: what was measured of the images and cells.
        p_values: conformal, by class; see :class:`millie.types.Prediction`, and ``supported``.
    """

    patient: str
    state: str
    reasons: tuple[Reason, ...] = ()
    label: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    n_cells: int = 0
    winners: dict[str, tuple[Winner, ...]] = field(default_factory=dict)
    error: str | None = None
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    quality: tuple[Measure, ...] = ()
    p_values: dict[str, float] = field(default_factory=dict)
    supported: float = 0.99

    @classmethod
    def from_prediction(cls, prediction: Prediction) -> Self:
        """The part of a prediction that reports read."""
        return cls(
            prediction.patient,
            prediction.state,
            prediction.reasons,
            prediction.label,
            {label: float(p) for label, p in prediction.probabilities.items()},
            int(prediction.n_cells),
            {
                label: tuple(
                    Winner(int(w.cell), float(w.contribution), int(w.features)) for w in winners
                )
                for label, winners in prediction.winners.items()
            },
            ranges={x: (float(low), float(high)) for x, (low, high) in prediction.ranges.items()},
            quality=prediction.quality,
            p_values={label: float(p) for label, p in prediction.p_values.items()},
            supported=float(prediction.supported),
        )

    @classmethod
    def from_problem(cls, problem: Problem) -> Self:
        """A patient without a result."""
        return cls(problem.patient, FAILED, error=problem.message)

    @property
    def missed_share(self) -> float | None:
        """Share of abnormal cells in the film that so few cells miss altogether in 5 % of films."""
        return missed_share(self.n_cells) if self.n_cells else None

    @property
    def not_excluded(self) -> tuple[int, list[str]]:
        """Confidence in percent, and the classes that the held-out patients do not exclude at it.

        The confidence is 95 %, or what their number allows where that is less.
        """
        alpha = max(0.05, 1 - self.supported + 1e-9)
        return int(100 - 100 * alpha), [x for x, p in self.p_values.items() if p > alpha]

    @property
    def failed(self) -> bool:
        """Whether there is no result."""
        return self.error is not None


def results_of(
    predictions: Iterable[Prediction], problems: Iterable[Problem] = ()
) -> tuple[PatientResult, ...]:
    """The rows of a run: each prediction, then each patient whom a problem left without one."""
    called = [PatientResult.from_prediction(prediction) for prediction in predictions]
    found = {result.patient for result in called}
    lost: dict[str, PatientResult] = {}
    for problem in problems:
        if problem.fatal and problem.patient and problem.patient not in found:
            lost.setdefault(problem.patient, PatientResult.from_problem(problem))
    return (*called, *lost.values())


@dataclass(frozen=True, slots=True)
class PredictionRun:
    """Everything ``predictions.json`` says.

    Attributes:
        folder: where the run lies.
        created: ISO 8601 time of the run.
        model: the bundle.
        store: folder of the bag store that was predicted on.
        patients: results in the order of the run, failed ones included.
        problems: everything that could not be used.
    """

    folder: Path
    created: str
    model: ModelFacts
    store: Path
    patients: tuple[PatientResult, ...]
    problems: tuple[Problem, ...]

    def problems_of(self, patient: str) -> tuple[Problem, ...]:
        """What was found wrong with one patient's files."""
        return tuple(p for p in self.problems if p.patient == patient)
