"""Cross-validation end to end on a small store: files, honesty, resumption."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from millie.config import Config, load
from millie.errors import ConfigError, TrainingError
from millie.evaluation import folds as folds_module
from millie.evaluation.crossval import StudyResult, crossval
from millie.evaluation.folds import read_fold
from millie.learning.ensemble import Material
from millie.learning.sampling import EmbeddedCells, StoredCells, whole_bag
from millie.learning.splits import load_splits

if TYPE_CHECKING:
    from collections.abc import Callable

    from millie.bags.store import Store
    from millie.models.encoder import Encoder

TABLES = ("predictions.csv", "cells.csv", "pca.csv", "winners.csv", "splits.json", "metrics.json")


class KilledError(Exception):
    """Stands for kill -9."""


@pytest.fixture(scope="module")
def config() -> Config:
    return Config().with_settings([
        "model.hidden=[8]", "model.dropout=0", "training.optimiser=adamw",
        "training.learning_rate=0.03", "training.max_epochs=6", "training.ensemble=2",
        "training.validation_fraction=0", "evaluation.folds=2", "evaluation.repeats=2",
        "evaluation.bootstrap=100", "model.aggregator=max", "training.weight_decay=0.01",
    ])  # fmt: skip


@pytest.fixture(scope="module")
def finished(
    toy_store: Store,
    toy_material: Material,
    config: Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> StudyResult:
    out = tmp_path_factory.mktemp("cv")
    return crossval(toy_store, config, out, material=toy_material)


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text("utf-8-sig").splitlines()))


def test_planted_cells_are_found(finished: StudyResult) -> None:
    assert finished.metrics["headline"]["auc"]["value"] > 0.9
    assert finished.metrics["cells"]["target"] == "promyelocyte"
    assert finished.metrics["cells"]["auc"]["value"] > 0.9


def test_files_have_their_columns_and_rows(finished: StudyResult) -> None:
    predictions = rows(finished.out / "predictions.csv")
    assert list(predictions[0]) == [
        "patient", "label", "repeat", "fold", "probability_AML", "probability_APL", "threshold",
        "call", "n_cells",
    ]  # fmt: skip
    assert len(predictions) == 12 * 2
    cells = rows(finished.out / "cells.csv")
    assert list(cells[0]) == [
        "patient", "cell", "source", "x_px", "y_px", "cell_label", "smudge", "repeat",
        "probability_AML", "probability_APL",
    ]  # fmt: skip
    assert len(cells) == sum(int(r["n_cells"]) for r in predictions if r["repeat"] == "0")
    assert {r["repeat"] for r in cells} == {"0"}
    points = rows(finished.out / "pca.csv")
    assert list(points[0]) == ["patient", "cell", "label", "cell_label", "pc1", "pc2"]
    assert len(points) == len(cells)
    winners = rows(finished.out / "winners.csv")
    assert list(winners[0]) == ["patient", "class", "cell", "contribution", "features"]
    assert load(finished.out / "config.toml").digest()
    assert json.loads((finished.out / "progress.json").read_text()) == {"done": 4, "total": 4}


def test_probabilities_sum_to_one_and_calls_follow_the_threshold(
    finished: StudyResult,
) -> None:
    for row in rows(finished.out / "predictions.csv"):
        apl = float(row["probability_APL"])
        assert apl + float(row["probability_AML"]) == pytest.approx(1)
        assert (row["call"] == "APL") == (apl >= float(row["threshold"]))


def test_metrics_hold_every_part(finished: StudyResult) -> None:
    metrics = json.loads((finished.out / "metrics.json").read_text())
    assert metrics["classes"] == ["AML", "APL"]
    assert metrics["positive"] == "APL"
    assert metrics["n_by_class"] == {"AML": 6, "APL": 6}
    assert np.sum(metrics["confusion"]) == 12
    for estimate in metrics["headline"].values():
        assert estimate["low"] <= estimate["value"] <= estimate["high"]
        assert estimate["method"]
    assert len(metrics["per_fold"]) == 4
    assert metrics["fold_spread"]["auc"]["sd"] >= 0
    assert sum(b["n"] for b in metrics["calibration"]["bins"]) == 12
    assert metrics["without_smudge"]["n_patients_with_smudge"] == 12
    assert "2-fold" in metrics["protocol"][0]
    assert {"millie", "torch", "numpy", "platform", "cores"} <= metrics["environment"].keys()
    assert "NaN" not in (finished.out / "metrics.json").read_text()
    assert any("ROC AUC" in line for line in finished.lines())


def test_saved_splits_are_those_that_were_used(finished: StudyResult) -> None:
    splits = load_splits(finished.out / "splits.json")
    assert splits == finished.splits
    tested = {
        (r["patient"], r["repeat"], r["fold"]) for r in rows(finished.out / "predictions.csv")
    }
    expected = {(p, str(f.repeat), str(f.fold)) for f in splits.assignments for p in f.test}
    assert tested == expected


def test_a_second_run_reads_all_folds_and_writes_the_same_bytes(
    finished: StudyResult, toy_store: Store, toy_material: Material, config: Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    before = {name: (finished.out / name).read_bytes() for name in TABLES}
    monkeypatch.setattr(folds_module, "run_fold", lambda *_: pytest.fail("a fold was run again"))
    crossval(toy_store, config, finished.out, material=toy_material)
    assert before == {name: (finished.out / name).read_bytes() for name in TABLES}


@pytest.mark.parametrize("after", ["an epoch", "a fold"])
def test_killed_and_run_again_gives_the_same_bytes(
    finished: StudyResult, toy_store: Store, toy_material: Material, config: Config,
    tmp_path: Path, after: str,
) -> None:  # fmt: skip
    def kill(what: str, done: int, _total: int) -> None:
        if after == "a fold" and (what, done) == ("folds", 2):
            raise KilledError
        folds_done = len(list((tmp_path / "folds").glob("*.json")))
        if after == "an epoch" and folds_done == 1 and (what, done) == ("network-1", 3):
            raise KilledError

    with pytest.raises(KilledError):
        crossval(toy_store, config, tmp_path, kill, material=toy_material)
    assert not (tmp_path / "metrics.json").exists()
    crossval(toy_store, config, tmp_path, material=toy_material)
    for name in TABLES:
        if name != "metrics.json":
            assert (tmp_path / name).read_bytes() == (finished.out / name).read_bytes()
    assert not list(tmp_path.rglob("*.checkpoint.safetensors"))


def test_a_changed_setting_or_a_damaged_fold_is_run_again(
    finished: StudyResult, toy_store: Store, toy_material: Material, config: Config,
    tmp_path: Path,
) -> None:  # fmt: skip
    crossval(toy_store, config, tmp_path, material=toy_material)
    path = tmp_path / "folds" / "r0-f0.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    digest = json.loads((tmp_path / "folds" / "r0-f0.json").read_text())["digest"]
    assert read_fold(tmp_path / "folds", "r0-f0", digest) is None
    assert read_fold(tmp_path / "folds", "r0-f1", digest) is None
    assert read_fold(tmp_path / "folds", "r9-f9", digest) is None
    crossval(toy_store, config, tmp_path, material=toy_material)
    assert (tmp_path / "cells.csv").read_bytes() == (finished.out / "cells.csv").read_bytes()
    slower = config.with_settings(["training.learning_rate=0.001"])
    crossval(toy_store, slower, tmp_path, material=toy_material)
    assert (tmp_path / "cells.csv").read_bytes() != (finished.out / "cells.csv").read_bytes()


def test_test_patients_do_not_influence_their_fold(
    toy_store: Store, toy_material: Material, config: Config, tmp_path: Path
) -> None:
    """Other cells of a fold's test patients: threshold, temperature and epochs stay the same."""
    once = config.with_settings(["evaluation.repeats=1"])
    first = crossval(toy_store, once, tmp_path / "a", material=toy_material)
    source = toy_material.source
    test = first.splits.assignments[0].test
    rng = np.random.default_rng(0)
    features = {}
    for patient in first.splits.assignments[0].train + test:
        own = source.cells(patient, whole_bag(source, patient).indices).numpy()
        features[patient] = rng.normal(size=own.shape) if patient in test else own
    other = Material(EmbeddedCells(features), toy_material.dim)
    second = crossval(toy_store, once, tmp_path / "b", material=other)
    for name in ("threshold", "temperature", "best_epochs"):
        assert first.metrics["per_fold"][0][name] == second.metrics["per_fold"][0][name]
    assert first.metrics["per_fold"][0]["auc"] != second.metrics["per_fold"][0]["auc"]


