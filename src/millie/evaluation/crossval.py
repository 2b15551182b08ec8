"""Cross-validation: split, run the folds, write tables and figures.

Protocol: patients are dealt into folds stratified by diagnosis; weights, stopping, temperature and
threshold are chosen inside the training part; the test patients of a fold are scored once. Folds
that are finished are read, not run again, so running again is resuming. Numbers are made in
:mod:`millie.evaluation.summary` and :mod:`millie.evaluation.cells`; this module owns the order and
the files.
"""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from millie import __version__
from millie.config import to_toml
from millie.engines.seam import available_cores
from millie.evaluation import summary, tables
from millie.evaluation.cells import cell_part
from millie.evaluation.colours import FILE as COLOURS
from millie.evaluation.colours import ColourTransfer, RecolouredCells
from millie.evaluation.folds import FoldResult, Study, finish_fold
from millie.files import write_text
from millie.learning.material import Opener, Participants, cells_of, participants
from millie.learning.splits import Splits, make_splits
from millie.learning.train import Progress, silent
from millie.models.encoders import ENCODERS
from millie.statistics.intervals import Estimate
from millie.statistics.metrics import choose_positive
from millie.types import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from millie.bags.store import Store
    from millie.config import Config
    from millie.learning.ensemble import Material
    from millie.types import Problem

_LINES = {
    "auc": "ROC AUC",
    "auc_folds": "ROC AUC, mean of folds",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}


@dataclass(frozen=True, slots=True, eq=False)
class StudyResult:
    """What a cross-validation found and wrote.

    Attributes:
        out: the folder.
        metrics: the content of ``metrics.json``.
        splits: who was trained on and who tested.
        folds: what each fold found, in their order.
        problems: patients that could not take part.
    """

    out: Path
    metrics: Mapping[str, Any]
    splits: Splits
    folds: Sequence[FoldResult]
    problems: tuple[Problem, ...] = ()

    def lines(self) -> list[str]:
        """The main figures in words, one a line."""
        counts = ", ".join(f"{n} {name}" for name, n in self.metrics["n_by_class"].items())
        found = [
            (
                f"{self.metrics['n_patients']} patients ({counts}), {self.splits.folds} folds, "
                f"repeats: {self.splits.repeats}; {self.metrics['positive']} against the rest"
            )
        ]
        for name, e in self.figures().items():
            found.append(f"{_LINES[name]} {e.value:.3f} ({e.low:.3f} to {e.high:.3f}; {e.method})")
        return found

    def figures(self) -> dict[str, Estimate]:
        """The main figures with their intervals, by name."""
        return {name: Estimate(**self.metrics["headline"][name]) for name in _LINES}


def crossval(
    store: Store,
    config: Config,
    out: Path,
    progress: Progress = silent,
    *,
    labels: Mapping[str, str] | None = None,
    material: Material | None = None,
) -> StudyResult:
    """Cross-validate a configuration on a store.

    Args:
        store: bags with labels.
        config: ``model``, ``training``, ``augment``, ``evaluation``, ``prediction``.
        out: folder for all files; finished folds found there are kept if they fit.
        progress: called after each epoch, patient and fold.
        labels: other diagnoses than the store's, by patient (a control).
        material: cells to use instead of those that the configuration asks for.

    Raises:
        TrainingError: too few patients of a class for the folds, or the loss diverged.
        StoreError: a bag is damaged.
        ConfigError: ``evaluation.positive`` does not occur.
    """
    who = participants(store)
    if labels is not None:
        who = Participants(labels, who.problems)
    wanted = config.evaluation
    fraction = config.training.validation_fraction if config.training.ensemble == 1 else 0.0
    splits = make_splits(who.labels, wanted.folds, wanted.repeats, wanted.seed, fraction)
    positive = choose_positive(who.classes, list(who.labels.values()), wanted.positive)
    study = open_study(store, who, config, positive, progress, material)
    results = _run_folds(study, splits, out, progress)
    metrics = _write_results(study, results, splits, store, out)
    return StudyResult(out, metrics, splits, results, who.problems)


FILES = (
    "config.toml", "splits.json", COLOURS, "predictions.csv", "cells.csv", "winners.csv", "pca.csv",
    "metrics.json", "folds/*",
)  # fmt: skip
"""Results of a finished cross-validation, as patterns of names."""


def open_study(
    store: Store,
    who: Participants,
    config: Config,
    positive: str,
    progress: Progress = silent,
    material: Material | None = None,
) -> Study:
    """What all folds of a cross-validation share.

    Args:
        store: the bags.
        who: patients and diagnoses.
        config: all settings.
        positive: class of the binary figures.
        progress: called after each patient.
        material: cells to use instead of those that the configuration asks for.
    """
    patients = sorted(who.labels)
    recoloured = None
    if material is None:
        opener = Opener(store, config)
        material = opener.open(patients, progress)
        if config.training.colour_transfer:
            transfer = ColourTransfer(store, patients)
            recoloured = RecolouredCells(opener, transfer, patients, progress)
    cells = {patient: cells_of(store, patient) for patient in patients}
    return Study(material, who.classes, positive, who.labels, cells, config, recoloured)


