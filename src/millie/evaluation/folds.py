"""One fold of a cross-validation: trained, scored, written, and read back instead of run again.

A finished fold is two files in ``folds/``: ``r0-f0.safetensors`` with the probabilities of single
cells and ``r0-f0.json`` with all else, written last. Both carry a digest of everything that
determines them; a fold whose digest fits is not run again. This module draws no conclusions from
the numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from millie import __version__
from millie.evaluation.cell_groups import GroupScore, parts_to_score
from millie.files import write_bytes, write_text
from millie.learning.ensemble import (
    Cast,
    Ensemble,
    Material,
    Scored,
    fit_ensemble,
    score_bag,
    score_parts,
)
from millie.learning.sampling import DrawnBag, whole_bag
from millie.learning.train import Progress, embedded_chunks, silent, threads_for
from millie.models.weights import weights_digest

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from millie.config import Config
    from millie.evaluation.colours import RecolouredCells
    from millie.learning.splits import Fold
    from millie.types import Cell

_SCHEMA = 3

Winners = dict[str, list[dict[str, Any]]]
"""By class: ``cell``, ``contribution``, ``features`` as in :class:`millie.types.Winner`."""


@dataclass(frozen=True, slots=True)
class PatientScore:
    """What the networks of a fold say about a patient they never saw.

    Attributes:
        label: the diagnosis.
        probabilities: calibrated, in the order of the classes.
        n_cells: cells in the bag.
        without_smudge: the same probabilities with smudge cells left out; None: there are none,
            or nothing else.
        groups: what each group of cell types says alone, where the patient has enough of it.
    """

    label: str
    probabilities: tuple[float, ...]
    n_cells: int
    without_smudge: tuple[float, ...] | None = None
    groups: Mapping[str, GroupScore] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FoldResult:
    """Everything a fold found.

    Attributes:
        repeat: from 0.
        fold: from 0.
        threshold: of the positive class, fixed inside the training part.
        temperature: fitted inside the training part.
        best_epochs: of each network.
        held_out: training patients that each network left out for stopping and calibration.
        patients: scores of the test patients.
        cells: (n, C) calibrated probabilities of single cells, by patient; repeat 0 only.
        embeddings: (n, D) of the first trained encoder, by patient; first fold end to end only.
        winners: for each patient and class the cells that made it, strongest first; repeat 0 only.
    """

    repeat: int
    fold: int
    threshold: float
    temperature: float
    best_epochs: tuple[int, ...]
    held_out: tuple[tuple[str, ...], ...]
    patients: Mapping[str, PatientScore]
    cells: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    embeddings: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    winners: Mapping[str, Winners] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As :attr:`millie.learning.splits.Fold.name`."""
        return f"r{self.repeat}-f{self.fold}"


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """What all folds share.

    Attributes:
        material: cells of all patients.
        classes: in the order of the logits.
        positive: the class of threshold and binary figures.
        labels: diagnosis by patient.
        cells: table of cells by patient; labels in it are for evaluation only.
        config: all settings.
        recoloured: training part -> cells in the colours that its statistics give; None: as cut.
    """

    material: Material
    classes: tuple[str, ...]
    positive: str
    labels: Mapping[str, str]
    cells: Mapping[str, Sequence[Cell]]
    config: Config
    recoloured: RecolouredCells | None = None

    def for_training(self, part: Sequence[str]) -> Study:
        """The study as the fold with this training part sees its cells."""
        if self.recoloured is None:
            return self
        return replace(self, material=self.recoloured(part), recoloured=None)

    def smudge(self, patient: str) -> NDArray[np.bool_]:
        """(n,) True where a cell is a smudge cell."""
        return np.array([cell.smudge for cell in self.cells[patient]], bool)

    def parts(self, patient: str) -> dict[str, list[NDArray[np.int64]]]:
        """Parts of a bag that are scored alone (:func:`parts_to_score`)."""
        return parts_to_score(patient, [cell.label for cell in self.cells[patient]])


