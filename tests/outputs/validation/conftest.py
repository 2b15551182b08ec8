"""Small prediction runs of a model that knows health, and a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from millie.bags.store import Store
from millie.outputs.patient.records import ModelFacts
from millie.outputs.patient.tables import write_predictions
from millie.types import Prediction, Problem

if TYPE_CHECKING:
    MakeBag = Callable[..., Store]

LABELS = ("AML", "APL", "normal")
CARD = {
    "name": "test-model", "version": "1", "sha256": "ab" * 32, "labels": list(LABELS),
    "positive": "APL", "urgent": "APL", "threshold": 0.5,
}  # fmt: skip
CELLS = 8
CALLS = {"AML": "AML", "APL_SUSPECT": "APL", "NO_SIGNAL": "normal"}
MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path, make_bag: MakeBag) -> MakeRun:
    """Write a run: ``{patient: state}`` or ``{patient: (state, probability of any disease)}``."""
    bags = count(3)

    def make(
        name: str,
        calls: Mapping[str, str | tuple[str, float]],
        *,
        day: int = 1,
        failed: tuple[str, ...] = (),
        card: Mapping[str, object] | None = None,
    ) -> Path:
        folder = tmp_path / name
        store, predictions = Store(folder / "store"), []
        for patient, one in calls.items():
            state, p = (one, 0.05 if one == "NO_SIGNAL" else 0.9) if isinstance(one, str) else one
            n = next(bags)  # its seed: bags of other sizes share no picture
            make_bag(patient, n=n, into=store)
            predictions.append(_prediction(patient, state, p, n))
        problems = [Problem(f, "", "NoCellsError", f"{f}: no cell", fatal=True) for f in failed]
        facts = ModelFacts.from_card({**CARD, **(card or {})})
        when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
        write_predictions(folder, facts, predictions, store, problems, created=when)
        return folder

    return make


def _prediction(patient: str, state: str, disease: float, n: int) -> Prediction:
    apl = state == "APL_SUSPECT"
    shares = (0.1, 0.9) if apl else (0.9, 0.1)
    probabilities = {"AML": shares[0] * disease, "APL": shares[1] * disease, "normal": 1 - disease}
    abnormal = np.linspace(0, 1, n) < disease
    cells = np.where(abnormal[:, None], [0.9, 0.05, 0.05], [0.05, 0.05, 0.9]).astype(np.float32)
    return Prediction(
        patient, state, (), max(probabilities, key=lambda k: probabilities[k]), probabilities,
        cells, {}, n, "test-model 1", CARD["sha256"],
        {label: (p, p) for label, p in probabilities.items()},
    )  # fmt: skip


@pytest.fixture
def plan(tmp_path: Path) -> Callable[[str], Path]:
    """Write a plan."""

    def write(text: str) -> Path:
        path = tmp_path / "plan.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a table."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / f"{name}.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write
