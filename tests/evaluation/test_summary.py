"""From folds to figures: repeats averaged per patient, several classes, smudge cells left out."""

from __future__ import annotations

import numpy as np
import pytest

from millie.config import Config
from millie.evaluation import summary
from millie.evaluation.folds import FoldResult, PatientScore
from millie.statistics.intervals import clopper_pearson, delong_interval

CONFIG = Config().with_settings(["evaluation.bootstrap=100"]).evaluation
BINARY = ("AML", "APL")
THREE = ("ALL", "AML", "APL")


def folds(
    classes: tuple[str, ...], repeats: int, seed: int = 0, shift: float = 1.5, n: int = 8
) -> list[FoldResult]:
    """Two folds a repeat; the own class is favoured by ``shift``; thresholds differ by fold."""
    rng = np.random.default_rng(seed)
    found = []
    for repeat in range(repeats):
        for fold in range(2):
            patients = {}
            for label in classes:
                for i in range(fold, 2 * n, 2):
                    logits = rng.normal(size=len(classes))
                    logits[classes.index(label)] += shift
                    p = np.exp(logits) / np.exp(logits).sum()
                    patients[f"{label}-{i:02d}"] = PatientScore(label, tuple(p.tolist()), 9)
            found.append(FoldResult(repeat, fold, 0.4 + 0.1 * fold, 1.0, (5,), ((),), patients))
    return found


def test_repeats_are_averaged_so_n_is_patients() -> None:
    results = folds(BINARY, repeats=4)
    averaged = summary.average(results, BINARY, "APL")
    assert len(averaged.patients) == 32
    assert averaged.by_repeat.shape == (4, 32)
    first = averaged.patients[0]
    own = [r.patients[first].probabilities for r in results if first in r.patients]
    assert len(own) == 4
    np.testing.assert_allclose(averaged.probabilities[0], np.mean(own, axis=0))


def test_copying_a_repeat_changes_no_interval_on_patients() -> None:
    once = folds(BINARY, repeats=1)
    copied = [
        FoldResult(r, f.fold, f.threshold, 1.0, (5,), ((),), f.patients)
        for r in range(10)
        for f in once
    ]
    figures = []
    for results in (once, copied):
        table = summary.fold_table(results, BINARY, "APL", 32)
        averaged = summary.average(results, BINARY, "APL")
        figures.append(summary.headline(averaged, table, BINARY, CONFIG))
    for name in ("auc", "auc_repeats", "sensitivity", "balanced_accuracy"):
        one, ten = figures[0][name], figures[1][name]
        assert (ten.value, ten.low, ten.high) == pytest.approx((one.value, one.low, one.high))


def test_calls_use_each_folds_own_threshold() -> None:
    low = FoldResult(0, 0, 0.2, 1.0, (1,), ((),), {"a": PatientScore("APL", (0.7, 0.3), 5)})
    high = FoldResult(0, 1, 0.5, 1.0, (1,), ((),), {"b": PatientScore("APL", (0.7, 0.3), 5)})
    averaged = summary.average([low, high], BINARY, "APL")
    assert averaged.calls.tolist() == [1, 0]


def test_headline_of_two_classes() -> None:
    results = folds(BINARY, repeats=2)
    table = summary.fold_table(results, BINARY, "APL", 32)
    averaged = summary.average(results, BINARY, "APL")
    found = summary.headline(averaged, table, BINARY, CONFIG)
    assert "macro_auc" not in found
    assert found["auc"] == delong_interval(averaged.is_positive, averaged.score)
    assert found["auc_folds"].value == pytest.approx(np.mean([row["auc"] for row in table]))
    assert 0 <= found["auc_folds"].low <= found["auc_folds"].high <= 1
    counts = np.array(summary.confusion_part(averaged, 2))
    assert found["sensitivity"].value == pytest.approx(counts[1, 1] / counts[1].sum())
    assert found["specificity"].value == pytest.approx(counts[0, 0] / counts[0].sum())
    assert found["accuracy"].value == pytest.approx(np.trace(counts) / 32)
    assert all(e.method for e in found.values())


