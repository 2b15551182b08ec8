"""The laboratory's own tables beside its runs: reference, replicates, counts, control, times.

Owns their columns. A table is CSV in UTF-8, read as manifests are; a row that cannot be meant so is
refused by its line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from millie.readers.table import Row, read_table

PATIENT = "patient"


@dataclass(frozen=True, slots=True)
class ReplicateRow:
    """One repeated examination.

    Attributes:
        patient: who; ``day`` and ``replicate``: in the laboratory's own words.
        run: folder of the run that holds it.
        name: what the patient is called in that run.
    """

    patient: str
    day: str
    replicate: str
    run: Path
    name: str


@dataclass(frozen=True, slots=True)
class CountRow:
    """What was counted by eye.

    Attributes:
        leukocytes: on the same images; None: not counted.
        abnormal_percent: of leukocytes, by a differential; None: not counted.
    """

    leukocytes: float | None
    abnormal_percent: float | None


@dataclass(frozen=True, slots=True)
class ControlRow:
    """One examination of the control slide.

    Attributes:
        time: as written, for the axis; rows are sorted by it.
        run: folder of the run; ``name``: patient in it, empty where the run has one patient alone.
    """

    time: str
    run: Path
    name: str


def read_reference(path: Path) -> dict[str, str]:
    """Diagnosis of each patient, of the columns ``patient,label``; a manifest is such a table.

    Raises:
        MissingFileError: there is no such table.
        ManifestError: a column is missing, a patient has no name, no label or two labels.
    """
    found: dict[str, str] = {}
    for row in _rows(path, [PATIENT, "label"]):
        patient, label = _text(path, row, PATIENT), _text(path, row, "label")
        if found.setdefault(patient, label) != label:
            raise row.fail(path, f"patient {patient} is {label} here and {found[patient]} above")
    return found


def read_replicates(path: Path) -> list[ReplicateRow]:
    """Repeated examinations, of the columns ``patient,day,replicate,run`` and, optional, ``name``.

    Raises:
        MissingFileError, ManifestError: as :func:`read_reference`; or one examination twice.
    """
    found: dict[tuple[str, str, str], ReplicateRow] = {}
    for row in _rows(path, [PATIENT, "day", "replicate", "run"]):
        patient, day, replicate = (_text(path, row, c) for c in (PATIENT, "day", "replicate"))
        name = row.cells.get("name", "").strip() or patient
        if (patient, day, replicate) in found:
            raise row.fail(path, f"{patient}, day {day}, replicate {replicate} stands here twice")
        found[patient, day, replicate] = ReplicateRow(
            patient, day, replicate, _folder(path, row), name
        )
    return list(found.values())


def read_counts(path: Path) -> dict[str, CountRow]:
    """Cells counted by eye, of ``patient`` and ``leukocytes``, ``abnormal_percent`` or both.

    Raises:
        MissingFileError, ManifestError: as :func:`read_reference`; a patient twice, or a number
            out of range.
    """
    columns = {"leukocytes": math.inf, "abnormal_percent": 100.0}
    found = {}
    for patient, row in _by_patient(path):
        if not columns.keys() & row.cells.keys():
            raise row.fail(path, f"no column {' or '.join(columns)}: add what was counted")
        numbers = [_number(path, row, c, most) for c, most in columns.items()]
        found[patient] = CountRow(*numbers)
    return found


def read_control(path: Path) -> list[ControlRow]:
    """The control slide's examinations, of ``time,run`` and, optional, ``name``, by time.

    Raises:
        MissingFileError, ManifestError: as :func:`read_reference`; or a time that is none.
    """
    rows = _rows(path, ["time", "run"])
    times = {row.line: _time(path, row, "time") for row in rows}
    if len({time.tzinfo is None for time in times.values()}) > 1:
        raise rows[0].fail(path, "some times state their zone: state it of all, or of none")
    rows = sorted(rows, key=lambda row: times[row.line])
    return [
        ControlRow(_text(path, row, "time"), _folder(path, row), row.cells.get("name", "").strip())
        for row in rows
    ]


def read_turnaround(path: Path) -> dict[str, float]:
    """Minutes to the call by patient, of ``patient,minutes`` or ``patient,received,reported``.

    Raises:
        MissingFileError, ManifestError: as :func:`read_reference`; a patient twice, a time that
            is none, or reported before received.
    """
    found = {}
    for patient, row in _by_patient(path):
        if "minutes" in row.cells:
            minutes = _number(path, row, "minutes", math.inf)
        elif {"received", "reported"} <= row.cells.keys():
            start, end = (_time(path, row, column) for column in ("received", "reported"))
            if (start.tzinfo is None) != (end.tzinfo is None):
                raise row.fail(path, "one of the two times states its zone: state it of both")
            minutes = (end - start).total_seconds() / 60
        else:
            raise row.fail(path, "expected a column minutes, or the columns received and reported")
        if minutes is None or minutes < 0:
            raise row.fail(path, f"{minutes} minutes: expected 0 or more")
        found[patient] = minutes
    return found


def _rows(path: Path, required: Iterable[str]) -> list[Row]:
    columns, rows = read_table(path)
    if missing := [name for name in required if name not in columns]:
        raise rows[0].fail(
            path, f"column '{missing[0]}' is missing; the table has {', '.join(columns)}"
        )
    return rows


def _by_patient(path: Path) -> Iterable[tuple[str, Row]]:
    seen: dict[str, Row] = {}
    for row in _rows(path, [PATIENT]):
        patient = _text(path, row, PATIENT)
        if patient in seen:
            raise row.fail(path, f"patient {patient} stands in line {seen[patient].line} already")
        seen[patient] = row
    return seen.items()


def _text(path: Path, row: Row, column: str) -> str:
    if text := row.cells[column].strip():
        return text
    raise row.fail(path, f"column '{column}' is empty")


def _folder(path: Path, row: Row) -> Path:
    return path.parent / _text(path, row, "run")


def _number(path: Path, row: Row, column: str, most: float) -> float | None:
    text = row.cells.get(column, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most or math.isinf(value):
        span = "0 or more" if math.isinf(most) else f"0 to {most:g}"
        raise row.fail(path, f"column '{column}': got '{text}', expected {span}")
    return value


def _time(path: Path, row: Row, column: str) -> datetime:
    text = _text(path, row, column)
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise row.fail(
            path, f"column '{column}': got '{text}', expected a time such as 2026-03-01T09:30"
        ) from error
