"""Figures of merit, binary and with several classes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from millie.errors import ConfigError
from millie.statistics.metrics import (
    average_precision,
    balanced_accuracy,
    choose_positive,
    confusion,
    likeliest,
    macro_auc,
    make_calls,
    precision_recall,
    roc,
    roc_auc,
    sensitivity,
    specificity,
)

POSITIVE = np.array([True, True, False, False, False])
SCORE = np.array([0.9, 0.4, 0.5, 0.2, 0.1])


def test_known_values() -> None:
    assert roc_auc(POSITIVE, SCORE) == pytest.approx(5 / 6)
    assert average_precision(POSITIVE, SCORE) == pytest.approx((1 + 2 / 3) / 2)
    assert sensitivity(POSITIVE, SCORE >= 0.45) == 0.5
    assert specificity(POSITIVE, SCORE >= 0.45) == pytest.approx(2 / 3)


def test_rank_auc_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for decimals in (0, 1, 6):
        positive, score = rng.random(60) < 0.3, np.round(rng.normal(size=60), decimals)
        assert roc_auc(positive, score) == pytest.approx(roc_auc_score(positive, score), abs=1e-12)


def test_area_under_the_drawn_curve_is_the_auc() -> None:
    curve = roc(POSITIVE, SCORE)
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(roc_auc(POSITIVE, SCORE))
    assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)


def test_binary_macro_auc_is_the_auc() -> None:
    p = np.stack([1 - SCORE, SCORE], axis=1)
    assert macro_auc(POSITIVE.astype(int), p) == pytest.approx(roc_auc(POSITIVE, SCORE))


def test_macro_auc_is_the_mean_of_one_against_the_rest() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 20)
    p = rng.dirichlet(np.ones(3), 60)
    each = [roc_auc(truth == c, p[:, c]) for c in range(3)]
    assert macro_auc(truth, p) == pytest.approx(np.mean(each))


def test_calls_use_the_threshold_for_the_positive_class_alone() -> None:
    p = np.array([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3], [0.5, 0.1, 0.4]])
    assert make_calls(p, positive=2, threshold=0.35).tolist() == [0, 1, 2]
    assert make_calls(p, positive=2, threshold=np.array([0.1, 0.9, 0.9])).tolist() == [2, 1, 0]


def test_what_probabilities_lack_to_one_may_be_likelier_than_each() -> None:
    assert likeliest([0.2, 0.7, 0.1], ["ALL", "AML", "APL"]) == "AML"
    assert likeliest([0.3, 0.1], ["AML", "APL"]) == ""
    assert likeliest([0.1, 0.5], ["AML", "APL"]) == "APL"
    assert likeliest([0.5, 0.5], ["AML", "APL"]) == "AML"


def test_confusion_has_diagnoses_as_rows_and_all_classes() -> None:
    counts = confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_balanced_accuracy_is_the_mean_of_recalls() -> None:
    truth, calls = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    assert balanced_accuracy(truth, calls) == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize(
    ("truth", "calls", "value"),
    [
        ([0, 0], [0, 0], 1.0),
        ([0, 0], [0, 1], 0.5),
        ([0, 0], [2, 2], 0.0),
        ([0, 2, 2], [1, 2, 1], 0.25),
    ],
)
def test_balanced_accuracy_counts_the_classes_that_occur(
    truth: list[int], calls: list[int], value: float
) -> None:
    """Without a warning where a class is called that no patient has."""
    assert balanced_accuracy(np.array(truth), np.array(calls)) == value


def test_recall_ends_at_all_positives_and_precision_at_their_share() -> None:
    positive = np.array([True, False, True, False, False])
    precision, recall = precision_recall(positive, np.array([0.9, 0.8, 0.8, 0.3, 0.1]))
    np.testing.assert_allclose(recall, [0.5, 1, 1, 1])
    np.testing.assert_allclose(precision, [1, 2 / 3, 0.5, 0.4])


def test_positive_class_is_as_wanted_or_apl_or_the_rarest() -> None:
    assert choose_positive(["AML", "APL"], ["AML"], None) == "APL"
    assert choose_positive(["AML", "APL"], ["AML"], "AML") == "AML"
    assert choose_positive(["ALL", "normal"], ["ALL", "ALL", "normal"], None) == "normal"
    with pytest.raises(ConfigError, match=r"positive='CML': expected one of AML, APL"):
        choose_positive(["AML", "APL"], [], "CML")


@pytest.mark.parametrize(
    "figure", [roc_auc, average_precision, roc, precision_recall, sensitivity, specificity]
)
def test_one_class_is_refused(figure) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="needs both classes"):
        figure(np.ones(3, bool), np.ones(3, bool))


def test_average_precision_equals_scikit_learn_to_the_bit() -> None:
    rng = np.random.default_rng(1)
    for decimals in (0, 1, 6):
        for n in (3, 40, 82):
            positive = rng.random(n) < 0.4
            positive[:2] = True, False
            score = np.round(rng.normal(size=n), decimals)
            assert average_precision(positive, score) == average_precision_score(positive, score)
