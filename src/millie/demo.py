"""The demonstration: a synthetic cohort through the whole method, from images to reports.

Owns the steps of ``millie demo``; each is the pipeline's own. The figures show that the method
runs, not how well it works on patients.
"""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from millie import pipeline
from millie.config import Config
from millie.engines.seam import ProcessEngine
from millie.models.manifest import MANIFEST, from_bytes
from millie.pipeline import CrossvalResult, PredictResult, Progress, silent
from millie.synthetic import write_cohort

# New patients get enough cells for NO_SIGNAL to be allowed, so that the demo shows every state.
_TRAINING_CELLS = 90
_NEW_PATIENT_CELLS = 230
_NEW_PATIENTS_PER_CLASS = 2
_NAME = "demo"
"""Of the model."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Where the demo's results are.

    Attributes:
        study: the cross-validation on the training cohort.
        prediction: the calls for new patients.
        truth: what was drawn for each new patient.
    """

    study: CrossvalResult
    prediction: PredictResult
    truth: dict[str, str]


def run(
    out: Path, patients: int, seed: int, config: Config, progress: Progress = silent
) -> DemoResult:
    """Draw two cohorts, cut cells, cross-validate, train, and call the new patients.

    Args:
        out: folder for everything; running again goes on where it stopped.
        patients: of each class in the training cohort.
        seed: of the drawing; the same seed draws the same films.
        config: settings of every stage.
        progress: called often.
    """
    rng_seeds = np.random.SeedSequence(seed).generate_state(2)
    known = write_cohort(
        out / "films", patients, int(rng_seeds[0]), cells_per_patient=_TRAINING_CELLS,
        progress=progress,
    )  # fmt: skip
    new = write_cohort(
        out / "new-films", _NEW_PATIENTS_PER_CLASS, int(rng_seeds[1]),
        cells_per_patient=_NEW_PATIENT_CELLS, prefix="new", progress=progress,
    )  # fmt: skip
    engine = ProcessEngine()
    store = out / "store"
    pipeline.segment(pipeline.read_cohort([known]), store, config, engine, progress=progress)
    study = pipeline.crossval(store, out / "study", config, progress=progress)
    bundle = out / "bundle"
    if _is_ours(bundle):  # of an earlier run, perhaps with other settings
        shutil.rmtree(bundle)
    pipeline.train(store, bundle, config, name=_NAME, study=out / "study", progress=progress)
    unlabelled = _without_labels(new)
    prediction = pipeline.predict(
        str(bundle), [unlabelled], out / "calls", engine=engine, progress=progress
    )
    return DemoResult(study, prediction, _labels(new))


def _is_ours(bundle: Path) -> bool:
    """Whether a model of the demonstration lies there: no other is removed."""
    path = bundle / MANIFEST
    return path.is_file() and from_bytes(path.read_bytes(), str(path)).name == _NAME


def _labels(manifest: Path) -> dict[str, str]:
    with manifest.open(encoding="utf-8-sig", newline="") as stream:
        return {row["patient"]: row["label"] for row in csv.DictReader(stream)}


def _without_labels(manifest: Path) -> Path:
    """A copy of the manifest as a laboratory would have it before any diagnosis."""
    path = manifest.with_name("unlabelled.csv")
    with manifest.open(encoding="utf-8-sig", newline="") as source:
        reader = csv.DictReader(source)
        rows = [{**row, "label": ""} for row in reader]
        columns = list(reader.fieldnames or [])
    with path.open("w", encoding="utf-8-sig", newline="") as target:
        writer = csv.DictWriter(target, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path
