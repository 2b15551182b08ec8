"""Who takes part in training."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from millie.bags.store import Store
from millie.config import Config, ModelConfig
from millie.learning.material import Opener, participants

if TYPE_CHECKING:
    from pathlib import Path


def test_patients_of_the_test_split_are_left_out_and_named(
    tiny_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = Store(tiny_store).index()
    kept = [replace(first, split="test"), *others]
    monkeypatch.setattr(Store, "index", lambda _: kept)
    who = participants(Store(tiny_store))
    assert first.patient not in who.labels
    assert len(who.labels) == len(others)
    assert [(p.patient, p.note) for p in who.problems] == [(first.patient, True)]


def test_a_patient_without_diagnosis_is_left_out_and_named(
    tiny_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = Store(tiny_store).index()
    monkeypatch.setattr(Store, "index", lambda _: [replace(first, label=None), *others])
    who = participants(Store(tiny_store))
    assert first.patient not in who.labels
    assert "no diagnosis" in who.problems[0].message


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_layer_of_types_that_has_learnt_nothing_is_not_used(
    tiny_store: Path, pretrained: bool
) -> None:
    config = Config(model=ModelConfig(encoder="blood_cell", pretrained=pretrained))
    store = Store(tiny_store)
    material = Opener(store, config).open([store.index()[0].patient])
    assert (material.types is not None) == pretrained