def _write_colours(study: Study, splits: Splits, out: Path) -> None:
    """``colours.json`` where colours are transferred; one of an earlier run is removed."""
    (out / COLOURS).unlink(missing_ok=True)
    if study.recoloured is not None:
        study.recoloured.transfer.write(splits, out)


def _run_folds(study: Study, splits: Splits, out: Path, progress: Progress) -> list[FoldResult]:
    total = len(splits.assignments)
    results = []
    for done, fold in enumerate(splits.assignments):
        progress("folds", done, total)
        write_text(out / "progress.json", json.dumps({"done": done, "total": total}) + "\n")
        results.append(finish_fold(study, fold, out, progress))
    progress("folds", total, total)
    write_text(out / "progress.json", json.dumps({"done": total, "total": total}) + "\n")
    return results


def _write_results(
    study: Study, results: Sequence[FoldResult], splits: Splits, store: Store, out: Path
) -> dict[str, Any]:
    """Settings and tables first, ``metrics.json`` last: an earlier run's files stay until then."""
    write_text(out / "config.toml", to_toml(study.config))
    splits.save(out / "splits.json")
    _write_colours(study, splits, out)
    tables.write_predictions(study, results, out / "predictions.csv")
    tables.write_cells(study, results, store, out / "cells.csv")
    tables.write_winners(results, out / "winners.csv")
    explained = tables.write_map(study, results, out / "pca.csv")
    metrics = _metrics(study, results, splits)
    metrics["pca"] = explained
    metrics["store"] = os.path.relpath(store.root, out)
    write_text(out / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    return metrics


def _metrics(study: Study, results: Sequence[FoldResult], splits: Splits) -> dict[str, Any]:
    wanted = study.config.evaluation
    averaged = summary.average(results, study.classes, study.positive)
    folds = summary.fold_table(results, study.classes, study.positive, len(study.labels))
    headline = summary.headline(averaged, folds, study.classes, wanted)
    return {
        "schema": 1,
        "research_use_only": RESEARCH_USE_ONLY,
        "classes": list(study.classes),
        "positive": study.positive,
        "n_patients": len(study.labels),
        "n_by_class": dict(sorted(Counter(study.labels.values()).items())),
        "headline": {name: estimate.to_dict() for name, estimate in headline.items()},
        "per_fold": folds,
        "fold_spread": summary.fold_spread(folds),
        "roc": summary.roc_part(averaged),
        "calibration": summary.calibration_part(averaged, wanted.confidence),
        "confusion": summary.confusion_part(averaged, len(study.classes)),
        "without_smudge": summary.smudge_part(
            results, study.classes, study.positive, wanted.confidence
        ),
        "cells": cell_part(tables.labelled_cells(study, results), study.positive, wanted),
        "splits_sha256": splits.digest(),
        "protocol": protocol(study, splits),
        "environment": environment(),
    }


def protocol(study: Study, splits: Splits) -> list[str]:
    """How the figures were made, a paragraph each."""
    training = study.config.training
    networks = training.ensemble
    if networks > 1:
        choice = (
            f"Each training part was divided into shares (at most {networks}, fewer where a class "
            f"has fewer patients); each of {networks} networks was trained without one of them. "
            "Temperature and threshold (balanced logistic regression) were fitted on the "
            "probabilities of the shares left out, within the training part. The probabilities of "
            "the networks were averaged."
        )
    elif training.validation_fraction > 0:
        choice = (
            f"{training.validation_fraction:.0%} of the training patients were held out for early "
            "stopping; temperature and threshold (balanced logistic regression) were fitted on "
            "them."
        )
    else:
        choice = "No patient was held out inside the training part: threshold 0.5, temperature 1."
    repeats = "1 repeat" if splits.repeats == 1 else f"{splits.repeats} repeats"
    dealing = (
        f"{splits.folds}-fold cross-validation, {repeats}, split by patient and stratified by "
        f"diagnosis (seed {splits.seed}). Every patient is tested once in each repeat; no patient "
        "is in two parts of a fold."
    )
    testing = (
        "Test patients were used for no choice of settings; each was scored once in each repeat, "
        "on all cells, without augmentation."
    )
    averaging = (
        "Each patient's probabilities were averaged over repeats before intervals were computed, "
        "so that n is the number of patients. With several repeats this average is an ensemble; "
        "the AUCs of single repeats and single folds are given beside it."
    )
    labels = "Cell labels were used for figures on cells and their types only, never for training."
    if study.material.encoder:
        labels += (
            f" The vectors were computed elsewhere ({study.material.encoder}); what their encoder "
            "was trained on, and whether on these patients, is not known here."
        )
    elif ENCODERS[study.config.model.encoder].n_types:
        labels = (
            "Labels of these patients' cells were used for figures on cells and their types only. "
            "The encoder was trained on types of normal cells, on unlabelled cells, and on "
            "diagnoses of several data sets, in which AML and APL count as one; they may include "
            "these patients."
        )
    colours = (
        "The colours of all sources were matched to those of the largest one (Reinhard 2001); the "
        "statistics of each fold come from its training part alone."
    )
    transferred = [colours] if training.colour_transfer else []
    return [dealing, choice, testing, averaging, labels, *transferred]


def environment() -> dict[str, str]:
    """Versions and machine."""
    return {
        "millie": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "cores": str(available_cores()),
    }
