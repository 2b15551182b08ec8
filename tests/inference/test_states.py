"""Every row of docs/safety.md: from a condition to a state and its codes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from millie.config import PredictionConfig
from millie.inference.calls import CallRule, decide
from millie.inference.gates import failed_gates
from millie.inference.immature import Immature
from millie.inference.magnification import contradicted_scale, unfamiliar_magnification
from millie.inference.quality import SampleQuality
from millie.inference.reasons import CATALOGUE, Code
from millie.outputs.patient.records import results_of
from millie.types import Problem, Reason

from .test_screen import screen

CONFIG = PredictionConfig()
GOOD = SampleQuality(
    300, 300, 0.1, 0.2, 0.3, 1.0, stain=0.5, saturation=0.25,
    clipped_fraction=0.0,
)  # fmt: skip
NONE = float("nan")
VECTORS = SampleQuality(300, 300, NONE, NONE, NONE, 1.0, pictures=False)
LIMITS = {
    "min_sharpness": 0.1, "min_cell_fraction": 0.2, "min_stain": 0.2,
    "max_cell_fraction": 0.5, "max_distance": 3.0, "min_saturation": 0.1,
    "max_clipped_fraction": 0.05,
}  # fmt: skip
CALM = {"normal": 0.05, "AML": 0.9, "APL": 0.05}
HEALTHY = {"normal": 0.9, "AML": 0.06, "APL": 0.04}
SUSPECT = {"normal": 0.05, "AML": 0.05, "APL": 0.9}
Found = tuple[str, tuple[Reason, ...]]
Ends = tuple[float, float]


def call(
    probabilities: dict[str, float],
    *,
    positive: str = "APL",
    threshold: float = 0.5,
    asked: tuple[float, ...] = (),
    quality: SampleQuality = GOOD,
    read_um_px: float | None = None,
    over_stated: float | None = None,
    immature: Immature | None = None,
    **ranges: Ends,
) -> Found:
    """The state of a sample; ``asked`` are the probabilities of the other model."""
    rule = CallRule(positive, threshold, min(0.5, threshold), LIMITS)
    doubt: tuple[Reason, ...] = ()
    ruled_out: tuple[Reason, ...] = ()
    if asked:
        doubt, ruled_out = screen(*asked).ask([torch.zeros(9, 4)], ("AML", "APL"))
    scale = contradicted_scale(over_stated) + unfamiliar_magnification(
        read_um_px, {"um_px": torch.full((20,), 0.1)}
    )
    failed = (*failed_gates(quality, LIMITS, CONFIG), *scale, *doubt)
    ends = {label: (p, p) for label, p in probabilities.items()} | ranges
    return decide(
        probabilities, rule, quality, failed, CONFIG, ends, elsewhere=ruled_out, immature=immature
    )


def bad(**changes: float) -> Found:
    return call(CALM, quality=dataclasses.replace(GOOD, **changes))


def lost() -> Found:
    (result,) = results_of([], [Problem("p", "", "NoCellsError", "no cells", fatal=True)])
    return result.state, result.reasons


FOUND: dict[str, Found] = {
    "no image gives a cell, or the patient's cells lie under another diagnosis too": lost(),
    "a disease would be called or the state be urgent, all gates are passed, but hardly any "
    "immature cells are seen": call(CALM, APL=(0.01, 0.55), immature=Immature(0.02, 0.03, 0.05)),
    "another model sees something else for certain; APL's probability is below its limit": call(
        {"AML": 0.9, "APL": 0.1}, asked=(0.05, 0.1, 0.05, 0.8), APL=(0.05, 0.7)
    ),
    "another model sees something else for certain; APL's probability reaches its limit": call(
        {"AML": 0.2, "APL": 0.8}, asked=(0.05, 0.1, 0.05, 0.8)
    ),
    "APL is the likeliest class, but below its threshold": call(
        {"normal": 0.15, "AML": 0.3, "APL": 0.55}, threshold=0.6
    ),
    "APL is not called, but its interval reaches its limit or the class called": call(
        CALM, APL=(0.01, 0.55)
    ),
    "the same where the class that must not wait is not APL": call(
        {"normal": 0.1, "AML": 0.7, "ALL": 0.2}, positive="ALL", ALL=(0.1, 0.6)
    ),
    "a gate failed, or another model is not certain of any disease; APL would be called": call(
        SUSPECT, quality=dataclasses.replace(GOOD, n_usable=20)
    ),
    "fewer usable cells than any call needs": bad(n_usable=49),
    "too many smudge cells": bad(smudge_fraction=0.6),
    "blurred": bad(sharpness=0.05),
    "pixels of the cells lost in white or black": bad(clipped_fraction=0.2),
    "pale nuclei": bad(stain=0.1),
    "nearly grey cells": bad(saturation=0.05),
    "cells too small for the stated scale": bad(cell_fraction=0.1),
    "cells too large for the stated scale": bad(cell_fraction=0.6),
    "the red cells contradict the stated scale": call(CALM, over_stated=1.3),
    "a scale that is not stated, and by the cells is not of the training": call(
        CALM, read_um_px=0.2
    ),
    "farther from the training patients than any of them": bad(distance=4.0),
    "a quality with a limit cannot be measured": bad(stain=float("nan")),
    "another model is not certain of any disease of this one": call(
        {"AML": 0.9, "APL": 0.1}, asked=(0.1, 0.5, 0.3, 0.1)
    ),
    "no disease is called, with too few cells for that": call(
        HEALTHY, quality=dataclasses.replace(GOOD, n_usable=199)
    ),
    "no disease is called, but the cells came as vectors, without pictures": call(
        HEALTHY, quality=VECTORS
    ),
    "no disease is called, but its interval reaches down to the limit": call(
        HEALTHY, normal=(0.45, 0.95)
    ),
    "a disease is called, but all diseases together do not reach what is needed": call(
        CALM, normal=(0.01, 0.6)
    ),
    "a disease is called, but the interval of another one overlaps": call(
        {"ALL": 0.46, "AML": 0.44, "APL": 0.1}, ALL=(0.2, 0.8), AML=(0.1, 0.7)
    ),
    "all gates passed, no interval crosses a limit: no disease": call(HEALTHY),
    "all gates passed, no interval crosses a limit: a disease": call(CALM),
    "all gates passed: APL's probability reaches its threshold, whatever its interval": call(
        SUSPECT, APL=(0.3, 0.95)
    ),
}


def rows_of(section: str) -> list[list[str]]:
    """Cells of the table under a heading of docs/safety.md."""
    text = (Path(__file__).parents[2] / "docs" / "safety.md").read_text(encoding="utf-8")
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    lines = [line for line in body.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


STATES = rows_of("From conditions to states")


@pytest.mark.parametrize(("condition", "state", "codes"), STATES, ids=[row[0] for row in STATES])
def test_a_condition_leads_to_its_state(condition: str, state: str, codes: str) -> None:
    found, reasons = FOUND[condition]
    assert found == state.strip("`")
    assert [reason.code for reason in reasons] == codes.replace("`", "").split()
    assert all(reason.text and reason.remedy.endswith(".") for reason in reasons)
    assert bool(reasons) == (found in {"INDETERMINATE", "URGENT_INDETERMINATE"})


def test_the_table_has_every_condition_and_every_code() -> None:
    assert [row[0] for row in STATES] == list(FOUND)
    assert {reason.code for _, reasons in FOUND.values() for reason in reasons} == set(Code)


def test_the_catalogue_is_the_one_of_the_docs() -> None:
    assert rows_of("Reasons") == [
        [f"`{code}`", entry.meaning, entry.remedy] for code, entry in CATALOGUE.items()
    ]
    assert set(CATALOGUE) == set(Code)
