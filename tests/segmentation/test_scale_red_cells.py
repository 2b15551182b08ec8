"""Scale: circles fitted to drawn red cells, and the levels at which they are looked for."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millie.segmentation.scale import red_cell_diameters, too_coarse
from millie.segmentation.stain import stain_map

BACKGROUND = np.array([235.0, 230.0, 225.0])
RED_CELL = np.array([0.12, 0.30, 0.22])


def red_cells(*circles: tuple[int, int, int]) -> np.ndarray:
    """Diameters fitted to red cells (x, y, radius) drawn in pixels, with weights."""
    image = np.empty((300, 400, 3), np.uint8)
    image[:] = BACKGROUND
    for x, y, radius in circles:
        red = np.round(BACKGROUND * np.exp(-RED_CELL))
        cv2.circle(image, (x, y), radius, red.tolist(), -1, cv2.LINE_AA)
    return red_cell_diameters(stain_map(image))


@pytest.mark.parametrize("radius", [9, 13, 18])
def test_circles_are_fitted_to_free_overlapping_and_cut_red_cells(radius: int) -> None:
    free = [(60 + 80 * k, 60, radius) for k in range(4)]
    cut = [(150, 0, radius), (399, 200, radius)]
    overlapping = [(100, 200, radius), (100 + round(1.5 * radius), 200, radius)]
    found = red_cells(*free, *cut, *overlapping)
    assert len(found) == 8
    assert found[:, 0] == pytest.approx(2 * radius, rel=0.1)
    assert np.count_nonzero(found[:, 1] > 0.9) == 4
    assert found[:, 1].min() > 0.3


def test_without_red_cells_of_a_fit_size_there_are_no_diameters() -> None:
    assert red_cells().shape == (0, 2)
    assert red_cells((100, 100, 3), (200, 150, 60)).shape == (0, 2)


@given(diameter=st.floats(20, 60))
def test_a_level_is_too_coarse_only_where_the_red_cells_seen_are_too_small(diameter: float) -> None:
    seen = np.tile([diameter, 1.0], (20, 1))
    assert too_coarse(seen, 10 / diameter)
    assert not too_coarse(seen, 13.5 / diameter)  # they still show there
    assert not too_coarse(seen[:5], 10 / diameter)  # too few to be sure of them
    assert not too_coarse(seen[:0], 10 / diameter)
