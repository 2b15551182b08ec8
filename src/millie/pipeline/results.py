"""What the commands of the Python interface give back: small typed objects, each with a table.

Every result names the folder it wrote and what could not be used, and gives its table as a list of
dictionaries (``rows``), as JSON values (``to_dict``) and as a pandas frame (``to_frame``).
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from millie.errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from millie.evaluation.controls import ControlResult
    from millie.statistics.intervals import Estimate
    from millie.types import Cell, Prediction, Problem


class Result(ABC):
    """What all results have in common."""

    __slots__ = ()

    out: Path | None
    problems: tuple[Problem, ...]

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """The table, one dictionary a row, plain JSON values."""

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values: ``out``, ``rows`` and ``problems``."""
        problems = [asdict(problem) for problem in self.problems]
        return {
            "out": str(self.out) if self.out else None,
            "rows": self.rows(),
            "problems": problems,
        }

    def to_frame(self) -> pd.DataFrame:
        """The table as a pandas frame.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise MissingPackageError(
                "a frame needs pandas: pip install pandas; rows() gives the same without it"
            ) from error
        frame: pd.DataFrame = pandas.DataFrame(self.rows())
        return frame

    @property
    def failures(self) -> tuple[Problem, ...]:
        """Problems that are more than notes, where a file or a patient could not be used."""
        return tuple(p for p in self.problems if not p.note)


@dataclass(frozen=True, slots=True)
class DetectResult(Result):
    """Leukocytes found in images; a row a cell.

    Attributes:
        out: the table that was written; None: none was asked for.
        cells: name of the image as it was given, and the cell, in pixels of the full-resolution
            file.
        done: images that could be read.
        problems: files that could not be used.
    """

    out: Path | None
    cells: tuple[tuple[str, Cell], ...] = field(repr=False)
    done: int
    problems: tuple[Problem, ...] = field(default=(), repr=False)

    @property
    def n_cells(self) -> int:
        """Cells of all images."""
        return len(self.cells)

    def rows(self) -> list[dict[str, Any]]:
        """``source, x_px, y_px, left_px, top_px, width_px, height_px, area_px`` and flags."""
        return [
            {
                "source": name,
                "x_px": cell.x_px, "y_px": cell.y_px,
                "left_px": cell.left_px, "top_px": cell.top_px,
                "width_px": cell.width_px, "height_px": cell.height_px,
                "area_px": cell.area_px,
                "at_border": cell.at_border, "in_clump": cell.in_clump, "smudge": cell.smudge,
            }
            for name, cell in self.cells
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class SegmentResult(Result):
    """Patients whose cells lie in a bag store; a row a patient.

    Attributes:
        out: the store.
        done: patients finished now.
        skipped: patients finished by an earlier run.
        cells: number of cells of each finished patient.
        problems: everything that could not be used, by patient and file.
    """

    out: Path
    done: int
    skipped: int
    cells: Mapping[str, int]
    problems: tuple[Problem, ...] = field(default=(), repr=False)

    @property
    def patients(self) -> tuple[str, ...]:
        """Those that are finished."""
        return tuple(self.cells)

    @property
    def n_cells(self) -> int:
        """Cells of all of them."""
        return sum(self.cells.values())

    def rows(self) -> list[dict[str, Any]]:
        """``patient, n_cells``."""
        return [{"patient": patient, "n_cells": n} for patient, n in self.cells.items()]


@dataclass(frozen=True, slots=True)
class TrainResult(Result):
    """A trained model; a row a class.

    Attributes:
        out: the bundle's folder, which ``predict`` and ``load_bundle`` take.
        name: of the model.
        patients: how many of each class it was trained on.
        positive: the class that the threshold is about.
        threshold: calibrated probability of that class from which it is called, 0 to 1.
        temperature: of the calibration; above 1 it softens.
        problems: patients that could not take part.
    """

    out: Path
    name: str
    patients: Mapping[str, int]
    positive: str
    threshold: float
    temperature: float
    problems: tuple[Problem, ...] = field(default=(), repr=False)

    def rows(self) -> list[dict[str, Any]]:
        """``label, n_patients, threshold``; the threshold of the positive class alone."""
        return [
            {
                "label": label,
                "n_patients": n,
                "threshold": self.threshold if label == self.positive else None,
            }
            for label, n in self.patients.items()
        ]


@dataclass(frozen=True, slots=True)
class CrossvalResult(Result):
    """How well patients that were not trained on are called; a row a figure.

    Attributes:
        out: folder of numbers, figures and tables; ``predictions.csv`` there has a row a patient.
        report: path of ``report.html``.
        lines: the main figures in words.
        figures: the main figures with their intervals, by name.
        controls: what confounders and mature cells alone reach, where that was asked for.
        problems: patients that could not take part.
    """

    out: Path
    report: Path
    lines: tuple[str, ...]
    figures: Mapping[str, Estimate]
    controls: tuple[ControlResult, ...] = ()
    problems: tuple[Problem, ...] = field(default=(), repr=False)

    def rows(self) -> list[dict[str, Any]]:
        """``figure, value, low, high, method``; a control is the figure ``control: NAME``."""
        found = [{"figure": name, **e.to_dict()} for name, e in self.figures.items()]
        unknown = {"value": None, "low": None, "high": None, "method": "cannot be measured"}
        return found + [
            {"figure": f"control: {c.name}", **(c.auc.to_dict() if c.auc else unknown)}
            for c in self.controls
        ]


@dataclass(frozen=True, slots=True)
class PredictResult(Result):
    """Calls; a row a patient.

    Attributes:
        out: folder of tables, pictures and report.
        report: path of ``report.html``.
        predictions: one a patient, with the cells behind it.
        scope: what the model can tell and what it cannot, in one sentence.
        remarks: what to check of a patient, in words, for those where there is anything.
        problems: what could not be used.
    """

    out: Path
    report: Path
    predictions: tuple[Prediction, ...] = field(repr=False)
    scope: str = field(repr=False)
    remarks: Mapping[str, tuple[str, ...]] = field(repr=False)
    problems: tuple[Problem, ...] = field(default=(), repr=False)

    def rows(self) -> list[dict[str, Any]]:
        """The columns of ``predictions.csv``, but the model's digest.

        ``patient, state, reasons, codes, label, probability_LABEL ..., low_LABEL ...,
        high_LABEL ..., n_cells, model``; ``low`` and ``high`` are the ends of the interval.
        """
        return [
            {
                "patient": one.patient, "state": one.state,
                "reasons": "; ".join(reason.text for reason in one.reasons),
                "codes": " ".join(reason.code for reason in one.reasons),
                "label": one.label,
                **{f"probability_{label}": p for label, p in one.probabilities.items()},
                **{f"low_{label}": low for label, (low, _) in one.ranges.items()},
                **{f"high_{label}": high for label, (_, high) in one.ranges.items()},
                "n_cells": one.n_cells, "model": one.model,
            }
            for one in self.predictions
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class MonitorResult(Result):
    """Prediction runs compared over time; a row a state or reason in a run.

    Attributes:
        out: folder of the page and the tables.
        report: path of ``report.html``.
        lines: the runs of each model in words.
        alarms: one sentence each; none: nothing has changed as far as can be told.
        rates: see :meth:`rows`.
        problems: runs that could not be used, and patients counted once.
    """

    out: Path
    report: Path
    lines: tuple[str, ...]
    alarms: tuple[str, ...]
    rates: tuple[Mapping[str, Any], ...] = field(repr=False)
    problems: tuple[Problem, ...] = field(default=(), repr=False)

    def rows(self) -> list[dict[str, Any]]:
        """As ``rates.csv``: ``model, run, kind, name, count, patients, rate, low, high, ...``."""
        return [dict(row) for row in self.rates]


@dataclass(frozen=True, slots=True)
class EvaluateResult(Result):
    """Calls beside conclusions of the review app; a row a figure.

    Attributes:
        out: folder of the tables.
        n_samples: with a call and a conclusion.
        figures: see :meth:`rows`.
        remarks: what must be considered with them.
        problems: runs and patients that could not be used.
    """

    out: Path
    n_samples: int
    figures: tuple[Mapping[str, Any], ...] = field(repr=False)
    remarks: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = field(default=(), repr=False)

    def rows(self) -> list[dict[str, Any]]:
        """As ``evaluation.csv``: ``section, figure, value, low, high, n, ...``."""
        return [dict(row) for row in self.figures]


@dataclass(frozen=True, slots=True)
class ValidateResult(Result):
    """A laboratory's validation judged against its plan; a row a criterion.

    Attributes:
        out: folder of the page and the tables.
        report: path of ``report.html``.
        line: the verdict in a sentence.
        criteria: see :meth:`rows`.
        remarks: what must be considered with the verdict.
        problems: runs and patients that could not be used.
    """

    out: Path
    report: Path
    line: str
    criteria: tuple[Mapping[str, Any], ...] = field(repr=False)
    remarks: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = field(default=(), repr=False)

    @property
    def all_met(self) -> bool:
        """Whether every criterion is met; one that is not tested is not met."""
        return all(one["outcome"] == "met" for one in self.criteria)

    def rows(self) -> list[dict[str, Any]]:
        """As ``verdict.csv``: ``section, key, what, required, observed, outcome, note``."""
        return [dict(row) for row in self.criteria]
