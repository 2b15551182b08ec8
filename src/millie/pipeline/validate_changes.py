"""Predict spoiled images of patients again, from the start: reading, finding of cells, call.

Owns where the images are found, and the changed copies, which are removed at the end.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from millie.bags.store import BagReader, Store
from millie.errors import DataError, MissingError, NoCellsError
from millie.outputs.patient.states import FAILED
from millie.outputs.validation.cases import Case, called_class
from millie.outputs.validation.trials import Trial
from millie.pipeline.inputs import images_of
from millie.pipeline.segment_cohort import fill_store, silent
from millie.pipeline.validate_films import in_a_fixed_order
from millie.synthetic.changes import INTERFERENCES, Interference
from millie.types import Cohort, ImageSource, Patient, PixelSize, Problem

if TYPE_CHECKING:
    from millie.config import Config
    from millie.pipeline.caller import Caller
    from millie.pipeline.segment_cohort import Progress
    from millie.types import SourceRecord


@dataclass(frozen=True, slots=True)
class Spoiled:
    """What became of calls, and of images that could not be read again."""

    trials: list[Trial]
    problems: list[Problem]


def interference_trials(
    cases: Sequence[Case],
    bags: Mapping[str, Path],
    caller: Caller,
    config: Config,
    changes: Sequence[str],
    most: int,
    negative: frozenset[str],
    progress: Progress,
) -> Spoiled:
    """Call patients with spoiled images.

    Args:
        cases: patients of the runs; those with a call are chosen.
        bags: of those whose store is still there, which name the images.
        caller: the model of the runs.
        config: settings of the runs.
        changes: names of :data:`millie.synthetic.changes.INTERFERENCES`.
        most: patients.
        negative: classes without disease.
        progress: called after each change of each patient.
    """
    called = {case.patient: case.called for case in cases if case.called and case.patient in bags}
    found = Spoiled([], [])
    chosen: list[str] = []
    for patient in in_a_fixed_order(called):
        if len(chosen) == most:
            break
        problem = _unreadable(patient, bags[patient], config)
        if problem is None:
            chosen.append(patient)
        else:
            found.problems.append(problem)
    total = len(chosen) * len(changes)
    for done, (patient, name) in enumerate((p, c) for p in chosen for c in changes):
        progress("interference", done, total)
        state = _state(patient, bags[patient], INTERFERENCES[name], caller, config)
        now = None if state == FAILED else called_class(state, caller.bundle.labels, negative)
        found.trials.append(Trial(patient, name, state, now, called[patient]))
    progress("interference", total, total)
    return found


def _unreadable(patient: str, bag: Path, config: Config) -> Problem | None:
    """Why a patient cannot be predicted again: an image that is not where the run read it."""
    with BagReader(bag, verify=False) as reader:
        sources = reader.sources
    read = images_of(None, Store(bag.parent), config)
    try:
        for record in sources:
            read(patient, record)
    except (DataError, MissingError, OSError) as error:
        text = f"left out of interference: {error}"
        return Problem(patient, bag.name, type(error).__name__, text)
    return None


def _state(patient: str, bag: Path, change: Interference, caller: Caller, config: Config) -> str:
    with tempfile.TemporaryDirectory(prefix="millie-") as hidden:
        folder = Path(hidden)
        images = list(_changed(patient, bag, change, config, folder))
        cohort = Cohort("spoiled", (Patient(patient, None, tuple(images)),))
        store = Store(folder / "store")
        try:
            fill_store(cohort, store.root, config, whole=False)
        except NoCellsError:
            return FAILED
        predictions, _ = caller.predict([store.path_of(patient)], config, silent)
        return predictions[0].state if predictions else FAILED


def _changed(
    patient: str, bag: Path, change: Interference, config: Config, folder: Path
) -> Iterable[ImageSource]:
    """Changed copies of a patient's images, lossless, with their scale where it was stated."""
    with BagReader(bag, verify=False) as reader:
        sources = reader.sources
    read = images_of(None, Store(bag.parent), config)
    for number, record in enumerate(sources):
        path = folder / f"{number:05d}.png"
        Image.fromarray(change.apply(read(patient, record).image)).save(path, compress_level=1)
        size = _stated(record)
        if size is not None:
            size = PixelSize(size.um_px / change.scale)
        yield ImageSource(path, path.name, record.kind, size)


def _stated(record: SourceRecord) -> PixelSize | None:
    """The scale that was stated for an image; one that was read from cells is read anew."""
    stated = record.um_px is not None and record.diagnostics.get("scale_source") == "given"
    return PixelSize(record.um_px) if stated and record.um_px is not None else None
