"""A model of vectors from elsewhere: trained, described, given what it takes and nothing else."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from millie import pipeline
from millie.bags.store import Store
from millie.config import Config
from millie.errors import ConfigError
from millie.models.encoders import build_encoder
from millie.outputs.exports.fhir import export_fhir
from millie.outputs.exports.qupath import export_qupath
from millie.outputs.report import write_report
from millie.pipeline.import_features import import_vectors, rows_of
from millie.pipeline.results import PredictResult
from millie.types import Cohort, ImageSource, Patient

DIM, CELLS = 6, 60
TRAINING = [
    "model.aggregator=mean", "training.max_epochs=40", "training.learning_rate=0.05",
    "training.ensemble=2",
    "prediction.min_cells_negative=50",
]  # fmt: skip


def write_file(path: Path, rng: np.random.Generator, shift: float, width: int = DIM) -> None:
    vectors = rng.normal(size=(CELLS, width)).astype(np.float32)
    vectors[:, 0] += shift
    with h5py.File(path, "w") as file:
        file["features"] = vectors
        file.attrs["encoder"] = "dino"


def cohort(folder: Path, n: int, labels: tuple[str, str], seed: int, width: int = DIM) -> Cohort:
    """Two diagnoses whose vectors differ in one number; a file a patient."""
    rng, patients = np.random.default_rng(seed), []
    folder.mkdir(exist_ok=True)
    for i in range(n):
        path = folder / f"p{i}.h5"
        write_file(path, rng, 4.0 * (i % 2), width)
        patients.append(Patient(f"p{i}", labels[i % 2], (ImageSource(path, path.name),)))
    return Cohort("vectors", tuple(patients))


def trained(folder: Path, labels: tuple[str, str]) -> Path:
    import_vectors(cohort(folder / "in", 12, labels, 1), folder / "store")
    config = Config().with_settings(TRAINING)
    return pipeline.train(folder / "store", folder / "model", config, name="of-vectors").out


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("apl"), ("AML", "APL"))


@pytest.fixture(scope="module")
def calls(model: Path) -> PredictResult:
    fresh = cohort(model.parent / "new", 4, ("", ""), 2)
    files = [patient.images[0].path for patient in fresh.patients]
    return pipeline.predict(model, files, model.parent / "calls")


def test_the_bundle_states_whose_vectors_it_takes(model: Path) -> None:
    bundle = pipeline.load_bundle(model)
    record = bundle.manifest.encoder
    assert (record.name, record.dim, record.trained) == ("external:dino", DIM, False)
    assert "vectors by `dino` of one patient" in bundle.card
    assert "`NO_SIGNAL` is never reported" in bundle.card
    assert "min_sharpness" not in bundle.manifest.qc
    with pytest.raises(ConfigError, match=r"cannot compute from images.*--encoder dino"):
        build_encoder(bundle.config.model)


def test_files_of_the_same_encoder_are_called_each_a_patient(calls: PredictResult) -> None:
    found = {p.patient: p.state for p in calls.predictions}
    assert found == {"p0": "AML", "p1": "APL_SUSPECT", "p2": "AML", "p3": "APL_SUSPECT"}
    assert all(p.n_cells == CELLS for p in calls.predictions)
    measured = {measure.name: measure for measure in calls.predictions[0].quality}
    assert measured["distance"].value is not None
    assert measured["distance"].high is not None
    assert (measured["sharpness"].value, measured["smudge_fraction"].high) == (None, None)
    assert "vectors of dino: focus, exposure, stain and scale" in calls.scope


def test_pages_and_tables_say_that_there_are_no_pictures(calls: PredictResult) -> None:
    page = (calls.out / "patients" / "p1.html").read_text(encoding="utf-8")
    assert "Focus, exposure, stain, scale" in page
    assert "no pictures to look at" in page
    assert "<bdi>p1.h5</bdi>, cell " in page
    assert "Smudge cells" not in page
    assert not re.search(r"\bnan\b", page)
    with (calls.out / "cells.csv").open(encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4 * CELLS
    assert {row["x_px"] for row in rows} == {""}
    assert write_report(calls.out).is_file()
    with pytest.raises(ConfigError, match="came as vectors of 'dino', without pictures"):
        export_qupath(calls.out, calls.out.parent / "outlines")
    assert export_fhir(calls.out, calls.out.parent / "fhir") == 4


def test_a_store_and_a_manifest_give_the_same_calls(
    model: Path, calls: PredictResult, tmp_path: Path
) -> None:
    folder = model.parent / "new"
    rows = ["patient,label,path", *(f"p{i},,p{i}.h5" for i in range(4))]
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    manifest = pipeline.predict(model, folder / "cohort.csv", tmp_path / "manifest")
    import_vectors(pipeline.read_cohort(folder / "cohort.csv"), tmp_path / "store")
    store = pipeline.predict(model, tmp_path / "store", tmp_path / "from_store")
    wanted = {p.patient: p.probabilities for p in calls.predictions}
    for other in (manifest, store):
        assert {p.patient: p.probabilities for p in other.predictions} == wanted


def test_no_signal_needs_pictures(tmp_path: Path) -> None:
    model = trained(tmp_path, ("APL", "normal"))
    fresh = cohort(tmp_path / "new", 2, ("", ""), 2)
    files = [patient.images[0].path for patient in fresh.patients]
    done = pipeline.predict(model, files, tmp_path / "calls")
    sick, healthy = done.predictions
    assert (sick.state, sick.reasons) == ("APL_SUSPECT", ())
    assert (healthy.label, healthy.state) == ("normal", "INDETERMINATE")
    assert [reason.code for reason in healthy.reasons] == ["NO_PICTURES"]


def test_vectors_unlike_the_training_ones_are_not_called(model: Path, tmp_path: Path) -> None:
    write_file(tmp_path / "far.h5", np.random.default_rng(0), 40.0)
    done = pipeline.predict(model, tmp_path / "far.h5", tmp_path / "calls")
    codes = [reason.code for reason in done.predictions[0].reasons]
    assert "OTHER_CAMERA_OR_STAIN" in codes


def test_images_and_other_vectors_are_refused(
    model: Path, films: Path, tiny_store: Path, tmp_path: Path
) -> None:
    for images in (films, films.parent):
        with pytest.raises(ConfigError, match=r"takes vectors of 'dino', not images"):
            pipeline.predict(model, images, tmp_path / "calls")
    with pytest.raises(ConfigError, match="holds pictures of cells"):
        pipeline.predict(model, tiny_store, tmp_path / "calls")
    with pytest.raises(ConfigError, match="holds vectors, and this model takes images"):
        pipeline.predict("acute-leukaemia", model.parent / "in" / "p0.h5", tmp_path / "calls")
    other = cohort(tmp_path / "other", 2, ("A", "B"), 3)
    import_vectors(other, tmp_path / "named", "vit")
    with pytest.raises(ConfigError, match="are 'vit', and this model takes vectors of 'dino'"):
        pipeline.predict(model, tmp_path / "named", tmp_path / "calls")
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["features"] = np.random.default_rng(0).normal(size=(CELLS, DIM))
    with pytest.raises(ConfigError, match=r"do not say what computed them.*--encoder dino"):
        pipeline.predict(model, tmp_path / "plain.h5", tmp_path / "calls")
    wide = cohort(tmp_path / "wide", 1, ("A", "B"), 3, width=DIM + 1)
    done = pipeline.predict(model, wide.patients[0].images[0].path, tmp_path / "calls")
    (failure,) = done.failures
    assert (
        f"7 numbers per cell, but of-vectors 1.0.0 expects {DIM} numbers per cell"
        in failure.message
    )


def test_a_store_that_names_no_encoder_is_not_trained_on(tmp_path: Path) -> None:
    known = cohort(tmp_path / "in", 4, ("AML", "APL"), 1)
    for patient in known.patients:
        with h5py.File(patient.images[0].path, "a") as file:
            del file.attrs["encoder"]
    import_vectors(known, tmp_path / "store")
    assert Store(tmp_path / "store").encoder == "imported"
    with pytest.raises(ConfigError, match="does not say what computed its vectors"):
        pipeline.train(tmp_path / "store", tmp_path / "model")


def write_table(path: Path, seed: int, labels: tuple[str, str] | None) -> None:
    """Eight patients in one AnnData file, alternately of two diagnoses."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(8), CELLS)
    vectors = rng.normal(size=(len(owners), DIM)).astype(np.float32)
    vectors[:, 0] += 4 * (owners % 2)
    text = h5py.string_dtype("utf-8")
    with h5py.File(path, "w") as file:
        file["X"] = vectors
        file["uns/encoder"] = "dino"
        names = np.array([f"p{owner}" for owner in owners], dtype=object)
        file.create_dataset("obs/patient", data=names, dtype=text)
        if labels:
            given = np.array([labels[owner % 2] for owner in owners], dtype=object)
            file.create_dataset("obs/label", data=given, dtype=text)


def test_one_table_of_all_patients_is_imported_and_called(tmp_path: Path) -> None:
    write_table(tmp_path / "known.h5ad", 1, ("AML", "APL"))
    cohort, load = rows_of(tmp_path / "known.h5ad")
    done = import_vectors(cohort, tmp_path / "store", load=load)
    assert (done.done, done.n_cells) == (8, 8 * CELLS)
    assert not Store(tmp_path / "store").verify()
    config = Config().with_settings(TRAINING)
    model = pipeline.train(tmp_path / "store", tmp_path / "model", config).out
    write_table(tmp_path / "new.h5ad", 2, None)
    calls = pipeline.predict(model, tmp_path / "new.h5ad", tmp_path / "calls")
    assert {p.patient: p.label for p in calls.predictions} == {
        f"p{i}": ("AML", "APL")[i % 2] for i in range(8)
    }
    with pytest.raises(ConfigError, match="names its patients itself"):
        pipeline.predict(
            model, tmp_path / "new.h5ad", tmp_path / "other", pseudonyms=tmp_path / "names.csv"
        )