def finish_fold(study: Study, fold: Fold, out: Path, progress: Progress = silent) -> FoldResult:
    """Read the fold if it is there and fits, else run and write it.

    Args:
        study: what all folds share.
        fold: who trains and who is tested.
        out: folder of the cross-validation.
        progress: called after each epoch.
    """
    digest = fold_digest(study, fold)
    known = read_fold(out / "folds", fold.name, digest)
    if known is not None:
        return known
    logs = out / "logs" / fold.name
    with threads_for(study.material.source):
        result = run_fold(study, fold, logs, progress)
    write_fold(out / "folds", result, digest)
    for checkpoint in logs.glob("*.checkpoint.safetensors"):
        checkpoint.unlink()
    return result


def run_fold(
    study: Study, fold: Fold, logs: Path | None = None, progress: Progress = silent
) -> FoldResult:
    """Train on the training part alone, then score the test patients once."""
    part = tuple(sorted((*fold.train, *fold.validation)))
    study = study.for_training(part)
    seed = study.config.training.seed * 100_003 + fold.repeat * 101 + fold.fold
    cast = Cast(study.classes, study.positive, study.labels, part, seed, fold.validation)
    ensemble = fit_ensemble(study.material, cast, study.config, progress=progress, folder=logs)
    patients, cells, winners = {}, {}, {}
    for patient in fold.test:
        whole = whole_bag(study.material.source, patient)
        scored = _score(study, ensemble, whole, explain=fold.repeat == 0)
        clean = _without_smudge(study, ensemble, patient)
        bag = tuple(scored.bag.tolist())
        groups = _by_group(study, ensemble, patient)
        patients[patient] = PatientScore(
            study.labels[patient], bag, len(scored.cells), clean, groups
        )
        if fold.repeat == 0:
            cells[patient] = scored.cells.astype(np.float32)
            winners[patient] = {
                name: [asdict(w) for w in own] for name, own in scored.winners.items()
            }
    first = fold.repeat == 0 and fold.fold == 0 and study.material.source.images
    return FoldResult(
        fold.repeat,
        fold.fold,
        ensemble.threshold,
        ensemble.temperature,
        tuple(member.best_epoch for member in ensemble.members),
        ensemble.held_out,
        patients,
        cells,
        {p: _embeddings(study, ensemble, p) for p in fold.test} if first else {},
        winners,
    )


def _score(study: Study, ensemble: Ensemble, bag: DrawnBag, *, explain: bool) -> Scored:
    return score_bag(
        ensemble.networks,
        study.material.source,
        bag,
        study.classes,
        temperature=ensemble.temperature,
        encoder=study.config.model.encoder,
        config=study.config.prediction,
        explain=explain,
    )


def _without_smudge(study: Study, ensemble: Ensemble, patient: str) -> tuple[float, ...] | None:
    """Probabilities without smudge cells; None if there are none, or nothing else."""
    smudge = study.smudge(patient)
    if smudge.all() or not smudge.any():
        return None
    clean = DrawnBag(patient, np.flatnonzero(~smudge))
    scored = _score(study, ensemble, clean, explain=False)
    return tuple(scored.bag.tolist())


def _by_group(study: Study, ensemble: Ensemble, patient: str) -> dict[str, GroupScore]:
    """Probabilities of the cells of each group alone, and of as many drawn at random."""
    parts = study.parts(patient)
    if not parts:
        return {}
    flat = [part for own in parts.values() for part in own]
    scored = score_parts(
        ensemble.networks,
        study.material.source,
        patient,
        flat,
        temperature=ensemble.temperature,
        batch_size=study.config.prediction.batch_size,
    )
    rows = iter(scored.tolist())
    found = {}
    for name, own in parts.items():
        alone, *drawn = (tuple(next(rows)) for _ in own)
        found[name] = GroupScore(len(own[0]), alone, tuple(drawn))
    return found


@torch.no_grad()
def _embeddings(study: Study, ensemble: Ensemble, patient: str) -> NDArray[np.float32]:
    bag = whole_bag(study.material.source, patient)
    batch = study.config.prediction.batch_size
    parts = embedded_chunks(ensemble.networks[0], study.material.source, bag, batch)
    vectors: NDArray[np.float32] = torch.cat(list(parts)).numpy()
    return vectors


