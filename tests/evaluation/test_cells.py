"""Figures on single cells and the map of cells."""

from __future__ import annotations

import numpy as np
import pytest

from millie.config import Config
from millie.evaluation.cells import CellScores, cell_map, cell_part, target_label
from millie.statistics.intervals import clopper_pearson

CONFIG = Config().with_settings(["evaluation.bootstrap=100"]).evaluation


def scores(seed: int = 0) -> CellScores:
    """Six patients of each class, ten cells each; promyelocytes score higher; APL has more."""
    rng = np.random.default_rng(seed)
    rows = []
    for diagnosis, share in (("AML", 0.2), ("APL", 0.6)):
        for i in range(6):
            for j in range(10):
                target = j < 10 * share
                label = "Promyelocyte" if target else "Lymphocyte"
                rows.append((f"{diagnosis}-{i}", diagnosis, label, rng.normal(2.0 * target)))
    patients, diagnoses, labels, score = (np.array(c) for c in zip(*rows, strict=True))
    return CellScores(patients, diagnoses, labels, score, score > 1)


def test_target_is_the_cell_of_the_disease() -> None:
    labels = ["Promyelocyte", "Lymphocyte", "Blast, no lineage spec", "Myeloblast", "Myeloblast"]
    assert target_label(labels, "APL") == "Promyelocyte"
    assert target_label(labels, "AML") == "Myeloblast"
    assert target_label(labels, "ALL") == "Blast, no lineage spec"
    assert target_label(labels, "normal") is None
    assert target_label(["Lymphocyte"], "APL") is None


def test_auc_of_the_target_and_within_positive_patients() -> None:
    part = cell_part(scores(), "APL", CONFIG)
    assert part is not None
    assert part["auc"]["n_target"] == 48
    assert part["auc_within_positive"]["n_target"] == 36
    for name in ("auc", "auc_within_positive"):
        assert 0.8 < part[name]["low"] < part[name]["value"] < part[name]["high"] <= 1
    assert np.array(part["confusion"]).sum() == part["n"] == 120
    assert sum(row["n"] for row in part["by_label"]) == 120
    assert part["roc"]["fpr"][-1] == 1


def test_patients_not_cells_are_resampled() -> None:
    """Ten copies of every cell add no information: the interval must not shrink."""
    once = scores()
    many = CellScores(*(np.repeat(getattr(once, f), 10) for f in CellScores.__slots__))
    narrow, wide = (cell_part(s, "APL", CONFIG) for s in (many, once))
    assert narrow is not None
    assert wide is not None
    assert narrow["auc"]["low"] == pytest.approx(wide["auc"]["low"])
    assert narrow["auc"]["high"] == pytest.approx(wide["auc"]["high"])


def test_cells_that_are_all_ranked_right_are_as_sure_as_their_patients() -> None:
    """Twelve patients have either kind of cell, and one normal patient has other cells alone."""
    many = scores()
    parts = [
        np.append(getattr(many, f), np.repeat(getattr(many, f)[:1], 10))
        for f in CellScores.__slots__
    ]
    patients, diagnoses, labels, _, called = parts
    patients[-10:], diagnoses[-10:], labels[-10:] = "normal-0", "normal", "Lymphocyte"
    score = np.where(labels == "Promyelocyte", 1.0, 0.0)
    part = cell_part(CellScores(patients, diagnoses, labels, score, called), "APL", CONFIG)
    assert part is not None
    assert (part["auc"]["value"], part["auc"]["high"]) == (1, 1)
    assert part["auc"]["low"] == clopper_pearson(12, 12).low


def test_no_labels_no_part() -> None:
    empty = CellScores(*(getattr(scores(), f)[:0] for f in CellScores.__slots__))
    assert cell_part(empty, "APL", CONFIG) is None


def test_too_few_cells_of_the_target_have_no_auc() -> None:
    few = scores()
    labels = few.labels.copy()
    labels[np.flatnonzero(labels == "Promyelocyte")[5:]] = "Lymphocyte"
    part = cell_part(
        CellScores(few.patients, few.diagnoses, labels, few.score, few.called), "APL", CONFIG
    )
    assert part is not None
    assert part["auc"] is None
    assert part["confusion"] is not None


def test_unknown_disease_still_lists_the_types() -> None:
    part = cell_part(scores(), "normal", CONFIG)
    assert part is not None
    assert part["target"] is None
    assert {row["label"] for row in part["by_label"]} == {"Promyelocyte", "Lymphocyte"}


def test_map_finds_the_plane_and_keeps_the_order_of_cells() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(2, 20))
    embeddings = {p: (rng.normal(size=(15, 2)) @ plane).astype(np.float32) for p in ("b", "a", "c")}
    found = cell_map(embeddings, np.random.default_rng(1))
    assert sum(found.explained) == pytest.approx(1)
    assert found.explained[0] >= found.explained[1]
    for patient, points in found.points.items():
        original = np.linalg.norm(embeddings[patient][0] - embeddings[patient][1])
        assert np.linalg.norm(points[0] - points[1]) == pytest.approx(original, rel=1e-4)
    again = cell_map(embeddings, np.random.default_rng(1))
    np.testing.assert_array_equal(again.points["a"], found.points["a"])


def test_map_of_a_single_feature() -> None:
    found = cell_map({"a": np.arange(5.0)[:, None]}, np.random.default_rng(0))
    assert found.points["a"].shape == (5, 2)
    assert found.explained == pytest.approx((1.0, 0.0))
