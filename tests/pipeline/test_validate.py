"""Calls of chosen cells and of spoiled images, with a trained model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import millie
from millie.bags.store import Store
from millie.errors import ConfigError
from millie.outputs.patient.records import results_of
from millie.outputs.patient.tables import read_predictions
from millie.outputs.validation.cases import Case, Question, called_class
from millie.outputs.validation.plan import CellNumberPlan, DilutionPlan
from millie.pipeline.caller import Caller, loading
from millie.pipeline.segment_cohort import silent
from millie.pipeline.validate_changes import interference_trials
from millie.pipeline.validate_films import (
    dilution_trials,
    number_trials,
    read_film,
    state_of_film,
)
from millie.pipeline.validate_inputs import find_model

NEGATIVE = frozenset({"normal"})
DISEASE = Question("any disease", "disease", frozenset({"APL"}), 0.5, any_disease=True)


@pytest.fixture(scope="module")
def calls(bundle: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return millie.predict(bundle, films, tmp_path_factory.mktemp("validate") / "calls").out


@pytest.fixture(scope="module")
def caller(bundle: Path, calls: Path) -> Caller:
    config = find_model(read_predictions(calls).model, bundle).config
    with loading(bundle, config, None, silent) as (loaded, _):
        return loaded()


@pytest.fixture(scope="module")
def truth(films: Path) -> dict[str, str]:
    return {p.id: p.label or "" for p in millie.read_cohort([films]).patients}


@pytest.fixture
def cases(calls: Path, truth: dict[str, str]) -> list[Case]:
    """Each patient as if its reference had been called: the tiny model seldom calls anybody."""
    run = read_predictions(calls)
    return [
        Case(r.patient, truth[r.patient], truth[r.patient], r)
        for r in sorted(run.patients, key=lambda one: one.patient)
    ]


def test_all_cells_of_a_film_end_in_the_state_of_the_run(calls: Path, caller: Caller) -> None:
    run, config = read_predictions(calls), caller.bundle.config.prediction
    store = Store(calls / "store")
    for result in run.patients:
        film = read_film(store.path_of(result.patient), caller, config)
        shuffled = film.drawn(np.random.default_rng(0).permutation(film.n_cells))
        assert state_of_film(film, caller, config) == result.state
        assert state_of_film(shuffled, caller, config) == result.state


def test_draws_are_of_the_size_asked_for_and_always_the_same(
    calls: Path,
    caller: Caller,
    cases: list[Case],
    truth: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    def watched(film: object, *rest: object) -> str:
        seen.append(film.n_cells)  # type: ignore[attr-defined]
        return state_of_film(film, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("millie.pipeline.validate_films.state_of_film", watched)
    store = Store(calls / "store")
    bags = {case.patient: store.path_of(case.patient) for case in cases}
    config = caller.bundle.config.prediction
    asked = CellNumberPlan(patients=3, cells=(2, 4, 500), draws=2, at_cells=None)
    first = number_trials(cases, bags, caller, config, asked, NEGATIVE, silent)
    assert set(seen) == {2, 4}  # no film has 500
    assert len(first) == 3 * 2 * 2
    assert first == number_trials(cases[::-1], bags, caller, config, asked, NEGATIVE, silent)
    seen.clear()
    diluted = DilutionPlan(patients=2, cells=10, shares_percent=(10, 50, 100), draws=2)
    trials = dilution_trials(cases, DISEASE, bags, caller, config, diluted, NEGATIVE, silent)
    assert set(seen) == {10}
    assert {one.condition for one in trials} == {"0", "10", "50", "100"}
    assert len(trials) == 2 * 4 * 2
    assert {truth[one.patient] for one in trials} == {"APL"}
    healthy = [case for case in cases if case.reference == "normal"]
    assert not dilution_trials(healthy, DISEASE, bags, caller, config, diluted, NEGATIVE, silent)


def test_spoiled_images_are_predicted_from_the_start(
    calls: Path, caller: Caller, cases: list[Case], tmp_path: Path
) -> None:
    store = Store(calls / "store")
    bags = {case.patient: store.path_of(case.patient) for case in cases[:1]}
    config = caller.bundle.config
    found = interference_trials(
        cases, bags, caller, config, ["blur", "smaller scale"], 1, NEGATIVE, silent
    )
    assert [one.condition for one in found.trials] == ["blur", "smaller scale"]
    assert found.problems == []
    moved = tmp_path / "elsewhere" / "deep" / "store"
    shutil.copytree(store.root, moved)  # from here the images are not where the bags say
    gone = {patient: moved / bag.name for patient, bag in bags.items()}
    lost = interference_trials(cases, gone, caller, config, ["blur"], 1, NEGATIVE, silent)
    assert lost.trials == []
    assert "left out of interference" in lost.problems[0].message


def test_a_whole_validation_with_its_model(
    calls: Path, bundle: Path, truth: dict[str, str], tmp_path: Path
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        "[dilution]\npatients = 2\ncells = 6\nshares_percent = [50, 100]\ndraws = 1\n"
        "max_smallest_share_percent = 100\n[repeatability]\nmax_share_in_band = 0.5\n"
    )
    table = tmp_path / "truth.csv"
    table.write_text("patient,label\n" + "".join(f"{k},{v}\n" for k, v in truth.items()))
    found = millie.validate(plan, calls, tmp_path / "out", reference=table, model=bundle)
    content = json.loads((found.out / "validation.json").read_text(encoding="utf-8"))
    assert content["question"] == {"name": "any disease", "classes": ["APL"], "threshold": 0.5}
    outcomes = {one["section"]: one["outcome"] for one in found.rows()}
    assert outcomes["dilution"] in {"met", "not met"}
    assert outcomes["repeatability"] == "not tested"
    (section,) = [one for one in content["sections"] if one["key"] == "dilution"]
    assert [row[0] for row in section["tables"][0]["rows"]] == ["0 %", "50 %", "100 %"]
    with pytest.raises(ConfigError, match="is not the model of the runs"):
        millie.validate(plan, calls, tmp_path / "two", model="apl-blood")


def test_states_and_classes() -> None:
    labels = ("AML", "APL", "normal")
    assert called_class("NO_SIGNAL", labels, NEGATIVE) == "normal"
    assert called_class("APL_SUSPECT", labels, NEGATIVE) == "APL"
    for state in ("INDETERMINATE", "URGENT_INDETERMINATE", "FAILED"):
        assert called_class(state, labels, NEGATIVE) is None
    assert results_of([]) == ()