def fold_digest(study: Study, fold: Fold) -> str:
    """SHA-256 (hex) of all that determines the result of a fold.

    Of the prediction's settings these are the number of winners and the labels without disease: the
    size of a batch changes the last bits only, the runtime is in the embeddings, and gates are no
    part of a fold.
    """
    everyone = sorted((*fold.train, *fold.validation, *fold.test))
    types = study.material.types
    content = {
        "schema": _SCHEMA,
        "fold": asdict(fold),
        "cells": study.material.source.digest(everyone),
        "smudge": {p: np.flatnonzero(study.smudge(p)).tolist() for p in fold.test},
        "groups": {
            p: {name: own[0].tolist() for name, own in study.parts(p).items()} for p in fold.test
        },
        "labels": {p: study.labels[p] for p in everyone},
        "classes": study.classes,
        "positive": study.positive,
        "config": study.config.digest("model", "augment", "training"),
        "encoder": study.material.encoder_sha256,
        "types": "" if types is None else weights_digest(types),
        "winners": study.config.prediction.winners if fold.repeat == 0 else 0,
        "negative": study.config.prediction.negative_labels,
        "versions": [__version__, torch.__version__],
    }
    if study.recoloured is not None:  # who belongs to which source decides the colours of all
        sources = study.recoloured.transfer.sources
        content["sources"] = {p: sources[p] for p in sorted(sources)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_fold(folder: Path, result: FoldResult, digest: str) -> None:
    """Write a finished fold, the JSON last: it is what counts as done."""
    arrays = {f"cells/{p}": a for p, a in result.cells.items()}
    arrays |= {f"embeddings/{p}": a for p, a in result.embeddings.items()}
    data = save({k: np.ascontiguousarray(v) for k, v in arrays.items()})
    write_bytes(folder / f"{result.name}.safetensors", data)
    content = {
        "schema": _SCHEMA,
        "digest": digest,
        "arrays_sha256": hashlib.sha256(data).hexdigest(),
        "repeat": result.repeat,
        "fold": result.fold,
        "threshold": result.threshold,
        "temperature": result.temperature,
        "best_epochs": result.best_epochs,
        "held_out": result.held_out,
        "patients": {p: asdict(score) for p, score in result.patients.items()},
        "winners": result.winners,
    }
    write_text(folder / f"{result.name}.json", json.dumps(content, indent=1) + "\n")


def read_fold(folder: Path, name: str, digest: str) -> FoldResult | None:
    """A finished fold with this digest, or None; a damaged one counts as not there."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        data = (folder / f"{name}.safetensors").read_bytes()
        found = (content["digest"], content["arrays_sha256"])
        if found != (digest, hashlib.sha256(data).hexdigest()):
            return None
        return _parse(content, load(data))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _parse(content: dict[str, Any], arrays: Mapping[str, NDArray[np.float32]]) -> FoldResult:
    def under(kind: str) -> dict[str, NDArray[np.float32]]:
        # in the order of the patients, so that tables are the same as from a fold that was run
        return {p: arrays[kind + p] for p in content["patients"] if kind + p in arrays}

    patients = {
        p: PatientScore(
            score["label"],
            tuple(score["probabilities"]),
            score["n_cells"],
            None if score["without_smudge"] is None else tuple(score["without_smudge"]),
            {name: _parse_group(group) for name, group in score["groups"].items()},
        )
        for p, score in content["patients"].items()
    }
    return FoldResult(
        content["repeat"],
        content["fold"],
        content["threshold"],
        content["temperature"],
        tuple(content["best_epochs"]),
        tuple(tuple(share) for share in content["held_out"]),
        patients,
        under("cells/"),
        under("embeddings/"),
        content["winners"],
    )


def _parse_group(content: Mapping[str, Any]) -> GroupScore:
    drawn = tuple(tuple(p) for p in content["drawn"])
    return GroupScore(content["n_cells"], tuple(content["probabilities"]), drawn)
