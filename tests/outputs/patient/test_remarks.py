from __future__ import annotations

import pytest

from millie.outputs.patient.records import ModelFacts, PatientResult
from millie.outputs.patient.remarks import NOTABLE, remarks_on
from millie.types import Measure, Winner

MORE = {"mature_types": ["neutrophil"], "diseases": ["AML", "APL"]}
MODEL = ModelFacts("m", "1", "00", ("normal", "AML", "APL"), "APL", MORE)


def result(label: str = "AML", mature: float = 0.0, **quality: float | None) -> PatientResult:
    winners = {label: (Winner(0, mature, 1, "neutrophil"), Winner(1, 0.5 - mature, 1, "blast"))}
    measures = tuple(Measure(name, value) for name, value in quality.items())
    probabilities = {"normal": 0.1, "AML": 0.1, "APL": 0.1} | {label: 0.8}
    return PatientResult("p", label, (), label, probabilities, 9, winners, quality=measures)


@pytest.mark.parametrize(
    "name", ["touching_fraction", "border_fraction", "smudge_fraction", "unoutlined_fraction"]
)
def test_a_third_of_the_cells_with_a_flaw_is_remarked_on(name: str) -> None:
    (remark,) = remarks_on(result(**{name: NOTABLE}), MODEL)
    assert (remark.about, remark.text[:3]) == (name, "33%")
    assert remarks_on(result(**{name: NOTABLE - 0.01}), MODEL) == ()
    assert remarks_on(result(**{name: None}), MODEL) == ()


def test_evidence_in_mature_cells_is_remarked_on_where_it_is_for_a_disease() -> None:
    (remark,) = remarks_on(result(mature=0.4), MODEL)
    assert "80% of the evidence shown for AML" in remark.text
    assert remarks_on(result(mature=0.2), MODEL) == ()
    assert remarks_on(result("normal", mature=0.4), MODEL) == ()


def test_without_known_types_nothing_is_said_of_evidence() -> None:
    bare = ModelFacts("m", "1", "00", ("normal", "AML", "APL"), "APL")
    assert remarks_on(result(mature=0.5), bare) == ()


def test_a_patient_without_a_result_has_none() -> None:
    assert remarks_on(PatientResult("p", "FAILED", error="no cells"), MODEL) == ()
