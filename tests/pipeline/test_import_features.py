"""Vectors of another encoder, evaluated like our own; what needs pictures says so."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from millie import pipeline
from millie.bags.store import BagReader, Store
from millie.config import Config
from millie.errors import ConfigError, DataError, StoreError
from millie.pipeline.import_features import import_vectors
from millie.types import Cohort, Finding

DIM = 6
STUDY = [
    "model.aggregator=mean", "training.max_epochs=15", "training.ensemble=1",
    "evaluation.bootstrap=100", "evaluation.folds=2",
]  # fmt: skip


def write_cohort(folder: Path, n: int = 8, width: int = DIM) -> Path:
    """Two diagnoses whose vectors differ in one number; a file a patient."""
    rng = np.random.default_rng(1)
    rows = ["patient,label,path"]
    folder.mkdir(exist_ok=True)
    for i in range(n):
        label = "APL" if i % 2 else "AML"
        vectors = rng.normal(size=(8, width)).astype(np.float32)
        vectors[:, 0] += 4 * (i % 2)
        with h5py.File(folder / f"{i}.h5", "w") as file:
            file["features"] = vectors
            file.create_dataset("coords", data=np.arange(16).reshape(8, 2))
        rows.append(f"p{i},{label},{i}.h5")
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    return folder / "cohort.csv"


def cohort_of(manifest: Path) -> Cohort:
    return pipeline.read_cohort([manifest])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    done = import_vectors(cohort_of(write_cohort(folder / "in")), folder / "store", "dino")
    assert (done.done, done.n_cells, done.problems) == (8, 64, ())
    return folder / "store"


def test_bags_hold_the_vectors_and_are_whole(store: Path) -> None:
    assert not Store(store).verify()
    assert Store(store).encoder == "dino"
    with BagReader(Store(store).path_of("p3")) as bag, h5py.File(store.parent / "in/3.h5") as file:
        np.testing.assert_array_equal(bag.vectors(), file["features"][:])
        assert (bag.label, bag.n_cells, bag.sources[0].name) == ("APL", 8, "3.h5")
        assert (bag.cells[2].x_px, bag.cells[2].y_px) == (4, 5)
        for pictures in (bag.rings, lambda: bag.images(0, 1), lambda: bag.masks(0, 1)):
            with pytest.raises(StoreError, match="no pictures"):
                pictures()


def test_they_are_cross_validated_with_all_controls_that_need_no_picture(
    store: Path, tmp_path: Path
) -> None:
    config = Config().with_settings(STUDY)
    study = pipeline.crossval(store, tmp_path / "study", config, controls=True)
    assert study.figures["auc"].value > 0.9
    metrics = json.loads((tmp_path / "study" / "metrics.json").read_text())
    told = " ".join(metrics["protocol"])
    assert "computed elsewhere (dino)" in told
    assert "types of normal cells" not in told, "that is our encoder's"
    names = {control.name for control in study.controls}
    assert names == {
        "bag_size", "shuffled_labels", "leave_one_source_out", "source_probe", "mature_cells",
    }  # fmt: skip
    assert study.report.is_file()


def test_what_needs_pictures_says_so(store: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this model takes images"):
        pipeline.predict(bundle, store, tmp_path / "calls")
    config = Config().with_settings([*STUDY, "training.mode=end_to_end"])
    with pytest.raises(ConfigError, match=r"training\.mode must be frozen"):
        pipeline.crossval(store, tmp_path / "study", config)


def test_vectors_under_two_diagnoses_stop_it(tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path / "in", 4)
    (tmp_path / "in" / "1.h5").write_bytes((tmp_path / "in" / "0.h5").read_bytes())
    with pytest.raises(DataError, match=r"8 of its 8 vectors are in patient p0 too"):
        import_vectors(cohort_of(manifest), tmp_path / "store")
    assert {path.name for path in tmp_path.iterdir()} == {"in"}, "no half of a store is left"
    write_cohort(tmp_path / "again", 4)
    (tmp_path / "again" / "2.h5").write_bytes((tmp_path / "again" / "0.h5").read_bytes())
    done = import_vectors(cohort_of(tmp_path / "again" / "cohort.csv"), tmp_path / "two")
    assert [(p.patient, p.error, p.note) for p in done.problems] == [
        ("p2", Finding.SAME_CELL, True)
    ]


def test_a_bad_file_costs_its_patient_and_another_encoder_stops_it(tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path / "in", 4)
    (tmp_path / "in" / "1.h5").write_text("no HDF5")
    done = import_vectors(cohort_of(manifest), tmp_path / "store")
    assert list(done.cells) == ["p0", "p2", "p3"]
    assert [(p.patient, p.fatal) for p in done.failures] == [("p1", True)]
    with pytest.raises(ConfigError, match="exists"):
        import_vectors(cohort_of(manifest), tmp_path / "store")
    with h5py.File(tmp_path / "in" / "2.h5", "w") as file:
        file["features"] = np.ones((3, DIM + 1))
    with pytest.raises(ConfigError, match="several kinds"):
        import_vectors(cohort_of(manifest), tmp_path / "other")
