"""What is damaged, missing or disagrees is named; what is whole is called whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from millie.bags.store import Store
from millie.config import Config
from millie.errors import BundleError, ConfigError, MissingFileError, MissingWeightsError
from millie.models.bundle import Bundle
from millie.models.bundle_folder import locate
from millie.outputs.report import rewrite_report
from millie.outputs.result_folder import read_record, record_files
from millie.pipeline.verify import Verified, verify

from ..outputs.conftest import SIZE_PX, make_bag, make_prediction, run_folder, store, study_folder

__all__ = ["make_bag", "make_prediction", "run_folder", "store", "study_folder"]


MODEL = "version 1.0.0, 6 files, golden sample reproduced, weights of its encoder as named"
OLD = "of a version that kept no checksums: tables compared only"


@pytest.fixture
def calls(run_folder: Path, store: Store) -> Path:
    store.describe("films", Config().with_settings([f"crops.size_px={SIZE_PX}"]))
    return run_folder


def found(*things: Path | str) -> list[Verified]:
    return list(verify([str(thing) for thing in things]))


def test_what_is_whole_is_one_line_each(calls: Path, study_folder: Path) -> None:
    lines = [one.line() for one in found("apl-blood", calls / "store", calls, study_folder)]
    assert lines == [
        f"whole    model  apl-blood: {MODEL}",
        f"whole    store  {calls / 'store'}: 3 bags",
        f"whole    calls  {calls}: 4 patients, {OLD}",
        f"whole    study  {study_folder}: 6 patients, 0 folds, {OLD}",
    ]


def test_a_flipped_bit_of_a_bag_damages_its_store_and_its_run(calls: Path) -> None:
    path = calls / "store" / "p1.h5"
    data = bytearray(path.read_bytes())
    data[data.index(b'"label"') + 2] ^= 1
    path.write_bytes(data)
    for one in found(calls / "store", calls):
        (problem,) = one.problems
        assert problem.source == "p1.h5"
        assert "has changed since it was written" in problem.message
        assert one.line().endswith(": 1 fault")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("predictions.csv", "0.9,", "0.8,", "differ for 'p1'"),
        ("predictions.csv", "NO_SIGNAL", "AML", "differ for 'p2'"),
        ("predictions.csv", "0.525,", "0.625,", "differ for 'p3'"),
        ("predictions.csv", "TOO_FEW_CELLS", "OUT_OF_FOCUS", "differ for 'p3'"),
        ("predictions.json", "APL_SUSPECT", "NO_SIGNAL", "differ for 'p1'"),
        ("predictions.json", "{", "[", "not valid JSON"),
        ("cells.csv", "p3,", "p5,", "differ for 'p3'"),
        ("patients/p2.html", None, "", "is missing"),
        ("overlays/p1/slide_im0.jpg", None, "", "is missing"),
        (".millie/record.json", "[", "{", "is damaged"),
    ],
)
def test_results_that_were_changed_are_named(
    calls: Path, name: str, old: str | None, new: str, message: str
) -> None:
    picture = next(calls.glob("overlays/*/*.jpg")).relative_to(calls).as_posix()
    (calls / ".millie").mkdir()
    (calls / ".millie" / "record.json").write_text(json.dumps({"schema": 1, "files": [picture]}))
    path = calls / (picture if "overlays" in name else name)
    if old is None:
        path.unlink()
    else:
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
    (one,) = found(calls)
    assert message in " ".join(problem.message for problem in one.problems)


def test_a_flipped_bit_in_any_recorded_file_is_noticed(calls: Path, study_folder: Path) -> None:
    """Pages and pictures too, which no table is compared with."""
    (study_folder / "folds").mkdir()
    (study_folder / "folds" / "a.json").write_text("{}")
    rng = np.random.default_rng(0)
    for folder, kind in ((calls, "calls"), (study_folder, "study")):
        record_files(
            folder, kind, ["*.csv", "*.json", "*.html", "**/*.html", "**/*.jpg", "folds/*"]
        )
        record = read_record(folder)
        assert not list(record.changed(folder))
        assert OLD not in found(folder)[0].line()
        for name in record.files:
            path = folder / name
            data = bytearray(path.read_bytes())
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
            path.write_bytes(data)
        (one,) = found(folder)
        assert one.problems
        assert dict(record.changed(folder)) == dict.fromkeys(record.files, "changed")


def test_a_changed_page_is_named_with_what_to_do(calls: Path) -> None:
    record_files(calls, "calls", ["patients/*.html", "predictions.json"])
    page = calls / "patients" / "p2.html"
    page.write_text(page.read_text(encoding="utf-8").replace("p2", "p3"), encoding="utf-8")
    (one,) = found(calls)
    assert [(p.source, p.message) for p in one.problems] == [
        ("patients/p2.html", "has changed since it was written; predict again")
    ]
    rewrite_report(calls)
    assert found(calls)[0].problems == ()


def test_a_damaged_fold_is_named(study_folder: Path) -> None:
    (study_folder / "folds").mkdir()
    (study_folder / "folds" / "a.json").write_text(json.dumps({"arrays_sha256": "0" * 64}))
    (one,) = found(study_folder)
    assert one.problems[0].source == "a.safetensors"


def test_a_model_without_a_file_or_with_a_flipped_bit_is_damaged(tmp_path: Path) -> None:
    model = shutil.copytree(locate("apl-blood"), tmp_path / "m")
    data = bytearray((model / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (model / "weights.safetensors").write_bytes(data)
    assert "weights.safetensors was altered" in found(model)[0].problems[0].message
    (model / "bundle.json").unlink()
    assert "bundle.json is missing" in found(model)[0].problems[0].message


def test_a_name_that_is_none_of_these_is_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="does not exist"):
        verify(["apl-blood", str(tmp_path / "none")])
    with pytest.raises(ConfigError, match="is no bag store, no model"):
        verify([str(tmp_path)])


def test_a_bag_of_other_crops_than_its_store_states_is_named(calls: Path) -> None:
    folder = calls / "store"
    config = Store(folder).description.config.with_settings(["crops.size_px=17"])
    Store(folder).describe("films", config)
    (one,) = found(folder)
    assert len(one.problems) == 3
    assert "holds crops of (" in one.problems[0].message
    assert "store.json states (17, " in one.problems[0].message


def test_an_encoder_with_other_weights_is_named_and_a_missing_one_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = shipped_like(monkeypatch, MissingWeightsError("not here"))
    assert model.problems == ()
    assert model.line().endswith(
        "its encoder's weights are not on this machine and were not checked"
    )
    model = shipped_like(monkeypatch, BundleError("other weights"))
    assert model.line() == "damaged  model  apl-blood: 1 fault"


def shipped_like(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Verified:
    """What is found of a shipped model whose encoder is not as it was."""

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(Bundle, "encoders", fails)
    return found("apl-blood")[0]
