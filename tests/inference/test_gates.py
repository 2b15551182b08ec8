from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from millie.bags.store import BagReader
from millie.config import PredictionConfig
from millie.errors import BundleError, ConfigError
from millie.inference.calls import CallRule, decide, state_of
from millie.inference.gates import (
    distance_limit,
    failed_gates,
    quality_limits,
    reference_distance,
    reference_features,
)
from millie.inference.quality import SampleQuality, crop_sharpness, measure_bag
from millie.types import Reason

GOOD = SampleQuality(300, 300, 0.1, 0.2, 0.3, 1.0)
CONFIG = PredictionConfig()
LIMITS = {
    "min_sharpness": 0.1, "min_cell_fraction": 0.2, "max_cell_fraction": 0.5, "max_distance": 3.0,
}  # fmt: skip
RULE = CallRule("APL", 0.5, 0.5, LIMITS)


def points(probabilities: dict[str, float]) -> dict[str, tuple[float, float]]:
    return {label: (p, p) for label, p in probabilities.items()}


def state(
    probabilities: dict[str, float],
    quality: SampleQuality = GOOD,
    rule: CallRule = RULE,
    **ranges: tuple[float, float],
) -> tuple[str, tuple[Reason, ...]]:
    failed = failed_gates(quality, rule.limits, CONFIG)
    return decide(probabilities, rule, quality, failed, CONFIG, points(probabilities) | ranges)


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ({"normal": 0.9, "AML": 0.05, "APL": 0.05}, "NO_SIGNAL"),
        ({"normal": 0.1, "AML": 0.8, "APL": 0.1}, "AML"),
        ({"normal": 0.1, "AML": 0.1, "APL": 0.8}, "APL_SUSPECT"),
    ],
)
def test_a_good_sample_gets_its_class(probabilities: dict[str, float], expected: str) -> None:
    assert state(probabilities) == (expected, ())


def test_the_threshold_is_about_the_positive_class() -> None:
    low = CallRule("APL", 0.2, 0.2, {})
    high = CallRule("APL", 0.9, 0.9, {})
    probabilities = {"AML": 0.6, "APL": 0.4}
    assert state(probabilities, rule=low)[0] == "APL_SUSPECT"
    assert state(probabilities, rule=high)[0] == "AML"
    assert state({"AML": 0.2, "APL": 0.8}, rule=high)[0] == "URGENT_INDETERMINATE"


