"""Prediction runs in the order of time, each patient counted once.

Owns which runs belong together (one model, the same settings) and who is counted where; what is
computed from them is :mod:`millie.outputs.monitor.rates` and :mod:`millie.outputs.monitor.streams`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from millie.bags.copies import shared_between
from millie.bags.store import Store
from millie.errors import DataError, MillieError, MissingFileError
from millie.outputs.patient.records import ModelFacts, PatientResult, PredictionRun
from millie.outputs.patient.tables import read_predictions
from millie.outputs.result_folder import MARKS, WORDS
from millie.types import Finding, Problem


@dataclass(frozen=True, slots=True)
class TimedRun:
    """A run and when it was made."""

    name: str
    when: datetime
    run: PredictionRun


@dataclass(frozen=True, slots=True)
class CountedRun:
    """A run with the patients that count in it.

    Attributes:
        name: its folder, as it was named.
        when: time of the run, UTC.
        run: as it lies on disk.
        counted: patients that no earlier run of this model had, in an order that is random and
            always the same: within a run there is no time, and folders are often named by disease.
        repeated: names of the others.
        trained: names of those counted that the model was trained on, as far as that is known.
    """

    name: str
    when: datetime
    run: PredictionRun
    counted: tuple[PatientResult, ...]
    repeated: tuple[str, ...]
    trained: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """All runs of one model with the same settings, the earliest first."""

    model: ModelFacts
    runs: tuple[CountedRun, ...]

    @property
    def title(self) -> str:
        """The model, and what was set otherwise than it states."""
        changed = ", ".join(f"{name}={value}" for name, value in own_settings(self.model).items())
        return f"{self.model.title} ({changed})" if changed else self.model.title

    @property
    def n_patients(self) -> int:
        """Patients that count."""
        return sum(len(run.counted) for run in self.runs)


def read_series(
    folders: Sequence[Path], trained_on: Path | None = None
) -> tuple[list[Series], list[Problem]]:
    """Read runs and put those of one model and the same settings together, most patients first.

    Args:
        folders: outputs of ``millie predict``.
        trained_on: bag store of the patients that the models were trained on; None: not known.

    Returns:
        the series, and what could not be used, was left out or counted once.

    Raises:
        DataError: not one run has a patient; the message is that of the first folder.
        MissingFileError: the same, where a folder does not exist; or there is no such store.
    """
    training = Store(trained_on).files() if trained_on else []
    if trained_on and not training:
        raise DataError(f"{trained_on} holds no bags: name the store that the model was trained on")
    runs, problems = _usable(folders)
    groups: dict[str, list[TimedRun]] = {}
    for run in sorted(runs, key=lambda one: one.when):
        groups.setdefault(_what_calls(run.run.model), []).append(run)
    found = []
    for group in groups.values():
        series, told = _counted(group, training)
        found.append(series)
        problems += told
    return sorted(found, key=lambda one: -one.n_patients), problems


_HOW = frozenset({"prediction.batch_size", "prediction.runtime", "prediction.winners"})
"""Settings that change no call."""


def own_settings(model: ModelFacts) -> dict[str, Any]:
    """What was set for a run otherwise than its model states, and may change calls."""
    return {name: value for name, value in model.settings.items() if name not in _HOW}


def _what_calls(model: ModelFacts) -> str:
    """Equal where the same sample would get the same call."""
    facts = (model.sha256, model.more.get("screen_sha256", ""), own_settings(model))
    return json.dumps(facts, sort_keys=True)


def _usable(folders: Sequence[Path]) -> tuple[list[TimedRun], list[Problem]]:
    """Every run once; the error itself where none is left."""
    runs: list[TimedRun] = []
    problems: list[Problem] = []
    first: MillieError | None = None
    for folder in folders:
        try:
            run = _read(folder)
        except (DataError, MissingFileError) as error:
            first = first or error
            problems.append(Problem("", str(folder), type(error).__name__, str(error)))
            continue
        if twin := next((one for one in runs if _same(one.run, run.run)), None):
            text = f"the same run as {twin.name}: counted once"
            problems.append(Problem("", run.name, Finding.NOTE, text, note=True))
        else:
            runs.append(run)
    if not runs:
        raise first or DataError("no run is named: name output folders of `millie predict`")
    return runs, problems


def _read(folder: Path) -> TimedRun:
    if not folder.is_dir():
        raise MissingFileError(
            f"{folder} is not a folder: name the --out folder of a finished `millie predict`"
        )
    if not (folder / "predictions.json").is_file():
        raise DataError(f"{folder} {_what_it_is(folder)}")
    run = read_predictions(folder)
    if not run.patients:
        raise DataError(f"{folder} holds calls of 0 patients: nothing to count; predict again")
    try:
        when = datetime.fromisoformat(run.created)
    except ValueError as error:
        raise DataError(
            f"{folder / 'predictions.json'}: time '{run.created}' is no ISO 8601 time; the file "
            "was edited: predict again"
        ) from error
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return TimedRun(str(folder), when, run)


def _what_it_is(folder: Path) -> str:
    names = {path.name for path in folder.iterdir()}
    for mark, kind in MARKS.items():
        if mark in names:
            return f"holds {WORDS[kind]}, not calls: name output folders of `millie predict`"
    if within := sorted(path.parent.name for path in folder.glob("*/predictions.json")):
        return f"holds runs, but is none itself: name them, for example {folder / within[0]}"
    state = "holds no predictions.json" if names else "is empty"
    return f"{state}: name the --out folder of a finished `millie predict`"


def _same(one: PredictionRun, other: PredictionRun) -> bool:
    """One folder named twice, or a copy of it."""
    facts = ("created", "model", "patients")
    return all(getattr(one, fact) == getattr(other, fact) for fact in facts)


def _counted(runs: Sequence[TimedRun], training: Sequence[Path]) -> tuple[Series, list[Problem]]:
    first: dict[str, TimedRun] = {}
    for run in runs:
        for result in run.run.patients:
            first.setdefault(result.patient, run)
    known = _identities(first, training)
    parts = [_split(run, first, known) for run in runs]
    series = Series(runs[0].run.model, tuple(run for run, _ in parts))
    return series, [problem for _, problems in parts for problem in problems]


def _split(
    run: TimedRun, first: Mapping[str, TimedRun], known: _Identities
) -> tuple[CountedRun, list[Problem]]:
    """Who counts in a run, and notes on the others."""
    counted, repeated, trained, notes = [], [], [], []
    for result in sorted(run.run.patients, key=_order):
        patient = result.patient
        earlier = known.earlier.get(patient, "")
        if first[patient] is not run:
            earlier = f"counted in {first[patient].name}"
        if earlier:
            repeated.append(patient)
            notes.append(Problem(patient, run.name, Finding.SEEN_BEFORE, earlier, note=True))
            continue
        counted.append(result)
        if why := known.trained.get(patient):
            trained.append(patient)
            notes.append(Problem(patient, run.name, Finding.TRAINED_ON, why, note=True))
    found = CountedRun(run.name, run.when, run.run, tuple(counted), tuple(repeated), tuple(trained))
    return found, notes


def _order(result: PatientResult) -> str:
    return hashlib.sha256(result.patient.encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class _Identities:
    """What is known of patients beyond their names; each a sentence, by patient.

    Attributes:
        earlier: the same cells were counted under another name.
        trained: the model was trained on this patient.
    """

    earlier: Mapping[str, str]
    trained: Mapping[str, str]


def _identities(first: Mapping[str, TimedRun], training: Sequence[Path]) -> _Identities:
    bags = {path: patient for patient, run in first.items() if (path := bag_of(run.run, patient))}
    known = [path.resolve() for path in training]
    earlier: dict[str, str] = {}
    for pair in shared_between(list(bags)):
        older, newer = (bags[path] for path in pair.bags)
        text = f"the same cells as {older} of {first[older].name}: counted there"
        earlier.setdefault(newer, text)
    names = {path.name for path in known}
    trained = _told_by_the_runs(first)
    trained |= {
        patient: "the model was trained on a patient of this name"
        for patient, run in first.items()
        if Store(run.run.store).path_of(patient).name in names
    }
    others = [path for path in bags if path not in known] if known else []
    for pair in shared_between([*known, *others]):
        if pair.bags[0] in known and pair.bags[1] in bags:
            text = f"the model was trained on the same cells (there: patient {pair.first.id})"
            trained[bags[pair.bags[1]]] = text
    return _Identities(earlier, trained)


def _told_by_the_runs(first: Mapping[str, TimedRun]) -> dict[str, str]:
    """Patients whose image files the model knew when it called them, without any store."""
    return {
        problem.patient: problem.message
        for run in {run.name: run for run in first.values()}.values()
        for problem in run.run.problems
        if problem.error == Finding.TRAINED_ON and first.get(problem.patient) is run
    }


def bag_of(run: PredictionRun, patient: str) -> Path | None:
    """The patient's bag, where the run's store is still there."""
    path = Store(run.store).path_of(patient).resolve()
    return path if path.is_file() else None