def test_one_network_uses_the_validation_part_of_the_splits_file(
    toy_store: Store, toy_material: Material, config: Config, tmp_path: Path
) -> None:
    one = config.with_settings([
        "training.ensemble=1", "training.validation_fraction=0.4", "evaluation.repeats=1",
    ])  # fmt: skip
    result = crossval(toy_store, one, tmp_path, material=toy_material)
    held_out = [
        json.loads((tmp_path / "folds" / f"{f.name}.json").read_text())["held_out"]
        for f in result.splits.assignments
    ]
    assert [list(f.validation) for f in result.splits.assignments] == [h[0] for h in held_out]
    assert all(len(f.validation) == 2 for f in result.splits.assignments)
    assert "early stopping" in result.metrics["protocol"][1]


def test_end_to_end_mode_runs_on_crops(
    toy_store: Store, tiny_encoder: Callable[[], Encoder], config: Config, tmp_path: Path
) -> None:
    short = config.with_settings([
        "training.mode=end_to_end", "training.max_epochs=1", "evaluation.repeats=1",
        "training.ensemble=1",
    ])  # fmt: skip
    material = Material(StoredCells(toy_store), 6, lambda _seed: tiny_encoder())
    result = crossval(toy_store, short, tmp_path, material=material)
    points = rows(tmp_path / "pca.csv")
    assert {r["patient"] for r in points} == set(result.splits.assignments[0].test)
    assert result.metrics["pca"]["space"].startswith("test cells of the first fold")


def test_frozen_embeddings_are_made_from_the_store(
    toy_store: Store, config: Config, tmp_path: Path
) -> None:
    small = config.with_settings([
        "model.encoder=tiny", "model.pretrained=false", "prediction.runtime=torch",
        "evaluation.repeats=1", "training.max_epochs=2",
    ])  # fmt: skip
    steps: list[tuple[str, int, int]] = []
    crossval(toy_store, small, tmp_path, lambda *step: steps.append(step))
    assert ("embed", 12, 12) in steps
    assert ("folds", 2, 2) in steps
    assert list((toy_store.root / "embeddings").glob("*/*.h5"))


def test_too_many_folds_are_refused(
    toy_store: Store, toy_material: Material, config: Config, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="too few patients for 7 folds"):
        crossval(
            toy_store, config.with_settings(["evaluation.folds=7"]), tmp_path, material=toy_material
        )


def test_an_unknown_positive_class_is_refused(
    toy_store: Store, toy_material: Material, config: Config, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="positive='CML'"):
        crossval(
            toy_store, config.with_settings(["evaluation.positive=CML"]), tmp_path,
            material=toy_material,
        )  # fmt: skip