BAD = [
    ({"n_usable": 49}, "too few cells: 49 usable, at least 50 needed for a call"),
    ({"n_usable": 0}, "too few cells: 0 usable"),
    ({"smudge_fraction": 0.6}, "smudge"),
    ({"sharpness": 0.05}, "out of focus"),
    ({"cell_fraction": 0.05}, "cells too small"),
    ({"cell_fraction": 0.6}, "cells too large"),
    ({"distance": 9.0}, "unlike the training samples"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_a_failed_gate_forbids_every_class(change: dict[str, float], words: str) -> None:
    quality = dataclasses.replace(GOOD, **change)
    for calm in ({"normal": 0.9, "APL": 0.1}, {"AML": 0.9, "APL": 0.1}):
        found, reasons = state(calm, quality)
        assert found == "INDETERMINATE"
        assert any(words in reason.text for reason in reasons)
    found, reasons = state({"AML": 0.1, "APL": 0.9}, quality)
    assert found == "URGENT_INDETERMINATE"
    assert any(words in reason.text for reason in reasons)


@pytest.mark.parametrize(
    ("n_usable", "normal", "aml", "apl"),
    [
        (49, "INDETERMINATE", "INDETERMINATE", "URGENT_INDETERMINATE"),
        (50, "INDETERMINATE", "AML", "APL_SUSPECT"),
        (199, "INDETERMINATE", "AML", "APL_SUSPECT"),
        (200, "NO_SIGNAL", "AML", "APL_SUSPECT"),
    ],
)
def test_the_number_of_cells_opens_classes(n_usable: int, normal: str, aml: str, apl: str) -> None:
    quality = dataclasses.replace(GOOD, n_usable=n_usable)
    for label, expected in {"normal": normal, "AML": aml, "APL": apl}.items():
        probabilities = {k: 0.9 if k == label else 0.05 for k in ("normal", "AML", "APL")}
        assert state(probabilities, quality)[0] == expected


ORDER = {"NO_SIGNAL": 0, "AML": 1, "INDETERMINATE": 1, "APL_SUSPECT": 2, "URGENT_INDETERMINATE": 2}
QUALITIES = st.builds(
    SampleQuality,
    n_cells=st.just(1000), n_usable=st.integers(0, 1000), smudge_fraction=st.floats(0, 1),
    sharpness=st.floats(0, 1), cell_fraction=st.floats(0, 1), distance=st.floats(0, 10),
)  # fmt: skip


@given(QUALITIES, st.tuples(st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0.01, 1)))
def test_gates_only_move_towards_a_person(
    quality: SampleQuality, weights: tuple[float, float, float]
) -> None:
    total = sum(weights)
    probabilities = dict(zip(("normal", "AML", "APL"), (w / total for w in weights), strict=True))
    free, _ = state(probabilities, GOOD)
    gated, reasons = state(probabilities, quality)
    assert gated == free or gated in {"INDETERMINATE", "URGENT_INDETERMINATE"}
    assert ORDER[gated] >= ORDER[free]
    assert bool(reasons) == (gated in {"INDETERMINATE", "URGENT_INDETERMINATE"})


def test_urgency_has_its_own_limit_if_the_bundle_states_one() -> None:
    rule = CallRule("APL", 0.8, 0.3, {})
    quality = dataclasses.replace(GOOD, n_usable=3)
    assert state({"AML": 0.6, "APL": 0.4}, quality, rule)[0] == "URGENT_INDETERMINATE"
    assert state({"AML": 0.75, "APL": 0.25}, quality, rule)[0] == "INDETERMINATE"


def test_between_its_limits_apl_is_neither_called_nor_excluded() -> None:
    rule = CallRule("APL", 0.8, 0.3, {})
    assert state({"AML": 0.75, "APL": 0.25}, rule=rule) == ("AML", ())
    found, (reason,) = state({"AML": 0.6, "APL": 0.4}, rule=rule)
    assert found == "URGENT_INDETERMINATE"
    assert reason.text.startswith("APL is not excluded")
    assert state({"AML": 0.15, "APL": 0.85}, rule=rule) == ("APL_SUSPECT", ())


def test_a_call_whose_interval_crosses_a_limit_is_no_call() -> None:
    """Other cells of the same patient might have said otherwise."""
    found, (reason,) = state({"AML": 0.7, "APL": 0.3}, APL=(0.1, 0.55))
    assert found == "URGENT_INDETERMINATE"
    assert "between 0.10 and 0.55" in reason.text
    assert state({"AML": 0.7, "APL": 0.3}, APL=(0.1, 0.45)) == ("AML", ())


def test_apl_is_suspected_by_its_probability_alone() -> None:
    """A missed emergency weighs more than a false alarm: the interval takes no suspicion away."""
    assert state({"AML": 0.3, "APL": 0.7}, APL=(0.4, 0.9)) == ("APL_SUSPECT", ())


def test_a_disease_is_named_only_where_health_is_excluded() -> None:
    probabilities = {"normal": 0.3, "ALL": 0.6, "APL": 0.1}
    assert state(probabilities) == ("ALL", ())
    found, (reason,) = state(probabilities, normal=(0.1, 0.6))
    assert found == "INDETERMINATE"
    assert reason.text.startswith("leukaemia is not certain: probability 0.70, between 0.40 and ")
    assert state(probabilities, normal=(0.1, 0.45)) == ("ALL", ())  # likelier than not, always
    strict = CONFIG.model_copy(update={"min_disease_probability": 0.8})
    ranges = points(probabilities)
    assert decide(probabilities, RULE, GOOD, (), strict, ranges)[0] == "INDETERMINATE"
    found, reasons = state({"normal": 0.6, "ALL": 0.35, "APL": 0.05}, normal=(0.4, 0.8))
    assert found == "INDETERMINATE"
    (reason,) = reasons
    assert reason.text.startswith(
        "leukaemia is not excluded: probability of no disease between 0.40 and 0.80"
    )


def test_which_disease_must_be_settled_too() -> None:
    for probabilities in ({"ALL": 0.46, "AML": 0.44, "APL": 0.1},
                          {"ALL": 0.46, "AML": 0.44, "APL": 0.05, "normal": 0.05}):  # fmt: skip
        assert state(probabilities)[0] == "ALL"
        found, (reason,) = state(probabilities, ALL=(0.2, 0.8), AML=(0.1, 0.7))
        assert found == "INDETERMINATE"
        assert reason.text.startswith(
            "which disease is not settled: probability of ALL between 0.20 and 0.80, AML"
        )


def test_without_apl_the_positive_class_is_urgent() -> None:
    rule = CallRule("ALL", 0.5, 0.5, {})
    quality = dataclasses.replace(GOOD, n_usable=3)
    assert state({"normal": 0.1, "ALL": 0.9}, quality, rule)[0] == "URGENT_INDETERMINATE"


def test_unknown_limits_are_refused_and_missing_ones_pass() -> None:
    with pytest.raises(BundleError, match=r"does not know \(blur_kernel\)"):
        failed_gates(GOOD, {"blur_kernel": 1.0}, CONFIG)
    blind = dataclasses.replace(GOOD, sharpness=0.0, cell_fraction=math.nan, distance=None)
    assert failed_gates(blind, {}, CONFIG) == ()


def test_bundle_may_raise_the_number_of_cells_but_not_lower_it() -> None:
    quality = dataclasses.replace(GOOD, n_usable=60)
    assert failed_gates(quality, {"min_cells": 100}, CONFIG)
    assert not failed_gates(quality, {"min_cells": 10}, CONFIG)
    assert failed_gates(dataclasses.replace(GOOD, n_usable=20), {"min_cells": 10}, CONFIG)


def test_states_of_labels() -> None:
    negative = CONFIG.negative_labels
    assert [state_of(x, negative) for x in ("APL", "AML", "ALL", "normal", "Healthy")] == [
        "APL_SUSPECT", "AML", "ALL", "NO_SIGNAL", "NO_SIGNAL",
    ]  # fmt: skip
    assert state_of("Gesund", ("gesund",)) == "NO_SIGNAL"
    assert state_of("normal", ("gesund",)) == "normal"


def test_labels_that_mean_no_disease_are_a_setting() -> None:
    rule = CallRule("AML", 0.5, 0.5, {})
    words = CONFIG.model_copy(update={"negative_labels": ("gesund",)})
    calls = {"AML": 0.1, "gesund": 0.9}
    assert decide(calls, rule, GOOD, (), words, points(calls)) == ("NO_SIGNAL", ())
    assert decide(calls, rule, GOOD, (), CONFIG, points(calls)) == ("gesund", ())


def textures(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)


def test_sharpness_falls_with_blur_and_ignores_contrast() -> None:
    sharp = textures().astype(np.float64)
    blurred = sum(np.roll(sharp, (i, j), (1, 2)) for i in range(3) for j in range(3)) / 9
    faint = 100 + sharp / 4
    values = [crop_sharpness(x.astype(np.uint8)) for x in (sharp, blurred, faint)]
    assert (values[1] < 0.3 * values[0]).all()
    np.testing.assert_allclose(values[2], values[0], rtol=0.05)
    assert crop_sharpness(np.full((2, 9, 9, 3), 7, np.uint8)).tolist() == [0, 0]


def test_a_bag_is_measured(make_bag: Callable[..., BagReader]) -> None:
    quality = measure_bag(make_bag(7, smudge=True, quality=0.0))
    assert (quality.n_cells, quality.n_usable, quality.smudge_fraction) == (7, 0, 1)
    assert quality.cell_fraction == pytest.approx(0.25)
    assert quality.sharpness > 0
    empty = measure_bag(make_bag(0))
    assert (empty.n_cells, empty.n_usable, empty.smudge_fraction) == (0, 0, 0)
    assert math.isnan(empty.sharpness)


def test_limits_admit_every_sample_they_come_from() -> None:
    rng = np.random.default_rng(0)
    samples = [
        SampleQuality(300, 300, *rng.uniform(0.05, 0.9, 3), distance=None) for _ in range(20)
    ]
    limits = quality_limits(samples)
    assert all(failed_gates(s, limits, CONFIG) == () for s in samples)
    small = dataclasses.replace(samples[0], cell_fraction=min(s.cell_fraction for s in samples) / 4)
    assert failed_gates(small, limits, CONFIG)
    with pytest.raises(ConfigError, match="at least one"):
        quality_limits([])


def test_a_foreign_sample_is_far() -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(40, 64, generator=generator)
    reference = reference_features(means)
    assert {k: tuple(v.shape) for k, v in reference.items()} == {
        "mean": (64,), "std": (64,), "distances": (40,),
    }  # fmt: skip
    fresh = torch.randn(200, 64, generator=generator)
    limit = distance_limit(reference)
    near = [reference_distance(reference, f) for f in fresh]
    assert np.mean([d is not None and d > limit for d in near]) <= 0.05
    far = reference_distance(reference, fresh[0] + 5)
    assert far is not None
    assert far > limit
    quality = dataclasses.replace(GOOD, distance=far)
    (reason,) = failed_gates(quality, {}, CONFIG, reference)
    assert "unlike the training samples" in reason.text
    assert reference_distance({}, fresh[0]) is None
    with pytest.raises(ConfigError, match="at least 3"):
        reference_features(means[:2])


def test_no_signal_is_not_given_where_disease_is_as_likely() -> None:
    rule = CallRule("APL", 0.5, 0.5, {})
    for doubtful in (
        {"normal": 0.35, "ALL": 0.3, "AML": 0.3, "APL": 0.05},
        {"normal": 0.45, "AML": 0.15, "APL": 0.40},
        {"normal": 0.5, "AML": 0.1, "APL": 0.4},
    ):
        found, reasons = state(doubtful, rule=rule)
        assert found == "INDETERMINATE"
        assert reasons[0].code in {"LEUKAEMIA_NOT_EXCLUDED", "LEUKAEMIA_NOT_CERTAIN"}
    assert state({"normal": 0.51, "AML": 0.25, "APL": 0.24}, rule=rule) == ("NO_SIGNAL", ())


def test_a_limit_on_what_cannot_be_measured_fails() -> None:
    blind = dataclasses.replace(GOOD, cell_fraction=math.nan)
    (reason,) = failed_gates(blind, {"min_cell_fraction": 0.2}, CONFIG)
    assert reason.code == "NOT_MEASURED"
    assert reason.text == "wrong scale, cells too small: fraction of crop cannot be measured"


def test_the_likeliest_class_below_its_threshold_is_never_called_something_else() -> None:
    rule = CallRule("APL", 0.6, 0.6, {})
    quality = SampleQuality(300, 300, 0.0, 1.0, 0.3, None)
    calls = {"ALL": 0.15, "AML": 0.3, "APL": 0.55}
    state, reasons = decide(calls, rule, quality, (), PredictionConfig(), points(calls))
    assert state == "URGENT_INDETERMINATE"
    (reason,) = reasons
    assert reason.text == "APL is the most likely class but below its threshold"
