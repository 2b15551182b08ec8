"""Round bodies: a disc is a cell, touching discs are never one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from millie.segmentation.bodies import inscribed_discs, round_bodies, too_wide


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


def ellipses(*shapes: tuple[int, int, int, int]) -> np.ndarray:
    canvas = np.zeros((120, 160), np.uint8)
    for x, y, wide, high in shapes:
        cv2.ellipse(canvas, (x, y), (wide, high), 0, 0, 360, 1, -1)
    return canvas > 0


@pytest.mark.parametrize("step", [26, 32, 40, 46])
def test_a_peanut_holds_two_discs_where_they_were_drawn(step: int) -> None:
    mask = discs((50, 60), (50 + step, 60))
    found = inscribed_discs(mask, 12, 0.85)
    assert sorted(found[:, 0]) == pytest.approx([50, 50 + step], abs=3)
    assert found[:, 1] == pytest.approx([60, 60], abs=3)
    assert found[:, 2] == pytest.approx([20, 20], abs=2.5)


@pytest.mark.parametrize("wide", [20, 30, 45])
def test_an_ellipse_has_no_neck(wide: int) -> None:
    assert len(inscribed_discs(ellipses((70, 60, wide, 20)), 12, 0.85)) == 1


def test_a_small_cell_beside_a_large_one_counts_from_its_least_size_on() -> None:
    mask = ellipses((50, 60, 28, 28), (91, 60, 15, 15))
    assert inscribed_discs(mask, 12, 0.85)[:, 2] == pytest.approx([28, 15], abs=2)
    assert len(inscribed_discs(mask, 18, 0.85)) == 1


def test_holes_do_not_part_a_body() -> None:
    mask = discs((70, 60))
    mask[45:75, 68:72] = False
    assert len(inscribed_discs(mask, 12, 0.85)) == 1


@pytest.mark.parametrize("value", [False, True])
def test_a_map_without_an_outline_holds_no_disc(value: bool) -> None:
    assert inscribed_discs(np.full((50, 60), value), 12, 0.85).shape == (0, 3)


def test_what_is_too_wide_is_told_by_its_box() -> None:
    (body,) = round_bodies(discs((70, 60)), 3)
    side = max(body.inside.shape)
    assert not too_wide(side, body.diameter_px)
    assert too_wide(side, 0.8 * body.diameter_px)
