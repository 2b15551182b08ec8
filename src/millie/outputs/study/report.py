"""The page of a study: numbers with intervals, curves, and the cells behind right and wrong calls.

Owns what stands on the page and in which order. Everything is read from the files of the study and
from its bag store; without the store the page says that pictures are missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from millie.bags.store import BagReader, Store
from millie.files import safe_id
from millie.outputs.figure_files import write_figures
from millie.outputs.figures import lines_figure
from millie.outputs.gallery import Album, CellPicture
from millie.outputs.page import render
from millie.outputs.study.colour_pictures import colour_strips
from millie.outputs.study.controls import read_controls
from millie.outputs.study.figures import cell_matrix, part, study_figures
from millie.outputs.study.manuscript import TABLES, write_tables
from millie.outputs.study.overlap_proof import OVERLAP
from millie.outputs.study.records import (
    CellScore,
    Matrix,
    Measure,
    Study,
    StudyPatient,
    check_splits,
    measures,
    read_cells,
    read_study,
)
from millie.outputs.study.supplement import RobustnessCurve, read_supplement

FIGURES = "figures"
BESIDE = (f"{FIGURES}/*", f"{TABLES}/*", OVERLAP)
"""What is written with the page, as patterns of names."""

_GALLERY_PX = 120
_CELLS_A_CLASS = 24
_CELLS_A_PATIENT = 3
_WRONG_PATIENTS = 15
_CELLS_OF_WRONG = 8


@dataclass(frozen=True, slots=True)
class StudyCell:
    """A cell in a gallery of the study: its picture, its patient and its score for a class."""

    picture: CellPicture
    patient: str
    diagnosis: str
    cell_label: str
    score: float


@dataclass(frozen=True, slots=True)
class ClassGallery:
    """The cells with the highest probability of one class, a few of each patient at most."""

    name: str
    cells: tuple[StudyCell, ...]


@dataclass(frozen=True, slots=True)
class WrongPatient:
    """A patient called wrongly, with the cells most like the class that was called."""

    patient: StudyPatient
    called: str
    cells: tuple[StudyCell, ...]


@dataclass(frozen=True, slots=True)
class CellResults:
    """How cells scored alone agree with experts' types, as far as the study says it."""

    measures: tuple[Measure, ...]
    matrix: Matrix | None
    notes: tuple[str, ...]
    by_label: tuple[Mapping[str, Any], ...]


def study_page(folder: Path, store: Path | None = None) -> str:
    """Make the HTML page of a study; its figures and tables for a manuscript are written beside it.

    Args:
        folder: what ``millie crossval`` wrote.
        store: the bag store; None: as ``metrics.json`` names it.

    Raises:
        MissingFileError: a table of the study does not exist.
        DataError: a file of the study is damaged.
    """
    study = read_study(folder)
    bags = _find_store(study, store)
    supplement = read_supplement(study, bags)
    figures = study_figures(study) | _robustness_figures(supplement.robustness)
    controls, verdict = read_controls(study)
    write_tables(study, supplement, controls)
    return render(
        "study.html.j2",
        study=study,
        figures=write_figures(folder / FIGURES, figures),
        supplement=supplement,
        controls=controls,
        verdict=verdict,
        strips=colour_strips(folder, bags, folder / FIGURES),
        **_numbers(study),
        **_cells(study, bags),
    )


def _numbers(study: Study) -> dict[str, Any]:
    """What the page says about patients and settings."""
    n_splits, overlaps = check_splits(study.folder)
    return {
        "space": part(study, "pca").get("space", ""),
        "calibration_numbers": [
            (name, float(value))
            for name, value in part(study, "calibration").items()
            if name in {"error", "brier"}
        ],
        "patients": sorted(study.patients, key=_worst_first),
        "n_splits": n_splits,
        "overlaps": overlaps,
        "confusion_repeats": _total(study.confusion) > len(study.patients),
        "config": _text(study.folder / "config.toml"),
    }


