"""Round bodies: a disc is a cell, touching discs are never one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from millie.segmentation.bodies import round_bodies


def discs(*centres: tuple[int, int]) -> np.ndarray:
    canvas = np.zeros((120, 160), np.uint8)
    for centre in centres:
        cv2.circle(canvas, centre, 20, 1, -1)
    return canvas > 0


def test_a_disc_is_found_with_its_size_and_place() -> None:
    (body,) = round_bodies(discs((70, 60)), 3)
    assert body.diameter_px == pytest.approx(41, abs=1.5)
    rows, columns = body.window
    assert abs(rows.start - 40) <= 1
    assert abs(columns.start - 50) <= 1
    assert body.inside.sum() == pytest.approx(np.pi * 20.5**2, rel=0.06)
    assert not body.at_border


def test_holes_are_filled() -> None:
    mask = discs((70, 60))
    mask[55:65, 65:75] = False
    (body,) = round_bodies(mask, 3)
    assert body.inside.all(axis=1)[body.inside.shape[0] // 2]


@pytest.mark.parametrize("step", [32, 36, 40])
def test_two_touching_discs_are_never_one_cell(step: int) -> None:
    bodies = round_bodies(discs((50, 60), (50 + step, 60)), 3)
    assert all(body.diameter_px < 42 for body in bodies)
    assert len(bodies) in (0, 2)


def test_a_thin_bridge_to_a_neighbour_is_cut() -> None:
    mask = discs((40, 60), (110, 60))
    mask[59:62, 40:110] = True
    assert len(round_bodies(mask, 3)) == 2


def test_the_edge_is_told() -> None:
    (body,) = round_bodies(discs((18, 60)), 3)
    assert body.at_border
