from __future__ import annotations

import pytest

from millie.outputs.patient.evidence import fusion_note, letters, weigh
from millie.outputs.patient.records import ModelFacts, PatientResult
from millie.outputs.patient.states import FAILED, is_urgent, words_for
from millie.outputs.patient.worklist import by_urgency
from millie.types import Winner

MODEL = ModelFacts("m", "1", "00", ("Normal", "AML", "APL"), "APL")


def result(state: str, label: str = "AML", patient: str = "p", **p: float) -> PatientResult:
    winners = {
        "AML": (Winner(3, 0.1, 1), Winner(1, 0.7, 5), Winner(8, 0.0, 1)),
        "APL": (Winner(2, 0.5, 4), Winner(3, 0.2, 2)),
    }
    probabilities = {"Normal": 0.1, "AML": 0.6, "APL": 0.3} | p
    return PatientResult(patient, state, (), label, probabilities, 10, winners)


@pytest.mark.parametrize(
    ("fusion", "types", "labels", "weighed"),
    [
        ("type_shares", ["blast"], ("AML", "normal"), True),
        ("type_shares", ["blast"], ("CLL", "normal"), False),
        ("type_shares", [], ("AML", "normal"), False),  # clusters stand in place of types
        ("ghost_vlad", ["blast"], ("AML", "normal"), False),
    ],
)
def test_a_page_says_that_cells_count_as_far_as_they_look_immature_only_where_they_do(
    fusion: str, types: list[str], labels: tuple[str, ...], weighed: bool
) -> None:
    more = {"fusion": fusion, "cell_types": types}
    note = fusion_note(ModelFacts("m", "1", "00", labels, labels[0], more))
    assert ("as far as it looks immature" in note) == weighed
    assert note.startswith("This model ")


def test_focus_is_the_leading_class_and_contrast_the_next() -> None:
    evidence = weigh(result("AML"), MODEL)
    assert (evidence.focus, evidence.contrast) == ("AML", "APL")


def test_focus_of_an_urgent_state_is_the_class_that_must_not_be_missed() -> None:
    evidence = weigh(result("URGENT_INDETERMINATE"), MODEL)
    assert (evidence.focus, evidence.contrast) == ("APL", "AML")


def test_cells_are_numbered_by_strength_and_a_cell_on_both_sides_has_both_marks() -> None:
    evidence = weigh(result("AML"), MODEL)
    assert [w.cell for w in evidence.cells_for] == [1, 3]
    assert {cell: mark.text for cell, mark in evidence.marks.items()} == {
        1: "1", 3: "2 B", 2: "A",
    }  # fmt: skip
    assert evidence.marks[3].supports
    assert not evidence.marks[2].supports


def test_cells_without_contribution_are_no_evidence() -> None:
    assert 8 not in weigh(result("AML"), MODEL).marks


def test_one_class_has_no_contrast() -> None:
    single = PatientResult("p", "APL_SUSPECT", (), "APL", {"APL": 1.0}, 1, {})
    assert weigh(single, MODEL).contrast is None


@pytest.mark.parametrize(("position", "name"), [(0, "A"), (25, "Z"), (26, "AA"), (27, "AB")])
def test_letters(position: int, name: str) -> None:
    assert letters(position) == name


def test_order_of_urgency() -> None:
    states = ["NO_SIGNAL", FAILED, "INDETERMINATE", "ALL", "APL_SUSPECT", "URGENT_INDETERMINATE"]
    ordered = by_urgency([result(state, patient=state) for state in states], "APL")
    assert [r.state for r in ordered] == [
        "APL_SUSPECT", "URGENT_INDETERMINATE", "ALL", "INDETERMINATE", "NO_SIGNAL", FAILED,
    ]  # fmt: skip


def test_within_a_state_the_higher_score_of_the_positive_class_comes_first() -> None:
    low, high = result("AML", patient="a", APL=0.1), result("AML", patient="b", APL=0.4)
    assert by_urgency([low, high], "APL") == [high, low]


@pytest.mark.parametrize(
    ("state", "urgent"), [("APL_SUSPECT", True), ("URGENT_INDETERMINATE", True), ("AML", False)]
)
def test_urgent_states(state: str, urgent: bool) -> None:
    assert is_urgent(state) is urgent


def test_no_state_gives_advice_on_treatment_or_claims_a_diagnosis() -> None:
    for state in ("APL_SUSPECT", "AML", "NO_SIGNAL", "INDETERMINATE", FAILED):
        words = words_for(state)
        assert words.title
        assert not {"ATRA", "treat with", "diagnosis of"} & set(words.meaning.split())
    assert "does not exclude" in words_for("NO_SIGNAL").meaning
