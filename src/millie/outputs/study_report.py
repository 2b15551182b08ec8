"""The page of a study: numbers with intervals, curves, and the cells behind right and wrong calls.

Owns what stands on the page and in which order. Everything is read from the files of the study and
from its bag store; without the store the page says that pictures are missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from millie.bags.store import BagReader, Store
from millie.outputs.curves import Bools, Floats, RocBand, roc_band
from millie.outputs.figures import (
    BinPoint,
    calibration_figure,
    patients_figure,
    roc_figure,
    roc_lines_figure,
    scatter_figure,
)
from millie.outputs.gallery import Album, CellPicture
from millie.outputs.page import percent, render
from millie.outputs.study import (
    CellScore,
    Matrix,
    Measure,
    Study,
    StudyPatient,
    check_splits,
    matrix,
    measures,
    read_cells,
    read_components,
    read_controls,
    read_study,
)

_GALLERY_PX = 120
_CELLS_A_CLASS = 24
_CELLS_A_PATIENT = 3
_WRONG_PATIENTS = 15
_CELLS_OF_WRONG = 8
_CELL_TYPES = 6
_BAND_SEED = 0


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
    roc: str
    matrix: Matrix | None
    notes: tuple[str, ...]
    by_label: tuple[Mapping[str, Any], ...]


def study_page(folder: Path, store: Path | None = None) -> str:
    """Make the HTML page of a study.

    Args:
        folder: what ``millie crossval`` wrote.
        store: the bag store; None: as ``metrics.json`` names it.

    Raises:
        MissingFileError: a table of the study does not exist.
        DataError: a file of the study is damaged.
    """
    study = read_study(folder)
    cells = read_cells(study) if (folder / "cells.csv").is_file() else []
    bags = _find_store(study, store)
    controls, verdict = read_controls(study)
    n_splits, overlaps = check_splits(folder)
    wrong = sorted((p for p in study.patients if p.call != p.label), key=_worst_first)
    return render(
        "study.html.j2",
        study=study,
        band_roc=_roc_of_patients(study),
        calibration=_calibration(study),
        dots=_dots(study),
        components=_components(study),
        space=_part(study, "pca").get("space", ""),
        calibration_numbers=[
            (name, float(value))
            for name, value in _part(study, "calibration").items()
            if name in {"error", "brier"}
        ],
        cell_results=_cell_results(study),
        galleries=_class_galleries(study, cells, bags) if bags else (),
        wrong=_wrong_galleries(study, cells, wrong[:_WRONG_PATIENTS], bags) if bags else (),
        n_wrong=len(wrong),
        patients=sorted(study.patients, key=_worst_first),
        controls=controls,
        verdict=verdict,
        n_splits=n_splits,
        overlaps=overlaps,
        has_store=bags is not None,
        confusion_repeats=_total(study.confusion) > len(study.patients),
        config=_text(folder / "config.toml"),
    )


def _find_store(study: Study, store: Path | None) -> Store | None:
    named = study.metrics.get("store")
    root = store or (study.folder / str(named) if named else None)
    return Store(root) if root is not None and root.is_dir() else None


def _roc_of_patients(study: Study) -> str:
    """ROC over patients' mean probabilities with its band; empty where a class is missing."""
    positive: Bools = np.array([p.label == study.positive for p in study.patients], dtype=np.bool_)
    score: Floats = np.array([p.probability for p in study.patients])
    if positive.all() or not positive.any():
        return ""
    band: RocBand = roc_band(positive, score, np.random.default_rng(_BAND_SEED))
    return roc_figure(band, f"{study.positive} against the rest")


def _calibration(study: Study) -> str:
    """Calibration curve from the metrics; empty where they have none."""
    content = study.metrics.get("calibration")
    points = _bins(content)
    return calibration_figure(points, f"Calibration, {study.positive}") if points else ""


def _bins(content: object) -> list[BinPoint]:
    if isinstance(content, Mapping):
        for key in ("curve", "reliability", "bins"):
            if isinstance(content.get(key), list):
                return _bins(content[key])
    if not isinstance(content, list):
        return []
    return [
        BinPoint(float(b["probability"]), float(b["share"]), float(b["low"]), float(b["high"]),
                 int(b["n"]))
        for b in content
        if isinstance(b, Mapping) and {"probability", "share", "low", "high", "n"} <= b.keys()
    ]  # fmt: skip


def _dots(study: Study) -> str:
    scores = {
        name: np.array([p.probability for p in study.patients if p.label == name])
        for name in study.classes
    }
    return patients_figure(
        scores,
        study.threshold,
        f"probability of {study.positive}, mean over repeats",
        "Patients by diagnosis",
    )


def _part(study: Study, name: str) -> Mapping[str, Any]:
    part = study.metrics.get(name)
    return part if isinstance(part, Mapping) else {}


def _components(study: Study) -> list[tuple[str, str]]:
    """PCA figures: by diagnosis, and by cell type where experts named some."""
    if not (study.folder / "pca.csv").is_file():
        return []
    labels, types, places = read_components(study.folder)
    shares = _part(study, "pca").get("explained_variance", [])
    axes = [f"component {i + 1} ({percent(float(share))})" for i, share in enumerate(shares)]
    axes = axes if len(axes) == 2 else ["component 1", "component 2"]
    found = []
    if labels:
        found.append(_scatter(labels, places, axes, "Cells by the patient's diagnosis"))
    if any(types):
        common = [name for name, _ in Counter(filter(None, types)).most_common(_CELL_TYPES)]
        shown = [name if name in common else "other" for name in types]
        found.append(_scatter(shown, places, axes, "Cells by type (expert)"))
    return found


def _scatter(
    names: Sequence[str], places: Floats, axes: Sequence[str], title: str
) -> tuple[str, str]:
    order = sorted(set(names), key=lambda name: (name == "other", name))
    chosen = np.asarray(names, dtype=object)
    points = {name: places[chosen == name] for name in order}
    return scatter_figure(points, (axes[0], axes[1]), title), title


def _cell_results(study: Study) -> CellResults | None:
    part = study.cells
    if not isinstance(part, Mapping):
        return None
    curves = {
        name: (np.asarray(entry["fpr"], dtype=float), np.asarray(entry["tpr"], dtype=float))
        for name, entry in _curve_entries(part)
    }
    return CellResults(
        tuple(measures(part)),
        roc_lines_figure(curves, "Cells, one at a time") if curves else "",
        matrix(part.get("confusion"), part.get("rows", study.classes),
               part.get("columns", study.classes)),
        tuple(str(part[key]) for key in ("protocol", "note", "description") if part.get(key)),
        tuple(row for row in part.get("by_label", ()) if isinstance(row, Mapping)),
    )  # fmt: skip


def _curve_entries(part: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    roc = part.get("roc")
    if not isinstance(roc, Mapping):
        return ()
    if "fpr" in roc:
        return (("all cells", roc),)
    return tuple((str(k), v) for k, v in roc.items() if isinstance(v, Mapping) and "fpr" in v)


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
    """Pictures in the given order; every bag is opened once, a bag that is gone is left out."""
    pictures: dict[tuple[str, int], CellPicture] = {}
    for patient in dict.fromkeys(cell.patient for cell in cells):
        path = store.path_of(patient)
        if not path.is_file():
            continue
        with BagReader(path, verify=False) as bag:
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
