"""Cells with an expert's type and a score: of the test patients, or of sets never trained on.

Owns how such cells are found: by the types in the bags, by marks on fields, or by images of other
sets that a model of all patients scores. Their AUC is made in
:mod:`millie.reproduce.cell_tests`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from millie import pipeline
from millie.bags.store import BagReader, Store
from millie.inference.predict import bundle_runtimes, predict_bag
from millie.outputs.study.records import Study, read_cells
from millie.readers.datasets import DATASETS
from millie.types import Cohort, ImageSource, Patient, Problem

if TYPE_CHECKING:
    from millie.config import Config
    from millie.engines.seam import Engine
    from millie.models.bundle import Bundle
    from millie.pipeline import Progress
    from millie.readers.published import CellAnnotation
    from millie.reproduce.experiments import CellTest
    from millie.types import Cell

NOT_LEUKOCYTES = frozenset(
    {"platelet", "giant thrombocyte", "thrombocyte aggregation", "artefact", "erythroblast"}
)
"""Types that stand on neither side of a test."""

UNMARKED = "unmarked cell of a field without marks"

_SEED = 0


@dataclass(frozen=True, slots=True)
class ScoredCell:
    """A cell that was scored alone.

    Attributes:
        patient: whose bag, or the pool it lies in.
        source: name of its image.
        label: expert's type.
        probabilities: by class.
        diagnosis: of the patient, or empty.
    """

    patient: str
    source: str
    label: str
    probabilities: Mapping[str, float]
    diagnosis: str = ""


def own_cells(study: Study) -> list[ScoredCell]:
    """Labelled cells of test patients, each scored by a fold that had not seen its patient."""
    diagnoses = {p.patient: p.label for p in study.patients}
    return [
        ScoredCell(
            cell.patient,
            cell.source,
            cell.label,
            dict(zip(study.classes, cell.probabilities, strict=True)),
            diagnoses.get(cell.patient, ""),
        )
        for cell in read_cells(study)
        if cell.label
    ]


def marked_cells(study: Study, store: Store, dataset: str, root: Path) -> list[ScoredCell]:
    """Cells of the test patients whose type an expert marked on the field.

    A mark belongs to the nearest cell whose box holds it (a box: to the nearest cell whose centre
    lies in it). Cells that no mark reaches are left out, but for those of fields that were looked
    at and have no mark at all.
    """
    annotations = DATASETS[dataset].annotations
    if annotations is None:
        return []
    marks = annotations(root)
    diagnoses = {p.patient: p.label for p in study.patients}
    types: dict[str, dict[int, str]] = {}
    found = []
    for cell in read_cells(study):
        if cell.patient not in types:
            types[cell.patient] = _types_of(store, cell.patient, marks)
        label = types[cell.patient].get(cell.cell, "")
        if label:
            p = dict(zip(study.classes, cell.probabilities, strict=True))
            own = diagnoses.get(cell.patient, "")
            found.append(ScoredCell(cell.patient, cell.source, label, p, own))
    return found


def _types_of(
    store: Store, patient: str, marks: Mapping[str, Sequence[CellAnnotation]]
) -> dict[int, str]:
    """Type of each cell of a bag that has one, by its index."""
    with BagReader(store.path_of(patient), verify=False) as bag:
        cells, sources = bag.cells, bag.sources
    found: dict[int, str] = {}
    for number, source in enumerate(sources):
        if source.name not in marks:
            continue
        own = {i: cell for i, cell in enumerate(cells) if cell.source == number}
        if marks[source.name]:
            found |= match_marks(own, marks[source.name])
        else:
            found |= dict.fromkeys(own, UNMARKED)
    return found


def match_marks(cells: Mapping[int, Cell], marks: Sequence[CellAnnotation]) -> dict[int, str]:
    """Give each mark to the nearest cell that it fits; a cell keeps its nearest mark.

    Args:
        cells: of one field, by index in the bag.
        marks: on that field, pixels of the full-resolution image.
    """
    best: dict[int, tuple[float, str]] = {}
    for mark in marks:
        near = [
            (float(np.hypot(cell.x_px - mark.x_px, cell.y_px - mark.y_px)), index)
            for index, cell in cells.items()
            if _fits(cell, mark)
        ]
        if near:
            distance, index = min(near)
            if index not in best or distance < best[index][0]:
                best[index] = (distance, mark.label)
    return {index: label for index, (_, label) in best.items() if label}


def _fits(cell: Cell, mark: CellAnnotation) -> bool:
    if mark.box_px is not None:
        left, top, width, height = mark.box_px
        return left <= cell.x_px <= left + width and top <= cell.y_px <= top + height
    return (
        cell.left_px <= mark.x_px <= cell.left_px + cell.width_px
        and cell.top_px <= mark.y_px <= cell.top_px + cell.height_px
    )


def choose_images(
    tests: Iterable[CellTest], cohorts: Mapping[str, Cohort]
) -> dict[str, frozenset[tuple[str, str]]]:
    """The images of each external test: (patient, image) by name of the test.

    Where a test takes fewer cells than there are, they are drawn by chance, the same each time.
    """
    chosen = {}
    for test in tests:
        sides: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
        for name in test.datasets:
            for patient in cohorts[name].patients if name in cohorts else ():
                for image in patient.images:
                    side = side_of(test, image.cell_label or "")
                    if side is not None:
                        sides[side].append((f"{name}-{patient.id}", image.name))
        rng = np.random.default_rng(_SEED)
        drawn = [
            _draw(sorted(side), most, rng) for side, most in zip(sides, test.most, strict=True)
        ]
        chosen[test.name] = frozenset(drawn[0] + drawn[1])
    return chosen


def side_of(test: CellTest, label: str) -> int | None:
    """0 for a target of the test, 1 for the others, None for neither."""
    if label in test.targets:
        return 0
    if test.others:
        return 1 if label in test.others else None
    return None if not label or label in NOT_LEUKOCYTES else 1


def _draw(
    names: list[tuple[str, str]], most: int | None, rng: np.random.Generator
) -> list[tuple[str, str]]:
    if most is None or len(names) <= most:
        return names
    return [names[i] for i in sorted(rng.choice(len(names), most, replace=False))]


@dataclass(frozen=True, slots=True)
class ExternalRun:
    """Where external cells are cut and by what they are scored.

    Attributes:
        bundle: model of all patients of the experiment.
        training: the store it was trained on.
        out: folder of the bag store of these cells.
        config: settings of the experiment.
        engine: for cutting; None: serial.
    """

    bundle: Bundle
    training: Store
    out: Path
    config: Config
    engine: Engine | None = None


def external_cells(
    run: ExternalRun,
    cohorts: Mapping[str, Cohort],
    wanted: Iterable[tuple[str, str]],
    progress: Progress = pipeline.silent,
) -> tuple[list[ScoredCell], list[Problem]]:
    """Cut and score the wanted images of other sets, each cell alone.

    Returns:
        The cells, and what could not be used.
    """
    patients = _patients_of(cohorts, frozenset(wanted))
    cohort = Cohort("external cells", tuple(patients))
    summary = pipeline.segment(cohort, run.out, run.config, run.engine, progress=progress)
    runtimes = bundle_runtimes(run.bundle, run.config.prediction, run.config.model.weights)
    names = {patient.id for patient in patients}
    bags = [bag for bag in Store(run.out).index() if bag.patient in names and bag.n_cells]
    found = []
    for number, bag in enumerate(bags):
        progress("score cells", number, len(bags))
        with BagReader(bag.path) as reader:
            scored = predict_bag(run.bundle, reader, runtimes, run.config.prediction)
            sources = reader.sources
            for cell, row in zip(reader.cells, scored.cell_probabilities, strict=True):
                p = dict(zip(run.bundle.labels, row.tolist(), strict=True))
                source = sources[cell.source].name
                found.append(ScoredCell(bag.patient, source, cell.label or "", p))
    progress("score cells", len(bags), len(bags))
    return found, list(summary.problems)


def _patients_of(
    cohorts: Mapping[str, Cohort], wanted: frozenset[tuple[str, str]]
) -> list[Patient]:
    patients = []
    for name, cohort in cohorts.items():
        for patient in cohort.patients:
            id_ = f"{name}-{patient.id}"
            images: tuple[ImageSource, ...] = tuple(
                image for image in patient.images if (id_, image.name) in wanted
            )
            if images:
                patients.append(replace(patient, id=id_, label=None, images=images))
    return patients
