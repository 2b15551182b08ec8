"""How calls under worse conditions are counted."""

from __future__ import annotations

import pytest

from millie.outputs.validation.cases import Question
from millie.outputs.validation.dilution import dilution
from millie.outputs.validation.plan import Plan
from millie.outputs.validation.trials import Trial, interference, number_of_cells
from millie.statistics.rates import mean_share

DISEASE = Question("any disease", "disease", frozenset({"AML", "APL"}), 0.5, any_disease=True)


def _mixture(patient: str, share: float, state: str) -> Trial:
    called = {"AML": "AML", "APL_SUSPECT": "APL", "NO_SIGNAL": "normal"}.get(state)
    return Trial(patient, f"{share:g}", state, called)


def test_the_smallest_share_is_the_one_from_which_all_larger_are_flagged() -> None:
    trials = [
        *(_mixture(p, 1, "NO_SIGNAL") for p in "ab"),
        *(_mixture(p, 5, "URGENT_INDETERMINATE") for p in "ab"),  # flagged, but 10 % is not
        _mixture("a", 10, "AML"), _mixture("b", 10, "INDETERMINATE"),
        *(_mixture(p, 20, "AML") for p in "ab"), *(_mixture(p, 50, "APL_SUSPECT") for p in "ab"),
    ]  # fmt: skip
    asked = {"max_smallest_share_percent": 20, "flagged_share": 0.95}
    section = dilution(trials, DISEASE, Plan.model_validate({"dilution": asked}), "",
                       abnormal_percent=60)  # fmt: skip
    assert [figure.value for figure in section.figures] == [20, 12]
    assert [one.outcome for one in section.criteria] == ["met"]
    rows = {row[0]: list(row[1:7]) for row in section.tables[0].rows}
    assert rows["10 %"] == ["2", "2", "1", "0", "1", "0"]
    assert rows["1 %"] == ["2", "2", "0", "0", "0", "2"]


def test_false_alarms_leave_nothing_to_be_found() -> None:
    trials = [_mixture("a", 0, "URGENT_INDETERMINATE"), _mixture("a", 50, "AML")]
    asked = {"max_smallest_share_percent": 60}
    section = dilution(trials, DISEASE, Plan.model_validate({"dilution": asked}), "")
    assert [(one.outcome, one.observed) for one in section.criteria] == [
        ("not met", "mixtures without any cell of a patient with disease are flagged as often")
    ]
    asked |= {"flagged": "called"}
    named = dilution(trials, DISEASE, Plan.model_validate({"dilution": asked}), "")
    assert [figure.value for figure in named.figures] == [50]
    assert [one.outcome for one in named.criteria] == ["met"]


def test_where_nothing_is_flagged_the_criterion_is_not_met() -> None:
    plan = Plan.model_validate({"dilution": {"max_smallest_share_percent": 20}})
    section = dilution([_mixture("a", 100, "NO_SIGNAL")], DISEASE, plan, "")
    assert [(one.outcome, one.observed) for one in section.criteria] == [
        ("not met", "at no share were 0.95 of the mixtures flagged")
    ]
    none = dilution([], DISEASE, plan, "the stores are gone")
    assert [(one.outcome, one.note) for one in none.criteria] == [
        ("not tested", "the stores are gone")
    ]


def _drawn(patient: str, cells: int, called: str | None, before: str = "AML") -> Trial:
    return Trial(patient, str(cells), called or "INDETERMINATE", called, before)


def test_fewer_cells_are_counted_by_patients() -> None:
    trials = [
        *(_drawn("a", 100, "AML") for _ in range(10)),
        *(_drawn("b", 100, "AML" if i < 5 else None) for i in range(10)),
        *(_drawn("c", 100, "APL" if i < 1 else "AML") for i in range(10)),
        *(_drawn(p, 25, None) for p in "abc"),
    ]
    asked = {"cells": [25, 100], "at_cells": 100, "min_same_call": 0.5, "max_other_call": 0.01}
    section = number_of_cells(trials, Plan.model_validate({"number_of_cells": asked}), "")
    same, other = section.figures
    expected = mean_share([1.0, 0.5, 0.9])
    assert (same.value, same.low) == pytest.approx((expected.value, expected.low))
    assert (other.value, other.n) == (pytest.approx(0.1 / 3), 3)
    assert [one.outcome for one in section.criteria] == ["not met", "not met"]
    assert [row[0] for row in section.tables[0].rows] == ["25", "100"]


def test_each_change_has_its_own_lines() -> None:
    trials = [
        Trial("a", "blur", "INDETERMINATE", None, "AML"),
        Trial("b", "blur", "AML", "AML", "AML"),
        Trial("a", "hue", "FAILED", None, "AML"),
        Trial("b", "hue", "NO_SIGNAL", "normal", "AML"),
    ]
    asked = {"changes": ["blur", "hue", "dark"], "min_same_call": 0.5, "max_other_call": 0.4}
    plan = Plan.model_validate({"study": {"judged_by": "estimate"}, "interference": asked})
    section = interference(trials, {"blur": "2 px", "hue": "0.05"}, plan, "")
    assert {one.what: one.outcome for one in section.criteria} == {
        "blur: same call": "met", "hue: same call": "not met", "dark: same call": "not tested",
        "blur: another call": "met", "hue: another call": "not met",
        "dark: another call": "not tested",
    }  # fmt: skip
    rows = {row[0]: list(row[1:]) for row in section.tables[0].rows}
    assert rows["hue"][3:6] == ["1", "0", "1"]  # withheld, urgent, failed
    assert section.notes == ("blur: 2 px.", "hue: 0.05.")
