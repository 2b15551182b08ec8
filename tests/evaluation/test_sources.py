"""Controls on sources: a planted camera is found, and what cannot be measured is said."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from millie.config import Config, EvaluationConfig
from millie.evaluation.folds import Study
from millie.evaluation.sources import leave_one_source_out, probe, probe_source
from millie.learning.ensemble import Material
from millie.learning.sampling import EmbeddedCells
from millie.statistics.intervals import clopper_pearson
from millie.types import Cell

DIM = 6


def make_study(
    quick: Config, labels: Mapping[str, str], make: Callable[[str], np.ndarray]
) -> Study:
    features = {p: make(p).astype(np.float32) for p in labels}
    cells = {p: [Cell(0, 0.0, 0.0, 0, 0, 8, 8, 64.0)] * len(f) for p, f in features.items()}
    material = Material(EmbeddedCells(features), DIM)
    return Study(material, ("AML", "APL"), "APL", labels, cells, quick)


def cohort(n: int) -> tuple[dict[str, str], dict[str, str]]:
    """Labels and sources of n patients of each class at each of two sites."""
    names = [(f"{s}-{c}-{i}", c, s) for s in ("X", "Y") for c in ("AML", "APL") for i in range(n)]
    return {p: c for p, c, _ in names}, {p: s for p, _, s in names}


def test_what_holds_everywhere_holds_at_the_source_left_out(quick: Config, tmp_path: Path) -> None:
    labels, sources = cohort(8)
    rng = np.random.default_rng(0)

    def make(patient: str) -> np.ndarray:
        cells = rng.normal(size=(6, DIM))
        cells[:2, 3] += 5 * (labels[patient] == "APL")
        return cells

    found = leave_one_source_out(make_study(quick, labels, make), sources, tmp_path)
    assert found.auc is not None
    assert found.auc.low > 0.6
    assert "X (8 AML, 8 APL): AUC" in found.told
    assert "Y (8 AML, 8 APL): AUC" in found.told


def test_sources_without_an_error_are_as_sure_as_all_of_their_patients(
    quick: Config, tmp_path: Path
) -> None:
    labels, sources = cohort(8)
    rng = np.random.default_rng(0)

    def make(patient: str) -> np.ndarray:
        return rng.normal(size=(6, DIM)) + 50 * (labels[patient] == "APL")

    found = leave_one_source_out(make_study(quick, labels, make), sources, tmp_path)
    assert found.auc is not None
    assert (found.auc.value, found.auc.low) == (1, clopper_pearson(16, 16).low)


def test_what_belongs_to_one_source_fails_at_the_other(quick: Config, tmp_path: Path) -> None:
    labels, sources = cohort(8)
    rng = np.random.default_rng(0)

    def make(patient: str) -> np.ndarray:
        cells = rng.normal(size=(6, DIM))
        sign = 1 if sources[patient] == "X" else -1
        cells[:, 3] += sign * 4 * (labels[patient] == "APL")
        return cells

    found = leave_one_source_out(make_study(quick, labels, make), sources, tmp_path)
    assert found.auc is not None
    assert found.auc.value < 0.5


def test_sources_are_told_that_cannot_be_left_out(quick: Config, tmp_path: Path) -> None:
    labels = {f"p{i}": "APL" if i < 6 else "AML" for i in range(12)}
    sources = {p: "Y" if i < 3 else "X" for i, p in enumerate(labels)}
    rng = np.random.default_rng(0)
    study = make_study(quick, labels, lambda _: rng.normal(size=(4, DIM)))
    found = leave_one_source_out(study, sources, tmp_path)
    assert found.auc is None, "no source that was left out has both diagnoses"
    assert "X: cannot be left out, too few patients of AML would remain" in found.told
    assert "Y (3 APL): " in found.told
    assert "called APL" in found.told


def test_patients_of_unknown_source_are_not_trained_on(quick: Config, tmp_path: Path) -> None:
    """They may be of the source that is left out."""
    labels, sources = cohort(4)
    rng = np.random.default_rng(0)
    study = make_study(quick, labels, lambda _: rng.normal(size=(4, DIM)))
    known = {p: s for p, s in sources.items() if not p.endswith("-0")}
    found = leave_one_source_out(study, known, tmp_path)
    results = [json.loads(path.read_text()) for path in (tmp_path / "folds").glob("*.json")]
    assert len(results) == 2
    for result in results:
        assert not {p for share in result["held_out"] for p in share} - known.keys()
        assert result["patients"].keys() <= known.keys()
    alone = make_study(
        quick,
        {p: labels[p] for p in known},
        lambda p: study.material.source.cells(p, np.arange(4)).numpy(),
    )
    without = leave_one_source_out(alone, known, tmp_path / "alone")
    assert found.auc == without.auc, "as if they were not there"
    assert found.told == f"{without.told}; without 4 of unknown source"


@pytest.mark.parametrize(("shift", "told"), [(3.0, True), (0.0, False)])
def test_a_camera_in_the_embeddings_is_found(quick: Config, shift: float, told: bool) -> None:
    labels, sources = cohort(9)
    rng = np.random.default_rng(1)

    def make(patient: str) -> np.ndarray:
        cells = rng.normal(size=(5, DIM))
        cells[:, 0] += shift * (sources[patient] == "Y")
        return cells

    found = probe_source(make_study(quick, labels, make), sources)
    assert found.auc is not None
    assert (found.auc.low > 0.5) == told
    assert "among AML, 9 X against 9 Y" in found.told


def test_the_diagnosis_does_not_pass_for_the_source(quick: Config) -> None:
    """Embeddings that know the diagnosis alone do not tell the source within one diagnosis."""
    labels = {f"p{i:02d}": "APL" if i < 10 else "AML" for i in range(30)}
    sources = {p: "Y" if i < 8 or i > 24 else "X" for i, p in enumerate(labels)}
    rng = np.random.default_rng(2)

    def make(patient: str) -> np.ndarray:
        cells = rng.normal(size=(5, DIM))
        cells[:, 0] += 4 * (labels[patient] == "APL")
        return cells

    found = probe_source(make_study(quick, labels, make), sources)
    assert found.auc is not None
    assert found.auc.low < 0.5
    assert "among AML" in found.told


def test_one_source_is_said_to_be_one(quick: Config) -> None:
    labels, _ = cohort(4)
    rng = np.random.default_rng(0)
    study = make_study(quick, labels, lambda _: rng.normal(size=(4, DIM)))
    found = probe_source(study, dict.fromkeys(labels, "X"))
    assert found.auc is None
    assert "cannot be measured" in found.told


def test_probe_of_three_sources() -> None:
    rng = np.random.default_rng(0)
    sources = {f"{s}{i}": s for s in "ABC" for i in range(8)}
    centres = dict(zip("ABC", 4 * np.eye(DIM), strict=False))
    features = {p: rng.normal(size=DIM) + centres[s] for p, s in sources.items()}
    found = probe(features, sources, EvaluationConfig(bootstrap=100))
    assert found.value > 0.95
    assert found.low > 0.6
