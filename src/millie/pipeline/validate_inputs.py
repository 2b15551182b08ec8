"""What a validation reads: the runs of one model, the model itself, and runs that tables name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from millie.bags.copies import shared_between
from millie.config import Config
from millie.errors import BundleError, ConfigError, DataError, MissingFileError
from millie.models.bundle_folder import locate, read_folder
from millie.outputs.monitor.runs import Series, bag_of, own_settings, read_series
from millie.outputs.patient.records import ModelFacts, PatientResult, PredictionRun
from millie.outputs.patient.tables import read_predictions
from millie.outputs.validation.inputs import ControlRow, ReplicateRow
from millie.outputs.validation.repeatability import Replicate
from millie.pipeline.caller import settings_for
from millie.types import Finding, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable


def one_series(folders: Sequence[Path], trained_on: Path | None) -> tuple[Series, list[Problem]]:
    """The runs of one model with the same settings.

    Raises:
        ConfigError: they are of several models, or with several settings.
        MissingFileError, DataError: as :func:`millie.outputs.monitor.runs.read_series`.
    """
    series, problems = read_series(folders, trained_on)
    if len(series) > 1:
        told = "; ".join(f"{one.title}: {one.runs[0].name}" for one in series)
        raise ConfigError(
            f"runs of {len(series)} models or settings ({told}): validate each by itself"
        )
    return series[0], problems


@dataclass(frozen=True, slots=True)
class Model:
    """The model behind the runs, where it is on this machine.

    Attributes:
        bundle: name or folder; None: it is not here.
        config: settings of the runs; those of the package where the model is not here.
        why_not: why it is not here, or empty.
    """

    bundle: str | Path | None
    config: Config
    why_not: str = ""

    def negative(self, labels: Iterable[str]) -> frozenset[str]:
        """Those of the labels that mean no disease."""
        names = {name.casefold() for name in self.config.prediction.negative_labels}
        return frozenset(label for label in labels if label.casefold() in names)


def find_model(facts: ModelFacts, named: str | Path | None) -> Model:
    """The bundle that made the runs, by its digest.

    Args:
        facts: of the runs.
        named: its folder; None: a shipped one of that name.

    Raises:
        ConfigError: the bundle that was named is another one.
        MissingFileError, BundleError: it cannot be used.
    """
    wanted = named or facts.name
    try:
        _, sha256, _ = read_folder(locate(wanted))
    except (MissingFileError, BundleError) as error:
        if named:
            raise
        return Model(None, Config(), f"the model is not on this machine ({error}); name it")
    if sha256 != facts.sha256:
        text = f"{wanted} is not the model of the runs: SHA-256 {sha256[:16]}, {facts.sha256[:16]}"
        if named:
            raise ConfigError(text)
        return Model(None, Config(), f"{text}; name the one that made them")
    words = [f"{name}={_word(value)}" for name, value in facts.settings.items()]
    return Model(wanted, settings_for(wanted, None, words))


def _word(value: object) -> str:
    return "none" if value is None else json.dumps(value)


@dataclass(slots=True)
class NamedRuns:
    """Runs that a table names, each read once.

    Attributes:
        model: of the main runs; others are refused.
        problems: runs and patients that could not be used.
    """

    model: ModelFacts
    problems: list[Problem] = field(default_factory=list)
    _read: dict[Path, PredictionRun | None] = field(default_factory=dict)

    @property
    def folders(self) -> list[Path]:
        """Those that could be read."""
        return [folder for folder, run in self._read.items() if run is not None]

    def run(self, folder: Path) -> PredictionRun | None:
        """A run; None where it cannot be used, which is then a problem."""
        if folder not in self._read:
            self._read[folder] = None
            try:
                self._read[folder] = _of_model(folder, self.model)
            except (DataError, MissingFileError) as error:
                self._tell("", folder, error)
        return self._read[folder]

    def result(self, folder: Path, name: str) -> PatientResult | None:
        """A patient of a run; without a name the run's only one."""
        run = self.run(folder)
        if run is None:
            return None
        found = [one for one in run.patients if not name or one.patient == name]
        if len(found) == 1:
            return found[0]
        what = (
            f"no patient {name}" if name else f"{len(run.patients)} patients and no name is given"
        )
        self._tell(name, folder, DataError(f"{folder} holds {what}"))
        return None

    def _tell(self, patient: str, folder: Path, error: Exception) -> None:
        self.problems.append(Problem(patient, str(folder), type(error).__name__, str(error)))


def _of_model(folder: Path, model: ModelFacts) -> PredictionRun:
    """Read a run of this model.

    Raises:
        MissingFileError, DataError: it cannot be read, or is of another model.
    """
    found = read_predictions(folder)
    if _calls(found.model) != _calls(model):
        raise DataError(f"{folder} is a run of another model or with other settings: predict again")
    return found


def _calls(model: ModelFacts) -> tuple[object, ...]:
    """Equal where the same sample would get the same call."""
    return model.sha256, model.more.get("screen_sha256", ""), own_settings(model)


def replicates_of(
    rows: Sequence[ReplicateRow], runs: NamedRuns
) -> tuple[list[Replicate], list[str]]:
    """Examinations that a run holds, and notes on those that show the same cells."""
    found, bags = [], {}
    for row in rows:
        result = runs.result(row.run, row.name)
        if result is None:
            continue
        found.append(Replicate(row, result))
        run = runs.run(row.run)
        if run is not None and (bag := bag_of(run, row.name)):
            bags[bag] = row
    notes = []
    for pair in shared_between(list(bags)):
        one, other = (bags[bag] for bag in pair.bags)
        if one.patient == other.patient:
            notes.append(
                f"{one.patient}: replicates {one.day} / {one.replicate} and {other.day} / "
                f"{other.replicate} share {len(pair.cells)} pictures of cells: the same "
                "photographs again say nothing about repeatability."
            )
    return found, notes


def series_of(
    rows: Sequence[ControlRow], runs: NamedRuns
) -> list[tuple[ControlRow, PatientResult]]:
    """The control slide's examinations that a run holds and that gave a result."""
    found = [(row, runs.result(row.run, row.name)) for row in rows]
    kept = [(row, result) for row, result in found if result is not None and not result.failed]
    for row, result in found:
        if result is not None and result.failed:
            text = f"no result: {result.error}"
            runs.problems.append(Problem(result.patient, str(row.run), Finding.NOTE, text))
    return kept


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
