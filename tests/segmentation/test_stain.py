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


STRAW = (0.06, 0.30, 0.33)
PURPLE = (0.32, 0.40, 0.24)


def field(shade: float = 0.0, red_cell: tuple[float, ...] = DENSITIES["red cell"]) -> np.ndarray:
    """Red cells in rows, one leukocyte in the middle; ``shade`` darkens the corners."""
    density = np.zeros((240, 320, 3), np.float32)
    for x in range(20, 320, 40):
        for y in (25, 65, 175, 215):
            cv2.circle(density, (x, y), 14, red_cell, -1)
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


def test_straw_coloured_red_cells_are_no_reason_to_refuse() -> None:
    assert stain_map(field(red_cell=STRAW)).refusal == ""


def test_brown_and_blue_dyes_without_a_romanowsky_stain_are_refused() -> None:
    brown = field(red_cell=(0.27, 0.57, 0.78))
    brown[80:160, 120:200] = brown[:80, 120:200]
    assert "Romanowsky" in stain_map(brown).refusal


@pytest.mark.parametrize("shade", [0.0, 0.2, 0.32])
def test_uneven_light_is_not_taken_for_red_cells(shade: float) -> None:
    found = stain_map(field(shade)).red_cell_density
    assert found == pytest.approx(sum(DENSITIES["red cell"]), rel=0.25)


@pytest.mark.parametrize("touching", [False, True])
def test_a_crop_without_red_cells_has_no_red_cell_density(touching: bool) -> None:
    """Neither a lone leukocyte's cytoplasm is one, nor that of a cell at the border."""
    top = 100 if touching else 85
    stain = stain_map(np.ascontiguousarray(field()[top:155, 125:195]))
    assert stain.red_cell_density == 0
    assert stain.kinds[120 - top, 35] == 0


def test_purple_red_cells_are_not_taken_for_nuclei() -> None:
    stain = stain_map(field(red_cell=PURPLE))
    assert stain.red_cell_density == pytest.approx(sum(PURPLE), rel=0.15)
    assert stain.kinds[25, 20] != 0
    assert stain.kinds[120, 160] == 0
