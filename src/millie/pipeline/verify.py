"""Whether stores, models and results are still what was written.

Owns by what each kind of folder is known and what is compared with what: bags and bundles carry
digests of every byte; results have them in their record, and tables are compared with each other.
Nothing is mended here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from millie.bags.store import Store
from millie.errors import (
    ConfigError,
    DataError,
    MillieError,
    MissingFileError,
    MissingPackageError,
    MissingWeightsError,
)
from millie.models.bundle_folder import locate, shipped_bundles
from millie.outputs.monitor.report import FILES as MONITOR_FILES
from millie.outputs.page import count
from millie.outputs.patient.records import PatientResult, PredictionRun
from millie.outputs.patient.tables import read_cell_probabilities, read_predictions
from millie.outputs.result_folder import MARKS, Kind, files_of, read_record
from millie.outputs.study.records import read_cells, read_study
from millie.outputs.tables import number, read_csv, read_json
from millie.outputs.validation.report import FILES as VALIDATION_FILES
from millie.types import Problem

_MARKS: tuple[tuple[str, Kind], ...] = (
    *((mark, kind) for mark, kind in MARKS.items() if mark != "progress.json"),
    ("metrics.json", "study"),
    ("weights.safetensors", "model"),
    ("*.h5", "store"),
)
"""Files by which a folder is known; the later ones where the first is what was lost."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found of one store, model or run.

    Attributes:
        kind: what it is.
        name: as it was given.
        facts: what was read, in a few words.
        problems: what is damaged, missing or disagrees; none: all is whole.
    """

    kind: Kind
    name: str
    facts: str
    problems: tuple[Problem, ...]

    def line(self) -> str:
        """The finding in one line."""
        count = len(self.problems)
        state, facts = "whole", self.facts
        if count:
            state, facts = "damaged", "1 fault" if count == 1 else f"{count:,} faults"
        return f"{state:<8} {self.kind:<6} {self.name}: {facts}"


def verify(names: Sequence[str]) -> Iterator[Verified]:
    """Read each thing whole, one after the other.

    Args:
        names: folders of stores, bundles and runs, or names of shipped bundles.

    Raises:
        MissingFileError: one of them does not exist; nothing is read then.
        ConfigError: one of them is none of these.
    """
    return map(_verified, [(name, *_place(name)) for name in names])


def _place(name: str) -> tuple[Kind, Path]:
    if name in shipped_bundles():
        return "model", locate(name)
    folder = Path(name)
    if not folder.exists():
        raise MissingFileError(
            f"{name} does not exist; name the folder of a store, a model or results, or a shipped "
            f"model ({', '.join(shipped_bundles())})"
        )
    for mark, kind in _MARKS:
        if any(folder.glob(mark)):
            return kind, folder
    raise ConfigError(
        f"{name} is no bag store, no model, and no results of `millie predict`, `crossval` or "
        "`reproduce`: name a folder that one of these commands has finished"
    )


def _verified(thing: tuple[str, Kind, Path]) -> Verified:
    name, kind, folder = thing
    try:
        facts, problems = _CHECKS[kind](folder)
    except (MillieError, OSError) as error:
        facts, problems = "", [_fault(folder.name, error)]
    return Verified(kind, name, facts, tuple(problems))


def _store(folder: Path) -> tuple[str, list[Problem]]:
    store = Store(folder)
    return count(len(store.files()), "bag"), store.verify()


def _model(folder: Path) -> tuple[str, list[Problem]]:
    from millie.models.bundle import load_bundle

    bundle = load_bundle(folder)
    facts = f"{len(bundle.manifest.files) + 1} files, golden sample reproduced"
    try:
        bundle.encoders()
    except (MissingWeightsError, MissingPackageError):
        weights = "its encoder's weights are not on this machine and were not checked"
    else:
        weights = "weights of its encoder as named"
    return f"version {bundle.manifest.version}, {facts}, {weights}", []


def _calls(folder: Path) -> tuple[str, list[Problem]]:
    run = read_predictions(folder)
    named = files_of(result.patient for result in run.patients)
    problems = _changed(folder, named, "predict again")
    facts = f"{count(len(run.patients), 'patient')}{_without_digests(folder)}"
    for check in (_check_table, _check_cells):
        try:
            check(run)
        except DataError as error:
            problems.append(_fault("", error))
    if run.store.is_dir() and run.store.resolve().is_relative_to(folder.resolve()):
        problems += Store(run.store).verify()
    return facts, problems


def _changed(folder: Path, named: Iterable[str], remedy: str) -> list[Problem]:
    """Files that are missing or not what the record says."""
    record = read_record(folder)
    found = dict(record.changed(folder))
    found |= {name: "missing" for name in named if not (folder / name).is_file()}
    errors = {
        "missing": MissingFileError(f"is missing; {remedy}"),
        "changed": DataError(f"has changed since it was written; {remedy}"),
    }
    return [_fault(name, errors[what]) for name, what in sorted(found.items())]


def _without_digests(folder: Path) -> str:
    known = any(read_record(folder).files.values())
    return "" if known else ", of a version that kept no checksums: tables compared only"


def _check_table(run: PredictionRun) -> None:
    """Raise DataError where ``predictions.csv`` and ``predictions.json`` disagree."""
    path = run.folder / "predictions.csv"
    columns = [kind + label for kind in ("probability_", "low_", "high_")
               for label in run.model.labels]  # fmt: skip
    facts = ("patient", "state", "codes", "label", "n_cells", "model_sha256")
    found = list(read_csv(path, [*facts, *columns]))
    for row, result in zip(found, run.patients, strict=False):
        stated = (
            result.patient, result.state, " ".join(reason.code for reason in result.reasons),
            result.label, str(result.n_cells), run.model.sha256,
        )  # fmt: skip
        far = [
            c for c, p in _numbers(result).items() if not abs(number(row[c], path, c) - p) < 1e-6
        ]
        if far or tuple(row[fact] for fact in facts) != stated:
            raise DataError(f"{path} and predictions.json differ for '{result.patient}'; {_AGAIN}")
    if len(found) != len(run.patients):
        raise DataError(
            f"{path} has {len(found)} patients, predictions.json {len(run.patients)}; {_AGAIN}"
        )


def _numbers(result: PatientResult) -> dict[str, float]:
    """The columns of a row that hold probabilities and the ends of their intervals."""
    found = {f"probability_{label}": p for label, p in result.probabilities.items()}
    for label, (low, high) in result.ranges.items():
        found |= {f"low_{label}": low, f"high_{label}": high}
    return found


def _check_cells(run: PredictionRun) -> None:
    """Raise DataError where ``cells.csv`` has other patients than were called."""
    called = {result.patient for result in run.patients if not result.failed}
    if other := called ^ read_cell_probabilities(run.folder, run.model).keys():
        raise DataError(
            f"{run.folder / 'cells.csv'} and predictions.json differ for '{min(other)}'; {_AGAIN}"
        )


_AGAIN = "one of them was changed: predict again"


def _study(folder: Path) -> tuple[str, list[Problem]]:
    study = read_study(folder)
    if (folder / "cells.csv").is_file():
        read_cells(study)
    folds = sorted(folder.glob("folds/*.json"))
    problems = _changed(folder, (), "run `millie crossval` again")
    told = {problem.source for problem in problems}
    for path in folds:
        arrays = path.with_suffix(".safetensors")
        if arrays.relative_to(folder).as_posix() in told:
            continue
        data = arrays.read_bytes() if arrays.is_file() else b""
        if read_json(path).get("arrays_sha256") != hashlib.sha256(data).hexdigest():
            error = DataError("has changed since it was written; run `millie crossval` again")
            problems.append(_fault(arrays.name, error))
    facts = f"{count(len(study.patients), 'patient')}, {len(folds)} folds{_without_digests(folder)}"
    return facts, problems


def _reproduction(folder: Path) -> tuple[str, list[Problem]]:
    files = len(read_record(folder).files)
    return count(files, "file"), _changed(folder, (), "run `millie reproduce` again")


def _monitor(folder: Path) -> tuple[str, list[Problem]]:
    models = read_json(folder / "monitor.json").get("models", [])
    problems = [
        _fault(name, MissingFileError("is missing; run `millie monitor` again"))
        for name in MONITOR_FILES
        if not (folder / name).is_file()
    ]
    return f"{sum(len(model['runs']) for model in models)} runs", problems


def _validation(folder: Path) -> tuple[str, list[Problem]]:
    content = read_json(folder / "validation.json")
    problems = _changed(folder, VALIDATION_FILES, "run `millie validate` again")
    return f"{len(content.get('criteria', []))} criteria", problems


def _fault(source: str, error: Exception) -> Problem:
    return Problem("", source, type(error).__name__, str(error), fatal=True)


_CHECKS: dict[Kind, Callable[[Path], tuple[str, list[Problem]]]] = {
    "store": _store,
    "model": _model,
    "calls": _calls,
    "study": _study,
    "monitor": _monitor,
    "validation": _validation,
    "reproduction": _reproduction,
}
