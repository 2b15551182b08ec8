"""A cross-validated study as it lies on disk, in typed form.

Owns the reading of what ``millie crossval`` wrote: numbers, splits, predictions of patients and
cells. It computes no figure of merit; those stand in ``metrics.json``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millie.errors import DataError
from millie.outputs.tables import number, read_csv, read_json

_TITLES = {
    "auc": "ROC AUC",
    "auc_bootstrap": "ROC AUC, bootstrap interval",
    "auc_repeats": "ROC AUC, mean of single repeats",
    "auc_folds": "ROC AUC, mean of folds",
    "auc_within_positive": "ROC AUC within patients with the positive class",
    "macro_auc": "ROC AUC, mean over classes",
    "leave_one_source_out": "Leave-one-source-out",
    "minus_leukaemic": "ROC AUC, mature minus leukaemic cells, same patients",
    "whole": "ROC AUC of all cells, same patients",
    "minus_whole": "Difference to all cells",
    "drawn": "ROC AUC of as many random cells, same patients",
    "minus_drawn": "Difference to as many random cells",
}
_FIRST = (
    "auc", "auc_folds", "average_precision", "balanced_accuracy", "sensitivity", "specificity",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measure:
    """A number with its interval and how the interval was made.

    Attributes:
        title: for people.
        value: the point estimate.
        low: lower end of the interval, or None; also ``high``.
        method: of the interval, in words.
    """

    title: str
    value: float
    low: float | None
    high: float | None
    method: str


@dataclass(frozen=True, slots=True)
class Matrix:
    """Counts with names of rows (truth) and columns (calls)."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class StudyPatient:
    """One patient of a study over all repeats.

    Attributes:
        patient: pseudonym.
        label: diagnosis.
        n_cells: cells in the bag.
        calls: how often each class was called.
        call: by the probabilities averaged over repeats, at the mean threshold.
        wrong: share of the repeats with a wrong call.
        probability: mean over repeats, of the positive class; also ``lowest`` and ``highest``.
    """

    patient: str
    label: str
    n_cells: int
    calls: dict[str, int]
    call: str
    wrong: float
    probability: float
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class CellScore:
    """A cell outside the training part of its fold, scored alone.

    Attributes:
        patient: whose bag; ``cell`` its index there.
        source: the image.
        label: expert's type, or empty.
        probabilities: of each class, in the study's order.
    """

    patient: str
    cell: int
    source: str
    label: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Study:
    """What ``metrics.json`` and ``predictions.csv`` say.

    Attributes:
        folder: where the study lies.
        classes: in the order of every table.
        positive: the class of the binary numbers.
        n_by_class: patients of each class.
        headline: the main numbers with intervals; also ``others``.
        confusion: of patients, or None.
        cells: ``metrics.json``'s part on cells, or None where no cell has a label.
        protocol: how the study was made, in words, one entry a paragraph.
        environment: versions and machine.
        patients: over all repeats.
        threshold: mean threshold of the positive class over folds, or None.
        metrics: the whole of ``metrics.json``.
    """

    folder: Path
    classes: tuple[str, ...]
    positive: str
    n_by_class: dict[str, int]
    headline: tuple[Measure, ...]
    others: tuple[Measure, ...]
    confusion: Matrix | None
    cells: Mapping[str, Any] | None
    protocol: tuple[str, ...]
    environment: dict[str, str]
    patients: tuple[StudyPatient, ...]
    threshold: float | None
    metrics: Mapping[str, Any]


def read_study(folder: Path) -> Study:
    """Read a study's numbers and its patients.

    Raises:
        MissingFileError: ``metrics.json`` or ``predictions.csv`` does not exist.
        DataError: one of them is damaged.
    """
    path = folder / "metrics.json"
    metrics = read_json(path)
    try:
        classes = tuple(str(name) for name in metrics["classes"])
        positive = str(metrics["positive"])
        patients, threshold = _read_patients(folder / "predictions.csv", classes, positive)
        headline = metrics["headline"]
        return Study(
            folder,
            classes,
            positive,
            {str(k): int(v) for k, v in metrics["n_by_class"].items()},
            tuple(measures({k: headline[k] for k in _FIRST if k in headline})),
            (*measures({k: v for k, v in headline.items() if k not in _FIRST}), *_more(metrics)),
            matrix(metrics.get("confusion"), classes, [f"called {name}" for name in classes]),
            metrics.get("cells"),
            _paragraphs(metrics.get("protocol", "")),
            {str(k): str(v) for k, v in metrics.get("environment", {}).items()},
            patients,
            threshold,
            metrics,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: {type(error).__name__} at {error}; the file was edited or damaged: run "
            "millie crossval again (finished folds are kept)"
        ) from error


def measures(entries: Mapping[str, Any]) -> list[Measure]:
    """Every entry that is an estimate: an object with a ``value``."""
    found = (measure_of(title_of(name), entry) for name, entry in entries.items())
    return [measure for measure in found if measure is not None]


