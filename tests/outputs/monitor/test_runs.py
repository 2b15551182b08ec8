"""Which runs are read, in which order, and who counts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from millie.errors import DataError, MissingFileError
from millie.outputs.monitor.runs import read_series
from millie.types import Finding, Problem

MakeRun = Callable[..., Path]


def test_runs_are_sorted_by_their_time(make_run: MakeRun) -> None:
    late = make_run("a", {"p1": "AML"}, day=9)
    early = make_run("b", {"p2": "AML"}, day=2)
    (series,), problems = read_series([late, early])
    assert [run.name for run in series.runs] == [str(early), str(late)]
    assert not problems


def test_a_patient_counts_in_the_first_run_that_has_it(make_run: MakeRun) -> None:
    first = make_run("a", {"p1": "AML", "p2": "AML"}, day=1)
    second = make_run("b", {"p2": "APL_SUSPECT", "p3": "AML"}, day=2)
    (series,), problems = read_series([second, first])
    assert [{r.patient for r in run.counted} for run in series.runs] == [{"p1", "p2"}, {"p3"}]
    assert series.runs[1].repeated == ("p2",)
    assert [(p.error, p.patient, p.note) for p in problems] == [(Finding.SEEN_BEFORE, "p2", True)]


def test_the_same_cells_under_another_name_count_once(make_run: MakeRun) -> None:
    first = make_run("a", {"p1": "AML"}, day=1, seed=6)
    second = make_run("b", {"x9": "AML", "p2": "AML"}, day=2)
    shutil.copy(first / "store" / "p1.h5", second / "copy.h5")
    third = make_run("c", {"q1": "AML"}, day=3, seed=6)
    (series,), problems = read_series([first, second, third])
    assert [len(run.counted) for run in series.runs] == [1, 2, 0]
    assert f"the same cells as p1 of {first}" in problems[0].message


def test_training_patients_are_noted_and_counted(make_run: MakeRun) -> None:
    training = make_run("t", {"train-1": "AML"}, seed=7) / "store"
    run = make_run("a", {"p1": "AML"}, seed=7)
    other = make_run("b", {"p2": "AML", "train-1": "AML"}, day=2)
    (series,), problems = read_series([run, other], training)
    assert [one.trained for one in series.runs] == [("p1",), ("train-1",)]
    assert series.n_patients == 3
    assert {p.error for p in problems} == {Finding.TRAINED_ON}


def note_training(run: Path, patient: str) -> None:
    """What `predict` notes where it knows a patient's image files."""
    path = run / "predictions.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    note = Problem(patient, "", Finding.TRAINED_ON, "1 of 1 images are known", note=True)
    record["problems"] = [asdict(note)]
    path.write_text(json.dumps(record), encoding="utf-8")


def test_what_a_run_itself_knows_of_training_counts_without_a_store(make_run: MakeRun) -> None:
    first = make_run("a", {"p1": "AML", "p2": "AML"}, day=1)
    second = make_run("b", {"p2": "AML", "p3": "AML"}, day=2)
    note_training(first, "p1")
    note_training(second, "p2")
    (series,), problems = read_series([first, second])
    assert [one.trained for one in series.runs] == [("p1",), ()]
    assert ("p1", "1 of 1 images are known") in {(p.patient, p.message) for p in problems}


def test_a_run_on_the_training_store_itself(make_run: MakeRun) -> None:
    run = make_run("a", {"p1": "AML", "p2": "AML"})
    (series,), _ = read_series([run], run / "store")
    assert sorted(series.runs[0].trained) == ["p1", "p2"]
    assert series.n_patients == 2


def test_models_are_never_mixed(make_run: MakeRun) -> None:
    runs = [
        make_run("a", {"p1": "AML"}, sha256="aa" * 32),
        make_run("b", {"p1": "AML", "p2": "AML"}, sha256="bb" * 32),
    ]
    series, problems = read_series(runs)
    assert [(one.model.sha256[:2], one.n_patients) for one in series] == [("bb", 2), ("aa", 1)]
    assert not problems


def test_a_run_named_twice_or_copied_counts_once(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("a", {"p1": "AML"})
    shutil.copytree(run, tmp_path / "copy")
    (series,), problems = read_series([run, run / ".." / "a", tmp_path / "copy"])
    assert len(series.runs) == 1
    assert [p.message for p in problems] == [f"the same run as {run}: counted once"] * 2


def _edited(run: Path, **fields: object) -> None:
    path = run / "predictions.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_what_cannot_be_used_is_named_and_the_rest_goes_on(
    make_run: MakeRun, study_folder: Path, tmp_path: Path
) -> None:
    good, none, when = (make_run(name, {"p1": "AML"}) for name in ("good", "none", "when"))
    _edited(none, patients=[])
    _edited(when, created="yesterday")
    (tmp_path / "empty").mkdir()
    (study_folder / "splits.json").touch()
    bad = [none, when, tmp_path / "empty", study_folder, tmp_path / "gone", tmp_path]
    (series,), problems = read_series([*bad, good])
    assert [run.name for run in series.runs] == [str(good)]
    told = " | ".join(p.message for p in problems)
    for words in (
        "calls of 0 patients", "time 'yesterday'", "is empty: name the --out folder",
        "holds a cross-validation, not calls", "is not a folder",
        "holds runs, but is none itself: name them",
    ):  # fmt: skip
        assert words in told
    assert not any(p.note for p in problems)


def test_where_nothing_can_be_used_the_first_error_is_raised(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty"):
        read_series([tmp_path / "empty", tmp_path / "gone"])
    with pytest.raises(MissingFileError, match="is not a folder"):
        read_series([tmp_path / "gone"])
    with pytest.raises(DataError, match="no run is named"):
        read_series([])


def test_runs_with_other_settings_are_kept_apart_and_named(make_run: MakeRun) -> None:
    changed = {"prediction.operating_point": "specific", "prediction.batch_size": 8}
    first = make_run("a", {"p1": "AML", "p2": "AML"}, settings={"prediction.batch_size": 2})
    second = make_run("b", {"p1": "AML"}, day=2, settings=changed)
    plain = make_run("c", {"p3": "AML", "p4": "AML"}, day=3)
    series, problems = read_series([first, second, plain])
    assert [[run.name for run in one.runs] for one in series] == [
        [str(first), str(plain)], [str(second)]
    ]  # fmt: skip
    assert [one.title for one in series] == [
        "apl-blood 0.1.0", "apl-blood 0.1.0 (prediction.operating_point=specific)"
    ]  # fmt: skip
    assert not problems
