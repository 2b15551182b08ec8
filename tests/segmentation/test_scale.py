"""Scale: what red cells' outlines and the leukocyte in view say together."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millie.config import SegmentationConfig
from millie.segmentation import segment
from millie.segmentation.scale import (
    Expected,
    expected_diameter,
    mode_diameter,
    pooled_diameter,
)
from millie.segmentation.stain import stain_map

UM_PX = 0.11
BACKGROUND = np.array([235.0, 230.0, 225.0])
RED_CELL = np.array([0.12, 0.30, 0.22])
CYTOPLASM = np.array([0.25, 0.25, 0.05])
NUCLEUS = np.array([0.85, 1.15, 0.25])
PLATELET = np.array([0.6, 0.8, 0.2])


def arcs(*pairs: tuple[float, float]) -> np.ndarray:
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)


@given(diameter=st.floats(20, 200), off=st.floats(-1.2, 0.5))
def test_three_full_circles_outvote_an_unusual_leukocyte(diameter: float, off: float) -> None:
    expected = Expected(diameter * float(np.exp(off)), lone=True)
    found, weight = mode_diameter(arcs(*[(diameter, 1.0)] * 3), expected)
    assert found == pytest.approx(diameter, rel=0.03)
    assert weight == pytest.approx(3.0)


@given(expected=st.floats(20, 200))
def test_without_arcs_the_leukocyte_decides_alone(expected: float) -> None:
    found, weight = mode_diameter(arcs(), Expected(expected, lone=True))
    assert (found, weight) == (expected, 0.0)


@given(off=st.floats(-0.4, 0.4), weight=st.floats(0.2, 20.0), lone=st.booleans())
def test_diameter_lies_between_arcs_and_leukocyte(off: float, weight: float, *, lone: bool) -> None:
    expected = Expected(50.0 * float(np.exp(off)), lone)
    found = expected.balanced(float(np.log(50.0)), weight)
    low, high = sorted([50.0, expected.red_cell_px])
    assert low - 1e-6 <= found <= high + 1e-6
    more = expected.balanced(float(np.log(50.0)), 2 * weight)
    assert abs(more - 50.0) <= abs(found - 50.0) + 1e-9


def test_nothing_seen_is_no_evidence() -> None:
    assert mode_diameter(arcs()) == (0.0, 0.0)


def test_leukocyte_decides_between_two_modes() -> None:
    both = arcs((40, 0.4), (90, 0.2))
    assert mode_diameter(both, Expected(42.0))[0] == pytest.approx(40, rel=0.04)
    assert mode_diameter(both, Expected(88.0))[0] == pytest.approx(90, rel=0.04)


@given(factor=st.floats(0.3, 3.0))
def test_larger_pixels_give_proportionally_smaller_diameters(factor: float) -> None:
    seen = np.array([[70.0, 0.6], [74.0, 0.5], [30.0, 0.3], [110.0, 0.2]])
    scaled = seen * np.array([factor, 1.0])
    found = mode_diameter(seen, Expected(80.0))[0]
    assert mode_diameter(scaled, Expected(80.0 * factor))[0] == pytest.approx(
        found * factor, rel=0.03
    )


def test_images_that_contradict_each_other_are_not_pooled() -> None:
    near, far = arcs(*[(80.0, 1.0)] * 4), arcs(*[(40.0, 1.0)] * 4)
    assert pooled_diameter([near, far], [Expected(80.0), Expected(40.0)]) == (0.0, 0.0)
    assert pooled_diameter([near, near], [Expected(80.0)] * 2)[0] == pytest.approx(80.0)


def _disc(density: np.ndarray, centre: tuple, radius: float, value: np.ndarray) -> None:
    point = tuple(round(v / UM_PX) for v in centre)
    cv2.circle(density, point, round(radius / UM_PX), tuple(map(float, value)), -1)


def test_platelet_standing_alone_is_not_taken_for_the_leukocyte() -> None:
    density = np.zeros((330, 330, 3), np.float32)
    for x, y in ((12.0, 25.0), (24.0, 11.0)):  # red cells that touch the leukocyte
        _disc(density, (x, y), 3.6, RED_CELL)
    _disc(density, (18, 18), 6.0, CYTOPLASM)
    _disc(density, (18, 18), 4.3, NUCLEUS)
    _disc(density, (30, 31), 1.2, PLATELET)
    density = cv2.GaussianBlur(density, (0, 0), 1.0)
    image = np.clip(BACKGROUND * np.exp(-density), 0, 255).astype(np.uint8)
    found = segment(image, None, SegmentationConfig())
    assert 0.6 * UM_PX < found.diagnostics["um_px"] < 1.6 * UM_PX
    assert len(found.regions) == 1


def _expected_px(lobes: list[tuple[float, float, float]], holes: int = 0, size: int = 240) -> float:
    """Expected diameter of a red cell, in pixels, beside a nucleus of these discs, in um."""
    density = np.zeros((240, 240, 3), np.float32)
    _disc(density, (13, 13), 7.5, CYTOPLASM)
    for x, y, radius in lobes:
        _disc(density, (x, y), radius, NUCLEUS)
    for k in range(holes):  # vacuoles and pale chromatin
        _disc(density, (11.5 + 1.6 * (k % 3), 11.5 + 1.6 * (k // 3)), 0.45, CYTOPLASM)
    density = cv2.GaussianBlur(density, (0, 0), 1.0)
    image = np.clip(BACKGROUND * np.exp(-density), 0, 255).astype(np.uint8)
    image = np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
    return expected_diameter(stain_map(image)).red_cell_px


def test_pale_spots_in_a_nucleus_do_not_change_its_size() -> None:
    whole = [(13.0, 13.0, 5.0)]
    assert _expected_px(whole, holes=9) == pytest.approx(_expected_px(whole), rel=0.05)


def test_expected_diameter_follows_the_magnification() -> None:
    whole = [(13.0, 13.0, 5.0)]
    assert _expected_px(whole, size=120) == pytest.approx(_expected_px(whole) / 2, rel=0.05)


def test_a_segmented_nucleus_is_as_good_a_measure_as_a_round_one() -> None:
    lobes = [(10.5, 11.0, 2.4), (13.5, 15.0, 2.4), (16.0, 11.5, 2.4)]
    truth = SegmentationConfig().red_cell_diameter_um / UM_PX
    for shape in ([(13.0, 13.0, 4.6)], lobes):
        assert 0.75 * truth < _expected_px(shape) < 1.4 * truth
