"""Objects: what tells leukocytes from platelets depends on neither order nor company."""

from __future__ import annotations

import numpy as np
import pytest

from millie.segmentation import object_model
from millie.segmentation.objects import FEATURES, leukocyte_odds

TYPICAL = {
    "log_nucleus_um2": 4.0, "log_body_um2": 4.7, "log_contrast": 0.9, "texture": 0.15,
    "edge": 0.7, "solidity": 0.93, "roundness": 0.75, "surround": 0.35, "fine_texture": 0.03,
    "over_red_cells": 0.9, "tint": 0.45, "outskirts": 0.3,
}  # fmt: skip
"""A neutrophil's nucleus, about."""
SPECK = TYPICAL | {
    "log_nucleus_um2": 1.8, "log_body_um2": 2.3, "log_contrast": 0.2, "texture": 0.3, "edge": 0.5,
    "over_red_cells": 0.2, "tint": 0.3, "fine_texture": 0.06,
}  # fmt: skip


def rows(*objects: dict[str, float]) -> np.ndarray:
    return np.array([[one[name] for name in FEATURES] for one in objects])


def test_objects_are_judged_alike_alone_and_together() -> None:
    values = np.random.default_rng(0).normal(rows(TYPICAL), 0.3, (50, len(FEATURES)))
    together = leukocyte_odds(values)
    alone = [float(leukocyte_odds(row[None])[0]) for row in values]
    assert together == pytest.approx(alone)
    assert leukocyte_odds(values[::-1]) == pytest.approx(together[::-1])


def test_a_nucleus_is_a_leukocytes_and_a_speck_is_not() -> None:
    nucleus, speck = leukocyte_odds(rows(TYPICAL, SPECK)).tolist()
    assert nucleus > 1
    assert speck < -1


@pytest.mark.parametrize(
    ("name", "sign"),
    [("log_nucleus_um2", 1), ("edge", 1), ("over_red_cells", 1),
     ("texture", -1), ("fine_texture", -1)],
)  # fmt: skip
def test_evidence_follows_what_is_known(name: str, sign: int) -> None:
    """More size, edge and density never speak against a leukocyte, more texture never for it."""
    column = FEATURES.index(name)
    values = np.random.default_rng(1).normal(rows(TYPICAL), 0.3, (200, len(FEATURES)))
    more = values.copy()
    more[:, column] += 0.4 * sign
    assert (object_model.evidence(more) >= object_model.evidence(values) - 1e-9).all()


def test_a_large_nucleus_is_kept_however_it_looks() -> None:
    large = SPECK | {"log_nucleus_um2": np.log(120.0), "log_body_um2": np.log(140.0)}
    assert leukocyte_odds(rows(large))[0] > 0


def test_extreme_values_give_finite_odds() -> None:
    values = rows(TYPICAL) * np.array([[1e6], [-1e6], [0.0]])
    assert np.isfinite(object_model.evidence(values)).all()
