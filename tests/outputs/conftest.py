"""A tiny prediction run and a tiny study on disk."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from millie.bags.store import BagMeta, CellCrop, Store, write_bag
from millie.outputs.report import write_prediction_run
from millie.types import (
    Cell,
    Field,
    ImageKind,
    ImageSource,
    Measure,
    Patient,
    Prediction,
    Problem,
    Reason,
    SourceRecord,
    Winner,
)

CARD: dict[str, Any] = {
    "name": "apl-blood",
    "version": "0.1.0",
    "sha256": "9f" * 32,
    "labels": ["AML", "APL"],
    "positive": "APL",
    "threshold": 0.45,
    "urgent": "APL",
    "excluded_below": 0.0625,
    "scope": "This model tells APL from other AML; it cannot say normal or ALL.",
}
CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SIZE_PX = 48
TOO_FEW = Reason("TOO_FEW_CELLS", "5 cells: at least 50 are needed", "Photograph 45 more.")
MakeBag = Callable[..., Store]
MakePrediction = Callable[..., Prediction]


def field_image(height: int = 300, width: int = 400, seed: int = 0) -> NDArray[np.uint8]:
    """A pale field with darker noise, the same for the same seed."""
    rng = np.random.default_rng(seed)
    return (200 + rng.integers(0, 40, (height, width, 3))).astype(np.uint8)


def digest(image: NDArray[np.uint8]) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "run" / "store")


@pytest.fixture
def make_bag(store: Store) -> MakeBag:
    """Write a bag: ``n`` cells over the given sources, flags set on the first cells."""

    def make(
        patient: str = "p1",
        *,
        n: int = 6,
        kinds: Sequence[ImageKind] = (ImageKind.FIELD,),
        um_px: float | None = 0.1,
        names: Sequence[str] | None = None,
        into: Store | None = None,
    ) -> Store:
        target = into or store
        rng = np.random.default_rng(n)
        image = field_image()
        sources = [
            SourceRecord(name, digest(image), kind, um_px, *image.shape[:2], path="")
            for name, kind in zip(
                names or [f"slide/im{i}.jpg" for i in range(len(kinds))], kinds, strict=True
            )
        ]
        crops = [
            CellCrop(
                Cell(
                    i % len(sources), 60.0 + 50 * (i % 6), 80.25, 50 + 50 * (i % 6), 70, 20, 20,
                    300.0, smudge=i == 0, at_border=i == 1, in_clump=i == 2,
                ),
                rng.integers(0, 255, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8),
                np.zeros((SIZE_PX, SIZE_PX), np.uint8),
            )
            for i in range(n)
        ]  # fmt: skip
        meta = BagMeta(SIZE_PX, 25.0, None if um_px is None else 25.0 / SIZE_PX, "digest")
        write_bag(target.path_of(patient), Patient(patient, None, ()), crops, sources, meta)
        return target

    return make


@pytest.fixture
def make_prediction() -> MakePrediction:
    def make(
        patient: str = "p1",
        state: str = "APL_SUSPECT",
        p_apl: float = 0.9,
        n: int = 6,
        reasons: Sequence[Reason] = (),
    ) -> Prediction:
        apl = np.linspace(0.05, 0.95, n, dtype=np.float32)
        probabilities = {"AML": 1 - p_apl, "APL": p_apl}
        winners = {
            "AML": (Winner(0, 0.5, 4), Winner(1, 0.25, 2)),
            "APL": (Winner(n - 1, 0.6, 7), Winner(n - 2, 0.3, 3)),
        }
        return Prediction(
            patient, state, tuple(reasons), "APL" if p_apl > 0.5 else "AML", probabilities,
            np.stack([1 - apl, apl], axis=1), winners, n, "apl-blood 0.1.0", CARD["sha256"],
            {x: (max(0, p - 0.015625), min(1, p + 0.125)) for x, p in probabilities.items()},
            (Measure("sharpness", 0.5, 0.25), Measure("cell_fraction", None, 0.1, 0.7, False)),
            {"APL": 0.5, "AML": 0.03125}, 0.9375,
        )  # fmt: skip

    return make


def read_field(patient: str, record: SourceRecord) -> Field:
    image = field_image()
    return Field(image, ImageSource(Path("x"), record.name), None, digest(image))


@pytest.fixture
def run_folder(make_bag: MakeBag, make_prediction: MakePrediction, store: Store) -> Path:
    """A finished run: an APL suspect, no signal, an urgent one, and a failed patient."""
    out = store.root.parent
    make_bag("p1")
    make_bag("p2", n=4, kinds=(ImageKind.CELL,) * 4)
    make_bag("p3", n=5, um_px=None)
    predictions = [
        make_prediction("p2", "NO_SIGNAL", 0.02, 4),
        make_prediction("p3", "URGENT_INDETERMINATE", 0.4, 5, [TOO_FEW]),
        make_prediction("p1"),
    ]
    problems = [
        Problem("p4", "", "NoCellsError", "p4: no cell in 2 images; take other fields", fatal=True),
        Problem("p1", "broken.jpg", "ImageError", "broken.jpg: cut short; export it again"),
        Problem("p2", "twin.jpg", "Duplicate", "twin.jpg repeats a.jpg; counted once", note=True),
    ]
    write_prediction_run(
        out, CARD, predictions, store, problems, read_field=read_field, created=CREATED
    )
    return out


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


def estimate(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.05, "method": "DeLong"}


@pytest.fixture
def study_folder(tmp_path: Path, make_bag: MakeBag) -> Path:
    """A finished study of six patients over two repeats; ``s2`` is called wrongly in both."""
    folder = tmp_path / "study"
    folder.mkdir()
    store = Store(folder / "bags")
    predictions, cells, components = [], [], []
    for i in range(6):
        label = "APL" if i % 2 else "AML"
        p = 0.8 if label == "APL" or i == 2 else 0.2
        make_bag(f"s{i}", n=4, kinds=(ImageKind.CELL,) * 4, into=store)
        for repeat in range(2):
            call = "APL" if p > 0.5 else "AML"
            predictions.append([f"s{i}", label, repeat, i % 3, 1 - p, p, 0.5, call, 4])
        for cell in range(4):
            q = 0.1 + 0.2 * cell
            name = f"im{cell}"
            cells.append([f"s{i}", cell, name, 1, 2, "blast", 0, 0, 1 - q, q])
            components.append([f"s{i}", cell, label, "blast", cell - 2.0, i])
    probabilities = ["probability_AML", "probability_APL"]
    write_table(
        folder / "predictions.csv",
        ["patient", "label", "repeat", "fold", *probabilities, "threshold", "call", "n_cells"],
        predictions,
    )
    write_table(
        folder / "cells.csv",
        ["patient", "cell", "source", "x_px", "y_px", "cell_label", "smudge", "repeat",
         *probabilities],
        cells,
    )  # fmt: skip
    write_table(
        folder / "pca.csv", ["patient", "cell", "label", "cell_label", "pc1", "pc2"], components
    )
    metrics = {
        "classes": ["AML", "APL"], "positive": "APL", "n_patients": 6,
        "n_by_class": {"AML": 3, "APL": 3}, "store": "bags",
        "headline": {"auc": estimate(0.875), "balanced_accuracy": estimate(0.8333)},
        "roc": {"fpr": [0, 0.3, 1], "tpr": [0, 1, 1]},
        "confusion": [[4, 2], [0, 6]],
        "pca": {"explained_variance": [0.3, 0.1], "space": "all cells, frozen encoder"},
        "fold_spread": {"auc": {"mean": 0.85, "sd": 0.123}},
        "without_smudge": {"n_patients_with_smudge": 2, "auc": estimate(0.8111)},
        "calibration": {"error": 0.0625, "brier": 0.125, "bins": [
            {"probability": 0.2, "share": 0.0, "low": 0.0, "high": 0.7, "n": 2},
            {"probability": 0.8, "share": 0.75, "low": 0.2, "high": 0.99, "n": 4},
        ]},
        "cells": {
            "n": 24, "target": "blast", "auc": estimate(0.7), "auc_within_positive": None,
            "roc": {"fpr": [0, 1], "tpr": [0, 1]}, "confusion": [[10, 2], [4, 8]],
            "rows": ["other", "blast"], "columns": ["not called APL", "called APL"],
            "by_label": [{"label": "blast", "n": 24, "mean_probability": 0.4, "called": 0.5}],
        },
        "protocol": "3 folds x 2 repeats.\nThresholds fixed inside the training part.",
        "environment": {"millie": "0.1.0", "cores": 2},
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    splits = {"assignments": [{"repeat": 0, "fold": 0, "train": ["s0"], "validation": ["s1"],
                               "test": ["s2"]}]}  # fmt: skip
    (folder / "splits.json").write_text(json.dumps(splits))
    return folder
