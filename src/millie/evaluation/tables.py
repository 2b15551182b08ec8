"""The tables of a cross-validation: patients, cells, winning cells, and the map of cells.

Owns their columns; figures of merit stand in ``metrics.json``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from millie.bags.store import BagReader
from millie.evaluation.cells import CellScores, cell_map
from millie.files import write_csv
from millie.learning.sampling import whole_bag
from millie.statistics.metrics import likeliest, make_calls

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from millie.bags.store import Store
    from millie.evaluation.folds import FoldResult, Study


def write_predictions(study: Study, results: Sequence[FoldResult], path: Path) -> None:
    """A row a patient and repeat."""
    columns = ["patient", "label", "repeat", "fold", *_columns(study), "threshold", "call"]
    _write(path, [*columns, "n_cells"], _prediction_rows(study, results))


def write_cells(study: Study, results: Sequence[FoldResult], store: Store, path: Path) -> None:
    """A row a cell, scored alone by the fold that did not train on its patient; repeat 0."""
    columns = ["patient", "cell", "source", "x_px", "y_px", "cell_label", "smudge", "repeat"]
    sources = {p: _source_names(store, p) for p in study.labels}
    _write(path, [*columns, *_columns(study)], _cell_rows(study, results, sources))


def write_winners(results: Sequence[FoldResult], path: Path) -> None:
    """The cells behind each test patient's probabilities, strongest first; repeat 0."""
    rows = (
        {"patient": patient, "class": name, **winner}
        for result in results
        for patient, by_class in result.winners.items()
        for name, winners in by_class.items()
        for winner in winners
    )
    _write(path, ["patient", "class", "cell", "contribution", "features"], rows)


def _prediction_rows(study: Study, results: Sequence[FoldResult]) -> Iterator[dict[str, object]]:
    index = study.classes.index(study.positive)
    for result in results:
        for patient, score in result.patients.items():
            p = np.array([score.probabilities])
            yield {
                "patient": patient,
                "label": score.label,
                "repeat": result.repeat,
                "fold": result.fold,
                **_named(study, score.probabilities),
                "threshold": result.threshold,
                "call": study.classes[int(make_calls(p, index, result.threshold)[0])],
                "n_cells": score.n_cells,
            }


def _cell_rows(
    study: Study, results: Sequence[FoldResult], sources: Mapping[str, Sequence[str]]
) -> Iterator[dict[str, object]]:
    for result in results:
        for patient, probabilities in result.cells.items():
            for number, (cell, p) in enumerate(
                zip(study.cells[patient], probabilities, strict=True)
            ):
                yield {
                    "patient": patient,
                    "cell": number,
                    "source": sources[patient][cell.source],
                    "x_px": cell.x_px,
                    "y_px": cell.y_px,
                    "cell_label": cell.label,
                    "smudge": cell.smudge,
                    "repeat": result.repeat,
                    **_named(study, [round(float(value), 6) for value in p]),
                }


def write_map(study: Study, results: Sequence[FoldResult], path: Path) -> dict[str, Any]:
    """The map: all cells by the frozen encoder, or the first fold's test cells by its own."""
    source = study.material.source
    if source.images:
        embeddings = dict(results[0].embeddings)
        space = "test cells of the first fold, embedded by its first network"
    else:
        embeddings = {
            p: source.cells(p, whole_bag(source, p).indices).numpy() for p in sorted(study.labels)
        }
        space = "all cells, embedded by the frozen encoder"
    found = cell_map(embeddings, np.random.default_rng(study.config.evaluation.seed))
    rows = (
        {
            "patient": patient,
            "cell": number,
            "label": study.labels[patient],
            "cell_label": study.cells[patient][number].label,
            "pc1": round(float(point[0]), 5),
            "pc2": round(float(point[1]), 5),
        }
        for patient, points in found.points.items()
        for number, point in enumerate(points)
    )
    _write(path, ["patient", "cell", "label", "cell_label", "pc1", "pc2"], rows)
    return {"explained_variance": list(found.explained), "space": space}


def labelled_cells(study: Study, results: Sequence[FoldResult]) -> CellScores:
    """Labelled cells of repeat 0 with the probability that their own fold gave them.

    A cell counts as called if nothing is more probable of it than the positive class, "none of
    them" included: the threshold of patients was fitted on whole bags and says nothing about a
    cell alone.
    """
    classes, positive = study.classes, study.positive
    index = classes.index(positive)
    rows = [
        (patient, study.labels[patient], cell.label, p[index], likeliest(p, classes) == positive)
        for result in results
        for patient, probabilities in result.cells.items()
        for cell, p in zip(study.cells[patient], probabilities.tolist(), strict=True)
        if cell.label
    ]
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), (), ()]
    score = np.array(columns[3], np.float64)
    called = np.array(columns[4], bool)
    patients, diagnoses, labels = (np.array(column, np.str_) for column in columns[:3])
    return CellScores(patients, diagnoses, labels, score, called)


def _named(study: Study, values: Sequence[float]) -> dict[str, object]:
    return {f"probability_{c}": v for c, v in zip(study.classes, values, strict=True)}


def _write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    write_csv(path, columns, ([row[column] for column in columns] for row in rows))


def _columns(study: Study) -> list[str]:
    return [f"probability_{name}" for name in study.classes]


def _source_names(store: Store, patient: str) -> list[str]:
    with BagReader(store.path_of(patient), verify=False) as reader:
        return [source.name for source in reader.sources]