def _cells(study: Study, bags: Store | None) -> dict[str, Any]:
    """What the page shows of cells: every missed positive patient, and the worst other errors."""
    cells = read_cells(study) if (study.folder / "cells.csv").is_file() else []
    wrong = sorted((p for p in study.patients if p.call != p.label), key=_worst_first)
    missed = [p for p in wrong if p.label == study.positive]
    others = [p for p in wrong if p.label != study.positive]
    return {
        "cell_results": _cell_results(study),
        "galleries": _class_galleries(study, cells, bags) if bags else (),
        "missed": _wrong_galleries(study, cells, missed, bags) if bags else (),
        "wrong": _wrong_galleries(study, cells, others[:_WRONG_PATIENTS], bags) if bags else (),
        "n_wrong": len(wrong),
        "n_others": len(others),
        "n_missed": len(missed),
        "has_store": bags is not None,
    }


def _robustness_figures(curves: Sequence[RobustnessCurve]) -> dict[str, Figure]:
    """One figure a change of the images."""
    found = {}
    for curve in curves:
        x, value, low, high = (np.array(column) for column in zip(*curve.points, strict=True))
        drawn = {curve.measure: (x, value, low, high)}
        name = "robustness_" + "_".join(curve.name.lower().split())
        figure = lines_figure(drawn, (curve.x_label, curve.measure), curve.name)
        figure.axes[0].set_ylim(-0.02, 1.02)  # all are shares or AUCs: one scale to compare by eye
        found[safe_id(name)] = figure
    return found


def _find_store(study: Study, store: Path | None) -> Store | None:
    named = study.metrics.get("store")
    root = store or (study.folder / str(named) if named else None)
    return Store(root) if root is not None and root.is_dir() else None


def _cell_results(study: Study) -> CellResults | None:
    found = study.cells
    if not isinstance(found, Mapping):
        return None
    return CellResults(
        tuple(measures(found)),
        cell_matrix(study),
        tuple(str(found[key]) for key in ("protocol", "note", "description") if found.get(key)),
        tuple(row for row in found.get("by_label", ()) if isinstance(row, Mapping)),
    )


def _class_galleries(
    study: Study, cells: Sequence[CellScore], store: Store
) -> tuple[ClassGallery, ...]:
    diagnoses = {p.patient: p.label for p in study.patients}
    galleries = []
    for index, name in enumerate(study.classes):
        chosen: list[CellScore] = []
        taken = Counter[str]()
        for cell in sorted(cells, key=lambda c: (-c.probabilities[index], c.patient, c.cell)):
            if taken[cell.patient] < _CELLS_A_PATIENT:
                taken[cell.patient] += 1
                chosen.append(cell)
            if len(chosen) == _CELLS_A_CLASS:
                break
        galleries.append(ClassGallery(name, _pictures(chosen, index, diagnoses, store)))
    return tuple(galleries)


def _wrong_galleries(
    study: Study, cells: Sequence[CellScore], wrong: Sequence[StudyPatient], store: Store
) -> tuple[WrongPatient, ...]:
    diagnoses = {p.patient: p.label for p in study.patients}
    found = []
    for patient in wrong:
        index = study.classes.index(patient.call)
        own = [cell for cell in cells if cell.patient == patient.patient]
        own.sort(key=lambda c: (-c.probabilities[index], c.cell))
        pictures = _pictures(own[:_CELLS_OF_WRONG], index, diagnoses, store)
        found.append(WrongPatient(patient, patient.call, pictures))
    return tuple(found)


def _pictures(
    cells: Sequence[CellScore], index: int, diagnoses: Mapping[str, str], store: Store
) -> tuple[StudyCell, ...]:
    """Pictures in the given order; every bag is opened once, a bag without any is left out."""
    pictures: dict[tuple[str, int], CellPicture] = {}
    for patient in dict.fromkeys(cell.patient for cell in cells):
        path = store.path_of(patient)
        if not path.is_file():
            continue
        with BagReader(path, verify=False) as bag:
            if bag.holds_vectors:
                continue
            album = Album(bag)
            for cell in cells:
                if cell.patient == patient:
                    pictures[patient, cell.cell] = album.picture(cell.cell, _GALLERY_PX)
    return tuple(
        StudyCell(
            pictures[cell.patient, cell.cell],
            cell.patient,
            diagnoses.get(cell.patient, ""),
            cell.label,
            cell.probabilities[index],
        )
        for cell in cells
        if (cell.patient, cell.cell) in pictures
    )


def _worst_first(patient: StudyPatient) -> tuple[bool, float, str, float, str]:
    right = patient.call == patient.label
    return right, -patient.wrong, patient.label, -patient.probability, patient.patient


def _total(table: Matrix | None) -> int:
    return sum(map(sum, table.counts)) if table else 0


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
