"""Crops: size, padding, exactness, and masks that lie where the image does."""

from __future__ import annotations

import numpy as np
import pytest

from millie.errors import ConfigError
from millie.segmentation import cut_crop, cut_mask
from millie.types import Cell, CellRegion

PINK = (250, 200, 210)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def region(left: int, top: int, width: int, height: int) -> CellRegion:
    body = np.ones((height, width), dtype=bool)
    nucleus = np.zeros_like(body)
    nucleus[height // 4 : -height // 4, width // 4 : -width // 4] = True
    centre = left + (width - 1) / 2, top + (height - 1) / 2
    cell = Cell(0, *centre, left, top, width, height, float(body.sum()))
    return CellRegion(cell, body, nucleus)


@pytest.mark.parametrize("side", [20, 21])
def test_same_size_is_an_exact_copy(image: np.ndarray, side: int) -> None:
    x, y = 50, 40
    left, top = x + 1 - (side + 1) // 2, y + 1 - (side + 1) // 2
    crop = cut_crop(image, (x, y), side, side, PINK)
    np.testing.assert_array_equal(crop, image[top : top + side, left : left + side])


@pytest.mark.parametrize("centre", [(0, 0), (119, 89), (-5, 40), (60, 95), (500, 500)])
@pytest.mark.parametrize(("side", "size"), [(40, 40), (37.3, 64), (80, 32)])
def test_border_crops_have_full_size(
    image: np.ndarray, centre: tuple[int, int], side: float, size: int
) -> None:
    crop = cut_crop(image, centre, side, size, PINK)
    assert crop.shape == (size, size, 3)
    assert crop.dtype == np.uint8


def test_outside_has_the_background_colour(image: np.ndarray) -> None:
    crop = cut_crop(image, (0, 0), 20, 20, PINK)
    assert (crop[:9] == PINK).all()
    assert (crop[:, :9] == PINK).all()
    np.testing.assert_array_equal(crop[9:, 9:], image[:11, :11])
    assert (cut_crop(image, (500, 500), 20, 20, PINK) == PINK).all()


def test_shrinking_averages() -> None:
    board = np.zeros((64, 64, 3), dtype=np.uint8)
    board[::2, ::2] = 200
    crop = cut_crop(board, (31.5, 31.5), 64, 32, PINK)
    np.testing.assert_array_equal(crop, 50)


def test_mask_values_and_place() -> None:
    one = region(30, 20, 24, 24)
    centre = (one.cell.x_px, one.cell.y_px)
    mask = cut_mask(one, (90, 120), centre, 40, 40)
    assert mask.shape == (40, 40)
    assert set(np.unique(mask)) == {0, 1, 2}
    assert (mask > 0).sum() == one.cell_mask.sum()
    assert (mask == 2).sum() == one.nucleus_mask.sum()
    rows, columns = np.nonzero(mask)
    assert abs(rows.mean() - 19.5) <= 0.5
    assert abs(columns.mean() - 19.5) <= 0.5


def test_mask_lies_over_its_cell_at_any_scale() -> None:
    one = region(0, 60, 30, 30)
    picture = np.full((90, 120, 3), 255, dtype=np.uint8)
    picture[60:90, 0:30] = 0
    for side, size in [(50, 50), (50, 32), (33.4, 80)]:
        crop = cut_crop(picture, (10, 80), side, size, (255, 255, 255))
        mask = cut_mask(one, (90, 120), (10, 80), side, size)
        assert np.mean((crop[:, :, 0] < 128) == (mask > 0)) > 0.98


@pytest.mark.parametrize(("side", "size"), [(0, 10), (-3, 10), (10, 0)])
def test_impossible_sizes_are_refused(image: np.ndarray, side: float, size: int) -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        cut_crop(image, (5, 5), side, size, PINK)
