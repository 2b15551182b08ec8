"""Calls beside conclusions of the review app."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import millie
from millie.errors import ConfigError, DataError, MissingFileError

MakeRun = Callable[..., Path]
MakeTable = Callable[[str, str], Path]

STATES = {"S-1": "APL_SUSPECT", "S-2": "AML", "S-3": "NO_SIGNAL", "S-4": "INDETERMINATE"}
HEAD = "sample,version,holds,diagnosis\n"
CONCLUDED = "S-1,1,0,AML\nS-1,2,1,APL\nS-2,1,1,AML\nS-3,1,1,AML\nS-4,1,1,normal\n"


def _figures(out: Path) -> dict[str, dict[str, str]]:
    with (out / "evaluation.csv").open(encoding="utf-8-sig", newline="") as stream:
        return {row["figure"]: row for row in csv.DictReader(stream)}


def test_the_conclusion_that_holds_is_what_counts(
    make_run: MakeRun, table: MakeTable, tmp_path: Path
) -> None:
    run, out = make_run("calls", STATES), tmp_path / "found"
    result = millie.evaluate(run, table("conclusions", HEAD + CONCLUDED), out)
    assert result.n_samples == 4
    found = _figures(out)
    overall = found["overall agreement, with a call only"]
    assert (overall["successes"], overall["n"]) == ("2", "3")  # S-1 and S-2; S-3 is missed
    both = found["overall agreement, without a call counted as disagreement"]
    assert (both["successes"], both["n"]) == ("2", "4")
    apl = found["APL against the rest: sensitivity, with a call only"]
    assert (apl["successes"], apl["n"]) == ("1", "1")
    content = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert [row["figure"] for row in content["figures"]] == list(found)
    assert "saw the call first" in content["remarks"][0]


def test_what_no_answer_can_agree_with_is_left_out_and_told(
    make_run: MakeRun, table: MakeTable, tmp_path: Path
) -> None:
    text = HEAD + "S-1,1,1,other\nS-2,1,1,leukaemia\nS-3,1,1,insufficient\nS-4,1,1,ALL\n"
    result = millie.evaluate(
        make_run("calls", STATES), table("conclusions", text), tmp_path / "found"
    )
    assert result.n_samples == 1  # a leukaemia without a lineage is one for "any disease"
    told = " ".join(result.remarks)
    for diagnosis in ("other", "insufficient", "ALL"):
        assert f"1 conclusion '{diagnosis}' left out" in told
    found = _figures(tmp_path / "found")
    disease = found["any disease: sensitivity, with a call only"]
    assert (disease["successes"], disease["n"]) == ("1", "1")


def test_suggested_kinds_of_cells_are_compared_where_they_are_kinds(
    make_run: MakeRun, tmp_path: Path
) -> None:
    cells = [("blast", "blast"), ("blast", "lymphocyte"), ("AML", "lymphocyte"), ("blast", "")]
    content = {
        "conclusions": [{"sample": "S-2", "diagnosis": "AML", "holds": True}],
        "cells": [{"suggestion": s, "decision": d, "holds": True} for s, d in cells],
    }
    path = tmp_path / "decisions.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    millie.evaluate(make_run("calls", STATES), path, tmp_path / "found")
    same = _figures(tmp_path / "found")["suggested kind is the decided one, of cells"]
    assert (same["successes"], same["n"]) == ("1", "2")


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("patient,label\nS-1,APL\n", DataError, "'sample' is missing"),
        (HEAD + "S-9,1,1,APL\n", DataError, "no conclusion"),
        (HEAD + "S-1,1,1,APL\nS-1,2,1,AML\n", DataError, "two conclusions of S-1"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    make_run: MakeRun,
    table: MakeTable,
    tmp_path: Path,
    text: str,
    error: type[Exception],
    told: str,
) -> None:
    with pytest.raises(error, match=told):
        millie.evaluate(make_run("calls", STATES), table("conclusions", text), tmp_path / "found")
    assert not (tmp_path / "found").exists()


def test_places_that_do_not_fit_are_refused(
    make_run: MakeRun, table: MakeTable, tmp_path: Path
) -> None:
    run, decisions = make_run("calls", STATES), table("conclusions", HEAD + CONCLUDED)
    with pytest.raises(ConfigError, match="calls of `millie predict`"):
        millie.evaluate(run, decisions, run)
    with pytest.raises(MissingFileError):
        millie.evaluate(run, tmp_path / "none.csv", tmp_path / "found")
