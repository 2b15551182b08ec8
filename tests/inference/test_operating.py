"""Operating points: limits from patients that were held out."""

from __future__ import annotations

import numpy as np
import pytest

from millie.config import PredictionConfig
from millie.inference.operating import call_rule, promise

LABELS = ("AML", "APL")
APL = np.linspace(0.3, 0.95, 22)
AML = np.linspace(0.02, 0.7, 60)
P = np.concatenate([AML, APL])
HELD = (np.stack([1 - P, P], axis=1), np.repeat([0, 1], [60, 22]))


def limits(point: str, **settings: float) -> tuple[float, float]:
    config = PredictionConfig(operating_point=point, **settings)  # type: ignore[arg-type]
    rule = call_rule("APL", 0.5, LABELS, HELD, config, {})
    return rule.excluded_below, rule.threshold


def test_each_point_moves_one_limit_away_from_the_threshold() -> None:
    assert limits("balanced") == (0.5, 0.5)
    assert limits("sensitive") == (pytest.approx(0.3), 0.5)
    assert limits("specific") == (0.5, pytest.approx(0.7))


def test_a_lower_target_allows_a_narrower_gap() -> None:
    below, called = limits("sensitive", target_sensitivity=0.6)
    assert called == 0.5
    assert 0.3 < below <= 0.5


@pytest.mark.parametrize("point", ["sensitive", "specific"])
def test_limits_never_cross_the_threshold(point: str) -> None:
    apart = np.concatenate([np.full(60, 0.1), np.full(22, 0.9)])
    held = (np.stack([1 - apart, apart], axis=1), HELD[1])
    config = PredictionConfig(operating_point=point)  # type: ignore[arg-type]
    rule = call_rule("APL", 0.5, LABELS, held, config, {})
    assert (rule.excluded_below, rule.threshold) == (0.5, 0.5)


def test_of_nobody_held_out_the_threshold_is_the_limit() -> None:
    none = (np.zeros((0, 2)), np.zeros(0, int))
    rule = call_rule("APL", 0.4, LABELS, none, PredictionConfig(), {})
    assert (rule.excluded_below, rule.threshold) == (0.4, 0.4)


def test_apl_is_excluded_by_its_own_limit_where_another_class_has_the_threshold() -> None:
    rule = call_rule("AML", 0.5, LABELS, HELD, PredictionConfig(), {})
    assert (rule.excluded_below, rule.threshold) == (pytest.approx(0.3), 0.5)


def test_what_a_limit_assures_is_said_with_the_number_of_patients() -> None:
    config = PredictionConfig()
    text = promise(call_rule("APL", 0.5, LABELS, HELD, config, {}), LABELS, HELD, config)
    assert "suspected at a probability of 0.500" in text
    assert "below 0.300" in text
    assert "96% of further patients" in text
    assert "87% with 95 % confidence; to assure 95% takes 59 patients" in text
    none = (np.zeros((0, 2)), np.zeros(0, int))
    short = promise(call_rule("APL", 0.5, LABELS, none, config, {}), LABELS, none, config)
    assert short in text.replace("0.300", "0.500")
