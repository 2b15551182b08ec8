from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from millie.bags.store import Store
from millie.errors import DataError, MissingFileError
from millie.outputs.patient.records import ModelFacts
from millie.outputs.patient.tables import (
    read_cell_probabilities,
    read_predictions,
    write_predictions,
)
from millie.outputs.tables import read_csv, read_json
from millie.types import Prediction, Problem

from ..conftest import CARD, CREATED, TOO_FEW, MakeBag, MakePrediction

MODEL = ModelFacts.from_card(CARD)


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.reader(stream))


def test_columns_are_those_that_others_rely_on(run_folder: Path) -> None:
    assert rows_of(run_folder / "predictions.csv")[0] == [
        "patient", "state", "reasons", "codes", "label", "probability_AML", "probability_APL",
        "low_AML", "low_APL", "high_AML", "high_APL", "n_cells", "model", "model_sha256",
    ]  # fmt: skip
    assert rows_of(run_folder / "cells.csv")[0] == [
        "patient", "source", "x_px", "y_px", "probability_AML", "probability_APL", "looks_like",
    ]  # fmt: skip


def test_one_row_a_patient_failed_ones_included(run_folder: Path) -> None:
    rows = {row["patient"]: row for row in read_csv(run_folder / "predictions.csv")}
    assert list(rows) == ["p2", "p3", "p1", "p4"]
    assert rows["p4"]["state"] == "FAILED"
    assert "take other fields" in rows["p4"]["reasons"]
    assert rows["p4"]["probability_APL"] == ""
    assert rows["p1"]["model"] == "apl-blood 0.1.0"
    assert (rows["p3"]["reasons"], rows["p3"]["codes"]) == (TOO_FEW.text, TOO_FEW.code)
    assert (rows["p3"]["low_APL"], rows["p3"]["high_APL"]) == ("0.384375", "0.525")
    assert (rows["p4"]["codes"], rows["p4"]["low_APL"]) == ("", "")


def test_one_row_a_cell_in_bag_order(run_folder: Path) -> None:
    rows = [row for row in read_csv(run_folder / "cells.csv") if row["patient"] == "p1"]
    assert [row["x_px"] for row in rows] == ["60.0", "110.0", "160.0", "210.0", "260.0", "310.0"]
    assert {row["source"] for row in rows} == {"slide/im0.jpg"}
    scores = read_cell_probabilities(run_folder, MODEL)["p1"]
    np.testing.assert_allclose(scores[:, 1], np.linspace(0.05, 0.95, 6), atol=1e-6)


def test_types_of_cells_are_kept_and_counted(
    tmp_path: Path, make_bag: MakeBag, make_prediction: MakePrediction
) -> None:
    looks = ("monocyte", "monocyte", "lymphocyte", "monocyte", "basophil", "lymphocyte")
    one = replace(make_prediction(), cell_types=looks)
    write_predictions(tmp_path / "run", MODEL, [one], make_bag("p1"), created=CREATED)
    assert [row["looks_like"] for row in read_csv(tmp_path / "run" / "cells.csv")] == list(looks)
    (read,) = read_predictions(tmp_path / "run").patients
    assert read.cell_types == {"basophil": 1, "lymphocyte": 2, "monocyte": 3}


def test_a_run_of_an_earlier_version_without_types_is_read(run_folder: Path) -> None:
    path = run_folder / "predictions.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for one in content["patients"]:
        del one["cell_types"]
        for winners in one["winners"].values():
            for winner in winners:
                del winner["looks_like"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert all(one.cell_types == {} for one in read_predictions(run_folder).patients)


def test_written_and_read_are_equal(
    tmp_path: Path, make_bag: MakeBag, make_prediction: MakePrediction
) -> None:
    store = make_bag("p1")
    problems = [Problem("p9", "a", "ImageError", "m", fatal=True), Problem("", "b", "E", "n")]
    wrote = write_predictions(
        tmp_path / "run", MODEL, [make_prediction(reasons=[TOO_FEW])], store, problems,
        created=CREATED,
    )  # fmt: skip
    assert wrote.patients[0].reasons == (TOO_FEW,)
    assert len(wrote.patients[0].quality) == 2
    assert wrote.patients[0].p_values == {"APL": 0.5, "AML": 0.03125}
    assert wrote.patients[0].supported == 0.9375
    read = read_predictions(tmp_path / "run")
    assert read.patients == wrote.patients
    assert read.problems == tuple(problems)
    assert read.model == MODEL
    assert read.store.resolve() == store.root.resolve()
    assert read.created == "2026-01-02T03:04:05+00:00"


def test_store_is_named_relative_to_the_run(run_folder: Path) -> None:
    content = json.loads((run_folder / "predictions.json").read_text())
    assert content["store"] == "store"
    assert content["research_use_only"] is True


def test_same_input_same_bytes(
    tmp_path: Path, make_bag: MakeBag, make_prediction: MakePrediction
) -> None:
    store = make_bag("p1")
    for name in ("a", "b"):
        write_predictions(tmp_path / name, MODEL, [make_prediction()], store, [], created=CREATED)
    for name in ("predictions.csv", "cells.csv", "predictions.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@SUM(A1)", "\ta", "a,b", 'q"'])
def test_names_that_open_a_formula_are_quoted_and_come_back(
    name: str, make_bag: MakeBag, make_prediction: MakePrediction
) -> None:
    store = make_bag(name)
    out = store.root.parent
    write_predictions(out, MODEL, [make_prediction(name)], store, created=CREATED)
    for table in ("predictions.csv", "cells.csv"):
        for row in rows_of(out / table)[1:]:
            assert not row[0].startswith(("=", "+", "-", "@", "\t", "\r"))
        assert next(read_csv(out / table))["patient"] == name


def test_other_number_of_cells_than_the_bag_is_refused(
    tmp_path: Path, make_bag: MakeBag, make_prediction: MakePrediction, store: Store
) -> None:
    make_bag("p1", n=6)
    wrong: Prediction = make_prediction("p1", n=5)
    with pytest.raises(DataError, match="5 cell probabilities, but its bag holds 6"):
        write_predictions(tmp_path / "run", MODEL, [wrong], store)
    assert not (tmp_path / "run" / "cells.csv").exists()
    assert not (tmp_path / "run" / "predictions.json").exists()


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"cells\.csv does not exist"):
        list(read_csv(tmp_path / "cells.csv"))
    with pytest.raises(MissingFileError, match=r"metrics\.json does not exist"):
        read_json(tmp_path / "metrics.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [("a,b\n1\n", "line 2: 1 cells, expected 2"), ("b\n1\n", "column 'a' is missing")],
)
def test_damaged_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(read_csv(path, ["a"]))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"[]"])
def test_damaged_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=r"JSON|object"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("schema", 99, "schema 99"), ("model", {}, "KeyError"), ("patients", [{}], "KeyError")],
)
def test_damaged_record_is_refused(run_folder: Path, key: str, value: object, message: str) -> None:
    path = run_folder / "predictions.json"
    content = json.loads(path.read_text())
    content[key] = value
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_predictions(run_folder)


def test_probability_that_is_no_number_is_refused(run_folder: Path) -> None:
    path = run_folder / "cells.csv"
    path.write_text(path.read_text().replace("0.95", "high", 1))
    with pytest.raises(DataError, match="got 'high', expected a number"):
        read_cell_probabilities(run_folder, MODEL)
