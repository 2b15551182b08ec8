"""Two versions of a model on the same patients: who is compared, what is told, what is refused."""

from __future__ import annotations

import csv
import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.torch import load_file, save

from millie import pipeline
from millie.cli import commands as cli
from millie.errors import ConfigError
from millie.models import manifest as layout
from millie.models.bundle import load_bundle
from millie.models.bundle_folder import file_record, read_settings
from millie.models.restate import restate_bundle
from millie.models.versions import Digit
from millie.pipeline.compare_models import (
    COLUMNS,
    PatientPair,
    _figures,
    _question,
    compare_models,
)
from millie.statistics.metrics import roc_auc
from millie.synthetic import CohortConfig, FilmConfig
from millie.synthetic.cohort import write_configured_cohort

if TYPE_CHECKING:
    from pathlib import Path

    from millie.config import Config


@pytest.fixture(scope="module")
def newer(tiny_store: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained again for longer, with a higher version."""
    config = tiny_config.with_settings(["training.max_epochs=9"])
    out = tmp_path_factory.mktemp("newer") / "tiny"
    return pipeline.train(tiny_store, out, config, version="1.1.0").out


@pytest.fixture(scope="module")
def fresh(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of patients that no model has seen, some of a class that they do not know."""
    folder = tmp_path_factory.mktemp("fresh")
    drawn = CohortConfig(
        n_per_class=5, seed=77, cells_per_patient=6, cells_per_field=(6, 6),
        labels=("normal", "APL", "ALL"), film=FilmConfig(width_px=512, height_px=400),
    )  # fmt: skip
    films = write_configured_cohort(folder / "films", drawn)
    pipeline.segment(pipeline.read_cohort([films]), folder / "store", tiny_config)
    return folder / "store"


def test_figures_are_those_of_both_models_own_calls(
    bundle: Path, newer: Path, fresh: Path, tmp_path: Path
) -> None:
    found = compare_models(bundle, newer, fresh, tmp_path / "out")
    assert len(found.patients) == 10
    assert found.figures["sensitivity"].n == found.figures["specificity"].n == 5
    assert "left out with label 'ALL', which is not one of both models: 5" in found.warnings
    calls = [pipeline.predict(m, fresh, tmp_path / m.parent.name) for m in (bundle, newer)]
    for side, run in enumerate(calls):
        said = {p.patient: p for p in run.predictions}
        for pair in found.patients:
            assert pair.probabilities[side] == said[pair.patient].probabilities["APL"]
            assert pair.states[side] == said[pair.patient].state
    truth = np.array([pair.label == "APL" for pair in found.patients])
    p = np.array([pair.probabilities for pair in found.patients])
    auc = found.figures["auc"]
    assert (auc.old, auc.new) == (roc_auc(truth, p[:, 0]), roc_auc(truth, p[:, 1]))
    threshold = load_bundle(newer).manifest.threshold
    assert found.figures["sensitivity"].new == np.mean(p[truth, 1] >= threshold)
    assert found.figures["specificity"].new == np.mean(p[~truth, 1] < threshold)


def test_lost_is_what_the_old_model_alone_had_right() -> None:
    """Of each rate among its own patients; a lost APL is called no more, a lost other one is."""
    calls = {"APL": [(1, 0)] * 3 + [(0, 1)], "AML": [(0, 1)] * 5 + [(1, 0)] * 2 + [(0, 0)] * 4}
    pairs = [
        PatientPair("p", label, (a * 0.5, b * 0.5), (bool(a), bool(b)), ("", ""), "")
        for label, own in calls.items()
        for a, b in own
    ]
    found = _figures(pairs, "APL", 0.05, 0.1)
    sensitivity, specificity = found["sensitivity"], found["specificity"]
    assert (sensitivity.n, sensitivity.lost, sensitivity.gained) == (4, 3, 1)
    assert (specificity.n, specificity.lost, specificity.gained) == (11, 5, 2)
    assert found["auc"].old > found["auc"].new
    assert _figures([p for p in pairs if p.label == "APL"], "APL", 0.05, 0.1) == {}


def test_what_is_written_is_what_was_found(
    bundle: Path, newer: Path, fresh: Path, tmp_path: Path
) -> None:
    found = compare_models(bundle, newer, fresh, tmp_path / "out", rate_margin=0.2)
    content = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert content["verdict"] == found.verdict == "not shown"
    assert content["figures"]["sensitivity"]["margin"] == 0.2
    assert (content["digit"], content["version_needed"]) == ("MINOR", "1.1.0")
    assert content["version_enough"] is True
    assert content["models"]["new"]["sha256"] == load_bundle(newer).sha256
    with (tmp_path / "out" / "patients.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["patient"] for row in rows] == [pair.patient for pair in found.patients]
    assert "5 patients; this margin needs 16 or more" in " ".join(found.lines())
    assert found.lines()[-1] == "This is a MINOR change: version 1.1.0 or higher; 1.1.0 is enough"


def test_a_version_that_is_too_low_is_told(
    bundle: Path, newer: Path, fresh: Path, tmp_path: Path
) -> None:
    found = compare_models(newer, bundle, fresh, tmp_path / "out")
    assert not found.enough
    assert found.lines()[-1].endswith("version 1.2.0 or higher; 1.0.0 is too low")


def test_patients_that_trained_a_model_are_left_out(
    bundle: Path, newer: Path, tiny_store: Path, tmp_path: Path
) -> None:
    found = compare_models(bundle, newer, tiny_store, tmp_path / "out")
    assert {pair.trained for pair in found.patients} == {"old new"}
    assert found.figures == {}
    assert found.verdict == "not shown"
    told = " ".join(found.warnings)
    assert "12 of 12 patients trained tiny 1.0.0" in told
    assert "12 of 12 patients trained tiny 1.1.0" in told
    assert "0 patients are left, of one class or none" in told


def test_a_model_that_keeps_no_list_of_its_images_is_named(
    bundle: Path, newer: Path, tiny_store: Path, tmp_path: Path
) -> None:
    manifest, _ = read_settings(newer)
    silent = tmp_path / "silent"
    silent.mkdir()
    contents = {path.name: path.read_bytes() for path in newer.iterdir()}
    reference = load_file(newer / layout.REFERENCE)
    del reference["images"]
    contents[layout.REFERENCE] = save(reference)
    files = {**manifest.files, layout.REFERENCE: file_record(contents[layout.REFERENCE])}
    contents[layout.MANIFEST] = layout.to_bytes(manifest.model_copy(update={"files": files}))
    for name, data in contents.items():
        (silent / name).write_bytes(data)
    found = compare_models(silent, newer, tiny_store, tmp_path / "out")
    assert "tiny 1.1.0 keeps no list of the images that it was trained on" in found.warnings[0]
    assert {pair.trained for pair in found.patients} == {"new"}


def test_a_change_of_text_alone_is_non_inferior_however_few_the_patients(
    bundle: Path, fresh: Path, tmp_path: Path
) -> None:
    (tmp_path / "card.md").write_text("# Clearer\n", encoding="utf-8")
    restate_bundle(bundle, tmp_path / "new", "1.0.1", card=tmp_path / "card.md")
    found = compare_models(bundle, tmp_path / "new", fresh, tmp_path / "out")
    assert (found.digit, found.verdict, found.enough) == (Digit.PATCH, "non-inferior", True)
    assert "10 patients, the same calls to the last digit" in found.lines()[0]
    again = compare_models(bundle, bundle, fresh, tmp_path / "again")
    assert again.lines()[-1] == "The models do not differ: no new version is needed."


def test_the_new_model_may_read_a_store_of_its_own(
    bundle: Path, newer: Path, fresh: Path, tiny_config: Config, tmp_path: Path
) -> None:
    other = tiny_config.with_settings(["crops.size_px=48"])
    films = fresh.parent / "films" / "manifest.csv"
    pipeline.segment(pipeline.read_cohort([films]), tmp_path / "cut", other)
    with pytest.raises(ConfigError, match="crops of 48 px") as told:
        compare_models(bundle, newer, tmp_path / "cut", tmp_path / "out")
    assert "--new-store" in told.value.__notes__[0]
    assert not (tmp_path / "out").exists()
    pipeline.segment(pipeline.read_cohort([films]), tmp_path / "same", tiny_config)
    one = compare_models(bundle, newer, fresh, tmp_path / "one")
    two = compare_models(bundle, newer, fresh, tmp_path / "two", new_store=tmp_path / "same")
    assert one.patients == two.patients


def test_models_with_other_questions_are_refused(bundle: Path) -> None:
    manifest, config = read_settings(bundle)
    other = manifest.model_copy(update={"positive": "normal"}), config
    with pytest.raises(ConfigError, match=r"asks for APL, tiny 1\.0\.0 for normal"):
        _question((manifest, config), other)


def test_nothing_is_overwritten_and_no_margin_is_none(
    bundle: Path, newer: Path, fresh: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="exists; name a new folder"):
        compare_models(bundle, newer, fresh, tmp_path)
    with pytest.raises(ConfigError, match="margin of rates 0: expected more than 0"):
        compare_models(bundle, newer, fresh, tmp_path / "out", rate_margin=0)


def test_the_command_ends_with_what_a_script_can_read(
    bundle: Path, newer: Path, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["millie", "models", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    both = ["compare", str(bundle), str(newer), "--store", str(fresh)]
    assert run(*both, "--out", str(tmp_path / "a")) == 3
    assert "Sensitivity" in capsys.readouterr().out
    new = str(tmp_path / "new")
    assert run("restate", str(bundle), "--model-version", "1.0.1", "--out", new) == 0
    assert capsys.readouterr().out == f"tiny 1.0.1 -> {new}\n"
    words = ["compare", str(bundle), new, "--store", str(fresh), "--out", str(tmp_path / "b")]
    assert run(*words) == 0
    assert "Specificity" in capsys.readouterr().out
    assert run(*words) == 2