def measure_of(title: str, entry: object) -> Measure | None:
    """An estimate as written by the evaluation, or None if the entry is something else."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("value"), int | float):
        return None
    low, high = entry.get("low"), entry.get("high")
    return Measure(
        title,
        float(entry["value"]),
        None if low is None else float(low),
        None if high is None else float(high),
        str(entry.get("method", "")),
    )


def _more(metrics: Mapping[str, Any]) -> list[Measure]:
    """Numbers that stand beside the headline: without smudge cells, spread over folds."""
    found = []
    part = metrics.get("without_smudge")
    if isinstance(part, Mapping):
        n = part.get("n_patients_with_smudge", "some")
        measure = measure_of(f"ROC AUC without smudge cells (present in {n} patients)", part["auc"])
        found += [measure] if measure else []
    spread = metrics.get("fold_spread")
    if isinstance(spread, Mapping) and isinstance(spread.get("auc"), Mapping):
        sd = float(spread["auc"]["sd"])
        method = f"mean of folds; standard deviation {sd:.3f} (not a confidence interval)"
        found.append(
            Measure("ROC AUC over folds", float(spread["auc"]["mean"]), None, None, method)
        )
    return found


def title_of(name: str) -> str:
    """A key of the metrics in words."""
    return _TITLES.get(name, name.replace("_", " ").capitalize())


def matrix(counts: object, rows: Iterable[str], columns: Iterable[str]) -> Matrix | None:
    """A table of counts, or None where the file has none."""
    if not isinstance(counts, list) or not counts:
        return None
    lines = tuple(tuple(int(n) for n in line) for line in counts)
    return Matrix(tuple(rows), tuple(columns), lines)


def read_cells(study: Study) -> list[CellScore]:
    """Cells of the first repeat.

    Raises:
        MissingFileError: ``cells.csv`` does not exist.
        DataError: it is damaged.
    """
    path = study.folder / "cells.csv"
    columns = [f"probability_{name}" for name in study.classes]
    found = []
    for row in read_csv(path, ["patient", "cell", *columns]):
        if row.get("repeat", "0") != "0":
            continue
        scores = tuple(number(row[column], path, column) for column in columns)
        found.append(
            CellScore(
                row["patient"],
                int(number(row["cell"], path, "cell")),
                row.get("source", ""),
                row.get("cell_label", ""),
                scores,
            )
        )
    return found


def read_components(folder: Path) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """First two principal components of cells: diagnoses, cell types, positions (n, 2).

    Raises:
        DataError: ``pca.csv`` is damaged.
    """
    path = folder / "pca.csv"
    labels, types, places = [], [], []
    for row in read_csv(path, ["label", "pc1", "pc2"]):
        labels.append(row["label"])
        types.append(row.get("cell_label", ""))
        places.append([number(row[name], path, name) for name in ("pc1", "pc2")])
    return labels, types, np.asarray(places, dtype=np.float64).reshape(-1, 2)


def check_splits(folder: Path) -> tuple[int, list[str]]:
    """Count the splits of a study and name the patients that lie in two parts of one.

    Returns:
        number of splits, and sentences on every overlap; (0, []) without ``splits.json``.
    """
    path = folder / "splits.json"
    if not path.is_file():
        return 0, []
    assignments = read_json(path).get("assignments", [])
    overlaps = []
    for split in assignments:
        parts = {name: set(split.get(name, ())) for name in ("train", "validation", "test")}
        shared = (parts["train"] | parts["validation"]) & parts["test"]
        shared |= parts["train"] & parts["validation"]
        overlaps += [
            f"repeat {split.get('repeat')}, fold {split.get('fold')}: {patient}"
            for patient in sorted(shared)
        ]
    return len(assignments), overlaps


def _paragraphs(text: object) -> tuple[str, ...]:
    if isinstance(text, list):
        return tuple(str(part) for part in text)
    if isinstance(text, Mapping):
        return tuple(f"{title_of(str(k))}: {v}" for k, v in text.items())
    return tuple(part for part in str(text).split("\n") if part.strip())


def _read_patients(
    path: Path, classes: Sequence[str], positive: str
) -> tuple[tuple[StudyPatient, ...], float | None]:
    """Patients in the order of their first line, and the mean threshold."""
    columns = [f"probability_{name}" for name in classes]
    rows: dict[str, list[dict[str, str]]] = {}
    thresholds = []
    for row in read_csv(path, ["patient", "label", "call", "threshold", *columns]):
        rows.setdefault(row["patient"], []).append(row)
        thresholds.append(number(row["threshold"], path, "threshold"))
    index = list(classes).index(positive)
    patients = []
    for patient, lines in rows.items():
        values = np.array([[number(line[c], path, c) for c in columns] for line in lines])
        cut = np.mean([float(line["threshold"]) for line in lines])
        mean = values.mean(axis=0)
        others = np.where(np.arange(len(classes)) == index, -np.inf, mean)
        label = lines[0]["label"]
        calls = Counter(line["call"] for line in lines)
        patients.append(
            StudyPatient(
                patient,
                label,
                int(number(lines[0].get("n_cells") or "0", path, "n_cells")),
                dict(calls),
                positive if mean[index] >= cut else classes[int(others.argmax())],
                1 - calls[label] / len(lines),
                float(mean[index]),
                float(values[:, index].min()),
                float(values[:, index].max()),
            )
        )
    return tuple(patients), float(np.mean(thresholds)) if thresholds else None
