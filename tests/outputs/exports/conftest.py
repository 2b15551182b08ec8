"""A prediction run on cells that segmentation found in drawn films; the scores are made up."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millie.bags.store import BagReader, Store
from millie.outputs.patient.records import ModelFacts
from millie.outputs.patient.tables import write_predictions
from millie.types import Prediction, Problem, Reason, Winner

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CARD: dict[str, Any] = {
    "name": "apl-blood", "version": "0.1.0", "sha256": "9f" * 32, "labels": ["AML", "APL"],
    "positive": "APL",
    "scope": "This model tells APL from other AML; it cannot say normal or ALL.",
}  # fmt: skip
STATES = ("APL_SUSPECT", "INDETERMINATE", "URGENT_INDETERMINATE")
TOO_FEW = Reason("TOO_FEW_CELLS", "6 cells: at least 50 are needed", "Photograph more cells.")
FAILED = "=1+cmd"
"""A patient without cells, whose name a spreadsheet would run."""


@pytest.fixture(scope="session")
def called(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients in three states, and one that failed."""
    out = tmp_path_factory.mktemp("exports") / "calls"
    out.mkdir()
    store = Store(tiny_store)
    predictions = []
    for state, path in zip(STATES, store.bags(), strict=False):
        with BagReader(path) as bag:
            n, patient = bag.n_cells, bag.patient_id
        apl = np.linspace(0.1, 0.9, n, dtype=np.float32)
        predictions.append(
            Prediction(
                patient, state, () if state == STATES[0] else (TOO_FEW,),
                "APL", {"AML": 0.2, "APL": 0.8}, np.stack([1 - apl, apl], axis=1),
                {"APL": (Winner(n - 1, 0.6, 7),), "AML": (Winner(0, 0.5, 4),)}, n,
                "apl-blood 0.1.0", CARD["sha256"],
            )
        )  # fmt: skip
    problems = [Problem(FAILED, "", "NoCellsError", "no cells; take other fields", fatal=True)]
    model = ModelFacts.from_card(CARD)
    write_predictions(out, model, predictions, store, problems, created=CREATED)
    return out
