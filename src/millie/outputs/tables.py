"""Tables and records of predictions on disk: the CSV files and ``predictions.json``.

Owns the columns, the number formats and the reading back. Text that a spreadsheet would run is
quoted by :mod:`millie.files` and unquoted here, so the round trip is exact. The same input gives
the same bytes, the time in ``predictions.json`` apart.
"""

from __future__ import annotations

import csv
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
from millie.errors import DataError, MissingFileError
from millie.files import Value, unquote_formula, write_csv, write_text
from millie.outputs.patient.records import ModelFacts, PatientResult, PredictionRun, results_of
from millie.types import Prediction, Problem, Winner

SCHEMA = 1
_PROBABILITY = "probability_"


def read_csv(path: Path, required: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """Yield the rows of a table as ``{column: text}``, formulas unquoted.

    Raises:
        MissingFileError: the file does not exist.
        DataError: a required column is missing, a row has too few cells, or it is no UTF-8 text.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; run the command that wrote it again")
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream)
            header = [unquote_formula(name) for name in next(reader, [])]
            missing = [name for name in required if name not in header]
            if missing:
                raise DataError(
                    f"{path}: column '{missing[0]}' is missing; got {', '.join(header) or 'none'}"
                )
            for line, row in enumerate(reader, start=2):
                if len(row) != len(header):
                    raise DataError(
                        f"{path}, line {line}: {len(row)} cells, expected {len(header)}; "
                        "the file was cut short or edited: run the command again"
                    )
                yield dict(zip(header, map(unquote_formula, row), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV table in UTF-8: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        MissingFileError: the file does not exist.
        DataError: it holds something else.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; run the command that wrote it again")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); run the command again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: got a {type(content).__name__}, expected an object")
    return content


def number(text: str, path: Path, column: str) -> float:
    """A number from a table's cell.

    Raises:
        DataError: the text is no number.
    """
    try:
        return float(text)
    except ValueError as error:
        raise DataError(f"{path}, column '{column}': got '{text}', expected a number") from error


def write_predictions(
    out: Path,
    model: ModelFacts,
    predictions: Sequence[Prediction],
    store: Store,
    problems: Sequence[Problem] = (),
    *,
    created: datetime | None = None,
) -> PredictionRun:
    """Write ``predictions.csv``, ``cells.csv`` and, last, ``predictions.json``.

    Args:
        out: folder of the run; made if missing.
        model: the bundle.
        predictions: one a patient, in the order they are to be listed.
        store: the bags the predictions were made on; each holds as many cells as its prediction.
        problems: what could not be used; the fatal ones become rows with the state ``FAILED``.
        created: time of the run; None: now.

    Raises:
        DataError: a prediction and its bag differ in their number of cells.
    """
    results = results_of(predictions, problems)
    moment = (created or datetime.now(UTC)).isoformat(timespec="seconds")
    run = PredictionRun(out, moment, model, store.root, results, tuple(problems))
    columns = [_PROBABILITY + label for label in model.labels]
    write_csv(
        out / "predictions.csv",
        ["patient", "state", "reasons", "label", *columns, "n_cells", "model", "model_sha256"],
        (_patient_row(result, model) for result in results),
    )
    write_csv(
        out / "cells.csv",
        ["patient", "source", "x_px", "y_px", *columns],
        _cell_rows(predictions, store),
    )
    text = json.dumps(_to_json(run), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(out / "predictions.json", text + "\n")
    return run


def _patient_row(result: PatientResult, model: ModelFacts) -> list[Value]:
    reasons = result.error if result.error is not None else "; ".join(result.reasons)
    probabilities: list[Value] = [""] * len(model.labels)
    if not result.failed:
        probabilities = [_decimal(result.probabilities[label], 6) for label in model.labels]
    head: list[Value] = [result.patient, result.state, reasons, result.label]
    return [*head, *probabilities, result.n_cells, model.title, model.sha256]


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


def _to_json(run: PredictionRun) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "created": run.created,
        "research_use_only": True,
        "model": run.model.to_card(),
        "store": Path(os.path.relpath(run.store, run.folder)).as_posix(),
        "patients": [asdict(result) for result in run.patients],
        "problems": [asdict(problem) for problem in run.problems],
    }


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
            tuple(_result_from_json(entry) for entry in content["patients"]),
            tuple(_problem_from_json(entry) for entry in content["problems"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: {type(error).__name__} at {error}; the file was edited or damaged: "
            "predict again"
        ) from error


def _result_from_json(entry: Mapping[str, Any]) -> PatientResult:
    winners = {
        str(label): tuple(
            Winner(int(w["cell"]), float(w["contribution"]), int(w["features"])) for w in cells
        )
        for label, cells in entry["winners"].items()
    }
    return PatientResult(
        str(entry["patient"]),
        str(entry["state"]),
        tuple(str(reason) for reason in entry["reasons"]),
        str(entry["label"]),
        {str(k): float(v) for k, v in entry["probabilities"].items()},
        int(entry["n_cells"]),
        winners,
        None if entry["error"] is None else str(entry["error"]),
    )


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
