"""Stain map: every pixel is of one kind, and padding or a fall-off of the light is told."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from millie.segmentation.stain import CYTOPLASM, EMPTY, RED, stain_map

BACKGROUND = np.array([235.0, 230.0, 225.0])
DENSITIES = {
    "nucleus": (0.85, 1.15, 0.25),
    "cytoplasm": (0.25, 0.25, 0.05),
    "red cell": (0.12, 0.30, 0.22),
}


def field(shade: float = 0.0) -> np.ndarray:
    """Red cells in rows, one leukocyte in the middle; ``shade`` darkens the corners."""
    density = np.zeros((240, 320, 3), np.float32)
    for x in range(20, 320, 40):
        for y in (25, 65, 175, 215):
            cv2.circle(density, (x, y), 14, DENSITIES["red cell"], -1)
    cv2.circle(density, (160, 120), 24, DENSITIES["cytoplasm"], -1)
    cv2.circle(density, (160, 120), 16, DENSITIES["nucleus"], -1)
    y, x = np.mgrid[-1:1:240j, -1:1:320j]
    light = np.exp(-shade * (x**2 + y**2))[:, :, None]
    noise = np.random.default_rng(0).normal(0, 2, density.shape)
    return np.clip(BACKGROUND * light * np.exp(-density) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shade", [0.0, 0.08])
def test_each_place_is_of_its_kind(shade: float) -> None:
    stain = stain_map(field(shade))
    assert stain.refusal == ""
    places = {0: (120, 160), CYTOPLASM: (120, 140), RED: (25, 20), EMPTY: (95, 40)}
    for kind, (y, x) in places.items():
        around = stain.kinds[y - 2 : y + 3, x - 2 : x + 3]
        assert np.count_nonzero(around == kind) >= 20, kind


def test_kinds_are_what_their_thresholds_say() -> None:
    stain = stain_map(field())
    kinds, score, density = stain.kinds, stain.score, stain.density
    assert set(np.unique(kinds)) <= {0, EMPTY, RED, CYTOPLASM}
    assert (density[kinds == EMPTY] < stain.empty_below).all()
    assert (score[kinds == CYTOPLASM] < stain.threshold).all()
    assert (density[kinds == RED] > 0.5 * stain.red_cell_density).all()
    assert (score[(kinds == 0)] >= stain.threshold).all()


def test_black_padding_is_nothing() -> None:
    image = field()
    image[:, :30] = 0
    stain = stain_map(image)
    assert not stain.valid[:, :30].any()
    assert stain.valid[:, 30:].all()
    assert not stain.score[:, :30].any()
    plain = stain_map(field())
    np.testing.assert_allclose(stain.background_rgb, plain.background_rgb, atol=2)
    assert stain.threshold == pytest.approx(plain.threshold, abs=0.03)
