"""The table of calls: nothing is cut, whatever the width."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rich.cells import cell_len

from millie.cli.calls import call_lines
from millie.cli.console import prediction_table
from millie.outputs.patient.records import PatientResult
from millie.types import Prediction, Problem, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

FOUR = {"ALL": 0.01, "AML": 0.2, "APL": 0.72, "normal": 0.07}
SUBTYPES = {"AML CBFB::MYH11": 0.1, "AML NPM1": 0.2, "AML RUNX1::RUNX1T1": 0.6, "normal": 0.1}
REASONS = (
    Reason("A", "too few cells: 25 usable, at least 50 needed for a call", "Photograph 25 more."),
    Reason(
        "B",
        "unlike the training samples (stain, camera or not blood): distance 4.31 (maximum 2.1)",
        "Use a model trained on this laboratory's stain and camera, or ask a person.",
    ),
)
LONG = "[red]ward 7, a patient whose folder has a very long name[/red] \x1b[31m"


def _call(
    patient: str,
    state: str = "APL_SUSPECT",
    reasons: tuple[Reason, ...] = (),
    probabilities: Mapping[str, float] = FOUR,
) -> PatientResult:
    likely = max(probabilities, key=lambda label: probabilities[label])
    return PatientResult(patient, state, reasons, likely, dict(probabilities), 1256)


def _prediction(result: PatientResult) -> Prediction:
    none = np.zeros((0, len(result.probabilities)), np.float32)
    return Prediction(
        result.patient, result.state, result.reasons, result.label, result.probabilities, none, {},
        result.n_cells, "model 1", "0" * 64,
    )  # fmt: skip


CALLS = [_call("Patient_00"), _call(LONG, "URGENT_INDETERMINATE", REASONS), _call("患者九号")]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_stay_within_the_screen_and_nothing_is_cut(width: int) -> None:
    lines = call_lines(CALLS, None, width)
    name = LONG.replace("\x1b", "\\x1b")
    assert all(cell_len(line) <= width for line in lines if line != name)
    assert any(line.startswith(name) for line in lines)
    (row,) = (line for line in lines if "URGENT_INDETERMINATE" in line)
    assert row.endswith("1,256")
    text = " ".join(" ".join(lines).split())
    assert all(reason.text in text and reason.remedy in text for reason in REASONS)
    assert "患者九号" in text


def test_at_80_columns_four_classes_are_shown_and_reasons_stand_below() -> None:
    patient, urgent = _call("Patient_00"), _call("P1", "URGENT_INDETERMINATE", REASONS)
    assert call_lines([patient, urgent], {"P1": "APL"}, 80) == [
        "patient     truth  state                   ALL   AML   APL  normal  cells",
        "Patient_00         APL_SUSPECT           <0.01  0.20  0.72    0.07  1,256",
        "P1          APL    URGENT_INDETERMINATE  <0.01  0.20  0.72    0.07  1,256",
        "    too few cells: 25 usable, at least 50 needed for a call",
        "        Photograph 25 more.",
        "    unlike the training samples (stain, camera or not blood): distance 4.31",
        "    (maximum 2.1)",
        "        Use a model trained on this laboratory's stain and camera, or ask a",
        "        person.",
    ]


def test_a_remedy_that_neighbours_share_is_said_once() -> None:
    first, _ = REASONS
    twins = (replace(first, text="too few cells for NO_SIGNAL"), first)
    lines = call_lines([_call("P1", "INDETERMINATE", twins)], None, 80)
    assert [line.strip() for line in lines[2:]] == [*(t.text for t in twins), first.remedy]


def test_a_wide_screen_has_reasons_beside_the_call() -> None:
    calls = [_call("P0"), _call("P1", "INDETERMINATE", REASONS[:1])]
    assert len(call_lines(calls, None, 80)) == 5
    head, _, row = call_lines(calls, None, 160)
    assert head.endswith("  reason")
    assert row.endswith(f"1,256  {REASONS[0].text}. {REASONS[0].remedy}")


def test_what_to_check_stands_behind_the_reasons() -> None:
    calls, remarks = (
        [_call("P1", "INDETERMINATE", REASONS[:1])],
        {"P1": ("40% of the cells touch",)},
    )
    below = call_lines(calls, None, 80, remarks)
    assert [line.strip() for line in below[2:]] == [
        REASONS[0].text, REASONS[0].remedy, "check: 40% of the cells touch",
    ]  # fmt: skip
    assert call_lines(calls, None, 200, remarks)[1].endswith(
        f"{REASONS[0].remedy} check: 40% of the cells touch."
    )


def test_classes_with_long_names_shrink_to_the_most_likely_one() -> None:
    calls = [_call("P0", "AML RUNX1::RUNX1T1", (), SUBTYPES)]
    head, row = call_lines(calls, None, 80)
    assert head.split() == ["patient", "state", "most", "likely", "cells"]
    assert "AML RUNX1::RUNX1T1 0.60" in row
    assert "AML NPM1" in call_lines(calls, None, 120)[0]


def test_a_pipe_gets_one_line_a_patient(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    prediction_table([_prediction(call) for call in CALLS])
    title, blank, _, *rows = capsys.readouterr().out.rstrip("\n").split("\n")
    assert title.startswith("For research use only")
    assert not blank
    assert len(rows) == len(CALLS)
    assert rows[1].endswith(" ".join(f"{r.text}. {r.remedy}" for r in REASONS))
    assert "[red]" in rows[1]
    assert "\x1b" not in rows[1]


def test_a_patient_without_a_result_has_its_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lost = Problem("P1", "", "NoCellsError", "P1: no cells in 3 images", fatal=True)
    prediction_table([_prediction(_call("P0"))], [lost, lost])
    rows = capsys.readouterr().out.split("\n")[3:]
    assert [row.split() for row in rows if row] == [
        ["P0", "APL_SUSPECT", "<0.01", "0.20", "0.72", "0.07", "1,256"], ["P1", "FAILED"],
    ]  # fmt: skip
    assert call_lines([PatientResult.from_problem(lost)], None, 20)[-1].endswith("FAILED")


def test_no_call_is_said_in_words() -> None:
    assert call_lines([], None, 80) == ["No patient could be called."]