def test_patients_that_are_all_ranked_right_are_no_certainty() -> None:
    perfect = [
        FoldResult(r, k, 0.5, 1.0, (1,), ((),), {
            f"{label} {i}": PatientScore(label, (1 - p, p), 5)
            for label, p in (("AML", 0.1), ("APL", 0.9))
            for i in range(3 * k, 3 * k + 3)
        })
        for r in range(2) for k in range(2)
    ]  # fmt: skip
    table = summary.fold_table(perfect, BINARY, "APL", 12)
    averaged = summary.average(perfect, BINARY, "APL")
    found = summary.headline(averaged, table, BINARY, CONFIG)
    exact = clopper_pearson(6, 6, CONFIG.confidence)
    names = ["auc", "auc_bootstrap", "auc_repeats", "auc_folds", "average_precision"]
    for name in (*names, "balanced_accuracy"):
        assert (found[name].value, found[name].low, found[name].high) == (1, exact.low, 1), name


def test_three_classes_are_one_against_the_rest_with_a_macro_mean() -> None:
    results = folds(THREE, repeats=1)
    table = summary.fold_table(results, THREE, "APL", 48)
    averaged = summary.average(results, THREE, "APL")
    found = summary.headline(averaged, table, THREE, CONFIG)
    assert averaged.is_positive.sum() == 16
    assert 0.5 < found["macro_auc"].value < 1
    counts = np.array(summary.confusion_part(averaged, 3))
    assert counts.shape == (3, 3)
    assert counts.sum(axis=1).tolist() == [16, 16, 16]
    called = averaged.calls == 2
    np.testing.assert_array_equal(called, averaged.margin >= 0)


def test_one_class_against_the_rest_is_as_sure_as_the_smaller_of_the_two() -> None:
    counts = {"ALL": 3, "AML": 9, "APL": 6}
    p = dict(zip(THREE, np.eye(3), strict=True))
    patients = {
        f"{label} {i}": PatientScore(label, tuple(p[label]), 5)
        for label, n in counts.items()
        for i in range(n)
    }
    halves = [dict(list(patients.items())[k::2]) for k in range(2)]
    perfect = [FoldResult(0, k, 0.5, 1.0, (1,), ((),), half) for k, half in enumerate(halves)]
    table = summary.fold_table(perfect, THREE, "APL", 18)
    found = summary.headline(summary.average(perfect, THREE, "APL"), table, THREE, CONFIG)
    for name, n in (("auc", 6), ("auc_bootstrap", 6), ("auc_folds", 6), ("macro_auc", 3)):
        assert (found[name].value, found[name].low) == (1, clopper_pearson(n, n).low), name


def test_spread_is_named_apart_from_intervals() -> None:
    table = summary.fold_table(folds(BINARY, repeats=2), BINARY, "APL", 32)
    spread = summary.fold_spread(table)
    values = [row["auc"] for row in table]
    assert spread["auc"] == {"mean": np.mean(values), "sd": np.std(values, ddof=1)}
    assert spread["threshold"]["mean"] == pytest.approx(0.45)
    assert table[0]["n_train"] == table[0]["n_test"] == 16


def test_without_smudge_uses_the_clean_probabilities() -> None:
    results = folds(BINARY, repeats=1)
    assert summary.smudge_part(results, BINARY, "APL", 0.95) is None
    perfect = {
        p: PatientScore(s.label, s.probabilities, 9, (0.0, 1.0) if s.label == "APL" else (1.0, 0.0))
        for p, s in results[0].patients.items()
    }
    changed = [FoldResult(0, 0, 0.4, 1.0, (5,), ((),), perfect), results[1]]
    part = summary.smudge_part(changed, BINARY, "APL", 0.95)
    assert part is not None
    assert part["n_patients_with_smudge"] == 16
    before = delong_interval(*_binary(summary.average(results, BINARY, "APL")))
    assert part["auc"]["value"] > before.value


def _binary(averaged: summary.Averaged) -> tuple[np.ndarray, np.ndarray]:
    return averaged.is_positive, averaged.score


def test_curves_end_in_the_corners_and_calibration_counts_patients() -> None:
    averaged = summary.average(folds(BINARY, repeats=1), BINARY, "APL")
    curve = summary.roc_part(averaged)
    assert (curve["fpr"][0], curve["tpr"][-1]) == (0, 1)
    part = summary.calibration_part(averaged, 0.95)
    assert sum(b["n"] for b in part["bins"]) == 32
    assert 0 <= part["error"] <= 1
