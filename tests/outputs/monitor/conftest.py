"""Small prediction runs on disk, made by the product's own writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from millie.bags.store import Store
from millie.outputs.patient.records import ModelFacts
from millie.outputs.patient.tables import write_predictions

if TYPE_CHECKING:
    from millie.types import Prediction, Problem, Reason

CARD: dict[str, Any] = {
    "name": "apl-blood",
    "version": "0.1.0",
    "sha256": "9f" * 32,
    "labels": ["AML", "APL"],
    "positive": "APL",
}
MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(
    tmp_path: Path,
    make_bag: Callable[..., Store],
    make_prediction: Callable[..., Prediction],
) -> MakeRun:
    """Write a run: a state a patient, on bags that differ, unless their seeds are given."""
    seeds = (3 + 12 * k % 29 for k in count())  # in no order: runs differ in nothing but chance

    def make(
        name: str,
        states: Mapping[str, str],
        *,
        day: int = 1,
        reasons: Sequence[Reason] = (),
        problems: Sequence[Problem] = (),
        seed: int | None = None,
        sha256: str = CARD["sha256"],
        p_apl: float = 0.3,
        settings: Mapping[str, object] | None = None,
    ) -> Path:
        folder = tmp_path / name
        store, predictions = Store(folder / "store"), []
        for patient, state in states.items():
            n = next(seeds) if seed is None else seed
            make_bag(patient, n=n, into=store)
            predictions.append(make_prediction(patient, state, p_apl, n, reasons))
        write_predictions(
            folder, ModelFacts.from_card({**CARD, "sha256": sha256, "settings": settings or {}}),
            predictions, store, problems,
            created=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day),
        )  # fmt: skip
        return folder

    return make
