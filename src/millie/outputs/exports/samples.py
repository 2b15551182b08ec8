"""What every export tells of a run: each sample's call, its cells, their scores and images.

Owns the way from the files of a prediction run to one typed object a patient, and the words that
must stand on every export: preliminary, not reviewed, for research use only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from millie.bags.store import BagReader, Store
from millie.errors import ConfigError, DataError, MissingFileError
from millie.outputs.patient.tables import read_cell_probabilities, read_predictions
from millie.outputs.tables import number, read_csv
from millie.types import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from millie.bags.store import BagMeta
    from millie.outputs.patient.records import PatientResult, PredictionRun
    from millie.types import Cell, SourceRecord

STATUS = "Preliminary: called by software, not reviewed by a person."
INTENDED_USE = RESEARCH_USE_ONLY

_ROUNDING_PX = 0.06
"""Coordinates in ``cells.csv`` have one decimal."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes:
        count: of what the export counts in.
        left_out: patients who have no call and so no cells to write.
    """

    count: int
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SampleImage:
    """An image file of a sample.

    Attributes:
        name: as in every output.
        sha256: of the file; of the first field of a whole slide.
        cells: indices of its cells in the sample.
        um_px: scale at full resolution; None: unknown.
        step: pixels of full resolution along a pixel that cells were cut from.
        frame: left, top, width and height of what was read of it, pixels of full resolution.
    """

    name: str
    sha256: str
    cells: list[int]
    um_px: float | None
    step: float
    frame: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One patient's call with the cells behind it.

    Attributes:
        result: the call.
        sources: the patient's images.
        cells: in the bag's order.
        probabilities: float32 (N, C), each cell scored alone; C in the order of the model's labels.
            A row may sum to less than 1.
        bag: the bag's file, for masks and crops.
        meta: how the cells were cut.
    """

    result: PatientResult
    sources: tuple[SourceRecord, ...]
    cells: tuple[Cell, ...]
    probabilities: NDArray[np.float32]
    bag: Path
    meta: BagMeta

    def cells_of(self, source: int) -> list[int]:
        """Indices of the cells of one source."""
        return [i for i, cell in enumerate(self.cells) if cell.source == source]

    def images(self) -> list[SampleImage]:
        """The image files; the fields of a whole slide are one image."""
        by_file: dict[tuple[str, int], list[int]] = {}
        for index, source in enumerate(self.sources):
            key = (source.name, -1 if source.place else index)
            by_file.setdefault(key, []).append(index)
        return [self._image(indices) for indices in by_file.values()]

    def _image(self, indices: list[int]) -> SampleImage:
        first = self.sources[indices[0]]
        cells = [n for index in indices for n in self.cells_of(index)]
        if first.place is None:
            frame = (0, 0, first.width_px, first.height_px)
            return SampleImage(first.name, first.sha256, cells, first.um_px, 1.0, frame)
        places = [place for i in indices if (place := self.sources[i].place)]
        left, top = min(p.left_px for p in places), min(p.top_px for p in places)
        right = max(p.left_px + p.width_px for p in places)
        bottom = max(p.top_px + p.height_px for p in places)
        step = first.place.step
        um_px = None if first.um_px is None else first.um_px / step
        frame = (left, top, right - left, bottom - top)
        return SampleImage(first.name, first.sha256, cells, um_px, step, frame)


def run_of(folder: Path) -> PredictionRun:
    """A prediction run, without its cells.

    Raises:
        MissingFileError: it is no prediction run.
        DataError: it is damaged.
    """
    if not (folder / "predictions.json").is_file():
        raise MissingFileError(
            f"{folder} holds no calls (no predictions.json): name the folder that `millie predict` "
            "wrote"
        )
    return read_predictions(folder)


def read_run(folder: Path) -> tuple[PredictionRun, Iterator[Sample]]:
    """A prediction run, and its samples one after another; failed patients have none.

    Raises:
        MissingFileError: it is no prediction run, or its bags are gone.
        ConfigError: its cells came as vectors.
        DataError: a file of it is damaged, or the bags were cut anew since.
    """
    run = run_of(folder)
    if not run.store.is_dir():
        raise MissingFileError(
            f"the cells of {folder} lie in {run.store}, which does not exist; put the store back, "
            "or predict again"
        )
    if encoder := Store(run.store).encoder:
        raise ConfigError(
            f"the cells of {folder} came as vectors of '{encoder}', without pictures, and this "
            "export needs these; `millie export fhir` needs none"
        )
    return run, _samples(run)


def failed_of(run: PredictionRun) -> tuple[str, ...]:
    """Patients without a call."""
    return tuple(result.patient for result in run.patients if result.failed)


def reasons(result: PatientResult) -> str:
    """Why the state is what it is, and what would resolve it; empty: nothing to tell."""
    if result.error is not None:
        return _sentence(result.error)
    told = [text for reason in result.reasons for text in (reason.text, reason.remedy)]
    return " ".join(_sentence(text) for text in told if text)


def _sentence(text: str) -> str:
    text = text.rstrip(". ")
    return f"{text[:1].upper()}{text[1:]}."


def _samples(run: PredictionRun) -> Iterator[Sample]:
    scores = read_cell_probabilities(run.folder, run.model)
    places = _places(run.folder / "cells.csv")
    store = Store(run.store)
    for result in run.patients:
        if result.failed:
            continue
        path = store.path_of(result.patient)
        with BagReader(path) as bag:
            cells, sources, meta = tuple(bag.cells), bag.sources, bag.meta
        found = np.array([(cell.x_px, cell.y_px) for cell in cells]).reshape(-1, 2)
        told = np.array(places.get(result.patient, [])).reshape(-1, 2)
        if found.shape != told.shape or not np.allclose(found, told, rtol=0, atol=_ROUNDING_PX):
            raise DataError(
                f"{path} holds other cells than {run.folder / 'cells.csv'}: the store was cut anew "
                "or a file was changed; predict again"
            )
        yield Sample(result, sources, cells, scores[result.patient], path, meta)


def _places(path: Path) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for row in read_csv(path, ["patient", "x_px", "y_px"]):
        place = number(row["x_px"], path, "x_px"), number(row["y_px"], path, "y_px")
        found.setdefault(row["patient"], []).append(place)
    return found
