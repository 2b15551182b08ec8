"""The tables of a prediction run: written, and read back for the reports.

Owns the columns and number formats of ``predictions.csv`` and ``cells.csv`` and the form of
``predictions.json``. The same input gives the same bytes, the time in ``predictions.json`` apart.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millie.bags.store import BagReader, Store
from millie.errors import DataError
from millie.files import Value, write_csv, write_text
from millie.outputs.patient.records import ModelFacts, PatientResult, PredictionRun, results_of
from millie.outputs.tables import number, read_csv, read_json
from millie.types import Measure, Prediction, Problem, Reason, Winner

SCHEMA = 2
_PROBABILITY = "probability_"


def write_predictions(
    out: Path,
    model: ModelFacts,
    predictions: Sequence[Prediction],
    store: Store,
    problems: Sequence[Problem] = (),
    *,
    created: datetime | None = None,
    home: Path | None = None,
) -> PredictionRun:
    """Write ``predictions.csv``, ``cells.csv`` and, last, ``predictions.json``.

    Args:
        out: folder of the run; made if missing.
        model: the bundle.
        predictions: one a patient, in the order they are to be listed.
        store: the bags the predictions were made on; each holds as many cells as its prediction.
        problems: what could not be used; the fatal ones become rows with the state ``FAILED``.
        created: time of the run; None: now.
        home: where the folder is to lie later, store and all; None: it stays.

    Raises:
        DataError: a prediction and its bag differ in their number of cells.
    """
    results = results_of(predictions, problems)
    moment = (created or datetime.now(UTC)).isoformat(timespec="seconds")
    run = PredictionRun(out, moment, model, store.root, results, tuple(problems))
    columns = [_PROBABILITY + label for label in model.labels]
    ends = [end + label for end in ("low_", "high_") for label in model.labels]
    write_csv(
        out / "predictions.csv",
        [
            "patient", "state", "reasons", "codes", "label", *columns, *ends, "n_cells", "model",
            "model_sha256",
        ],
        (_patient_row(result, model) for result in results),
    )  # fmt: skip
    write_csv(
        out / "cells.csv",
        ["patient", "source", "x_px", "y_px", *columns],
        _cell_rows(predictions, store),
    )
    content = _to_json(run, _way_to(store.root, out, home or out))
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(out / "predictions.json", text + "\n")
    return run


def _patient_row(result: PatientResult, model: ModelFacts) -> list[Value]:
    reasons = "; ".join(reason.text for reason in result.reasons)
    codes = " ".join(reason.code for reason in result.reasons)
    shown = reasons if result.error is None else result.error
    numbers = [
        result.probabilities,
        {label: low for label, (low, _) in result.ranges.items()},
        {label: high for label, (_, high) in result.ranges.items()},
    ]
    columns: list[Value] = [
        _decimal(by_label[label], 6) if label in by_label else ""
        for by_label in numbers
        for label in model.labels
    ]
    head: list[Value] = [result.patient, result.state, shown, codes, result.label]
    return [*head, *columns, result.n_cells, model.title, model.sha256]


def _cell_rows(predictions: Iterable[Prediction], store: Store) -> Iterator[list[Value]]:
    for prediction in predictions:
        scores = prediction.cell_probabilities
        with BagReader(store.path_of(prediction.patient)) as bag:
            if len(scores) != bag.n_cells:
                raise DataError(
                    f"{prediction.patient}: {len(scores)} cell probabilities, but its bag holds "
                    f"{bag.n_cells} cells; predict again on the present store"
                )
            names = [source.name for source in bag.sources]
            for cell, row in zip(bag.cells, scores.tolist(), strict=True):
                where = (_decimal(cell.x_px, 1), _decimal(cell.y_px, 1))
                yield [
                    prediction.patient, names[cell.source], *where,
                    *(_decimal(p, 6) for p in row),
                ]  # fmt: skip


def _decimal(value: float, places: int) -> float:
    return round(float(value), places)


def _to_json(run: PredictionRun, store: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "created": run.created,
        "research_use_only": True,
        "model": run.model.to_card(),
        "store": store,
        "patients": [
            asdict(result) | {"missed_share": result.missed_share} for result in run.patients
        ],
        "problems": [asdict(problem) for problem in run.problems],
    }


def _way_to(store: Path, folder: Path, home: Path) -> str:
    """The store as the folder will name it: one inside it moves along."""
    start = folder if store.is_relative_to(folder) else home
    return Path(os.path.relpath(store, start)).as_posix()


def read_predictions(folder: Path) -> PredictionRun:
    """Read ``predictions.json`` of a run.

    Raises:
        MissingFileError: it does not exist.
        DataError: it is damaged or of another schema.
    """
    path = folder / "predictions.json"
    content = read_json(path)
    if content.get("schema") != SCHEMA:
        raise DataError(
            f"{path}: schema {content.get('schema')!r}, this version reads {SCHEMA}; predict again"
        )
    try:
        return PredictionRun(
            folder,
            str(content["created"]),
            ModelFacts.from_card(content["model"]),
            folder / str(content["store"]),
            tuple(result_from_json(entry) for entry in content["patients"]),
            tuple(_problem_from_json(entry) for entry in content["problems"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: {type(error).__name__} at {error}; the file was edited or damaged: "
            "predict again"
        ) from error


def result_from_json(entry: Mapping[str, Any]) -> PatientResult:
    """A patient's entry of ``predictions.json`` in typed form; KeyError and the like if damaged."""
    winners = {
        str(label): tuple(
            Winner(int(w["cell"]), float(w["contribution"]), int(w["features"])) for w in cells
        )
        for label, cells in entry["winners"].items()
    }
    return PatientResult(
        str(entry["patient"]),
        str(entry["state"]),
        tuple(_reason_from_json(reason) for reason in entry["reasons"]),
        str(entry["label"]),
        {str(k): float(v) for k, v in entry["probabilities"].items()},
        int(entry["n_cells"]),
        winners,
        None if entry["error"] is None else str(entry["error"]),
        {str(label): (float(low), float(high)) for label, (low, high) in entry["ranges"].items()},
        tuple(_measure_from_json(measure) for measure in entry["quality"]),
        {str(label): float(p) for label, p in entry["p_values"].items()},
        float(entry["supported"]),
    )


def _reason_from_json(entry: Mapping[str, Any]) -> Reason:
    return Reason(str(entry["code"]), str(entry["text"]), str(entry["remedy"]))


def _measure_from_json(entry: Mapping[str, Any]) -> Measure:
    value, low, high = (
        None if entry[key] is None else float(entry[key]) for key in ("value", "low", "high")
    )
    return Measure(str(entry["name"]), value, low, high, bool(entry["passed"]))


def _problem_from_json(entry: Mapping[str, Any]) -> Problem:
    known = {f.name for f in fields(Problem)}
    return Problem(**{k: v for k, v in entry.items() if k in known})


def read_cell_probabilities(folder: Path, model: ModelFacts) -> dict[str, NDArray[np.float32]]:
    """Probabilities of every cell, in cell order.

    Returns:
        float32 (N, C) a patient, C in the order of the model's labels.

    Raises:
        MissingFileError: ``cells.csv`` does not exist.
        DataError: a column is missing or a value is no number.
    """
    path = folder / "cells.csv"
    columns = [_PROBABILITY + label for label in model.labels]
    rows: dict[str, list[list[float]]] = {}
    for row in read_csv(path, ["patient", *columns]):
        scores = [number(row[column], path, column) for column in columns]
        rows.setdefault(row["patient"], []).append(scores)
    return {patient: np.asarray(scores, dtype=np.float32) for patient, scores in rows.items()}
