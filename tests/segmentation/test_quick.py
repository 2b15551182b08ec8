"""Quick statistics agree with NumPy's and SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import find_objects

from millie.segmentation.quick import crowded, picked, pixels_by_label, quantile


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1001])
@pytest.mark.parametrize("share", [0.0, 0.08, 0.5, 0.95, 1.0])
def test_quantile_is_numpys(count: int, share: float) -> None:
    values = np.random.default_rng(count).normal(size=count).astype(np.float32)
    assert quantile(values, share) == pytest.approx(float(np.quantile(values, share)), abs=1e-6)


def test_quantile_of_bytes_does_not_wrap() -> None:
    values = np.array([250, 10, 20, 255], np.uint8)
    assert quantile(values, 0.5) == np.quantile(values, 0.5)
    assert quantile(values, 0.75) == np.quantile(values, 0.75)


def drawn(seed: int, *, highest: int = 40) -> np.ndarray:
    """Boxes that overwrite each other, so that some labels are missing or in parts."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((60, 90), np.int32)
    for label in rng.permutation(highest)[:40] + 1:
        top, left = rng.integers(0, 50), rng.integers(0, 80)
        labels[top : top + rng.integers(1, 20), left : left + rng.integers(1, 20)] = label
    return labels


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("highest", [40, 100_000])
def test_every_pixel_is_told_once_under_its_label(seed: int, highest: int) -> None:
    labels = drawn(seed, highest=highest)
    pixels = pixels_by_label(labels)
    again = np.zeros_like(labels)
    again[pixels.rows, pixels.columns] = np.repeat(pixels.labels, np.diff(pixels.starts))
    np.testing.assert_array_equal(again, labels)
    assert (np.diff(pixels.labels) > 0).all()
    assert pixels.starts[-1] == len(pixels.rows) == np.count_nonzero(labels)


@pytest.mark.parametrize("seed", range(4))
def test_boxes_are_scipys(seed: int) -> None:
    labels = drawn(seed)
    pixels = pixels_by_label(labels)
    found = find_objects(labels)
    for label, box in zip(pixels.labels, pixels.boxes(), strict=True):
        rows, columns = found[label - 1]
        assert box.tolist() == [rows.start, rows.stop, columns.start, columns.stop]


def test_an_empty_map_has_no_labels() -> None:
    pixels = pixels_by_label(np.zeros((4, 5), np.int32))
    assert len(pixels.labels) == len(pixels.rows) == 0
    assert pixels.boxes().shape == (0, 4)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.99, 1.0])
def test_quantile_of_bytes_is_numpys(share: float) -> None:
    values = np.random.default_rng(3).integers(0, 256, 777).astype(np.uint8)
    assert quantile(values, share) == pytest.approx(float(np.quantile(values, share)))


@pytest.mark.parametrize("kept", [0.0, 0.4, 1.0])
def test_picked_are_what_the_mask_says(kept: float) -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(20, 30, 3))
    mask = rng.random((20, 30)) < kept
    np.testing.assert_array_equal(picked(values, mask), values[mask])
    np.testing.assert_array_equal(
        picked(values[:, ::2, 0], mask[:, ::2]), values[:, ::2, 0][mask[:, ::2]]
    )


def boxed(*corners: tuple[int, int]) -> np.ndarray:
    """Boxes of 10 x 10 px at (top, left)."""
    return np.array([(top, top + 10, left, left + 10) for top, left in corners]).reshape(-1, 4)


def test_parts_hold_those_that_are_near_each_other_through_others_too() -> None:
    boxes = boxed((20, 20), (20, 45), (45, 45), (300, 300), (300, 320), (150, 200))
    parts = crowded(boxes, 16, 5, (400, 400))
    assert parts == [np.s_[15:60, 15:60], np.s_[295:315, 295:335]]
    assert crowded(boxes[-1:], 16, 5, (400, 400)) == []
    assert crowded(boxes[[0, 3, 5]], 16, 5, (400, 400)) == []
    assert crowded(boxed(), 16, 5, (400, 400)) == []


def test_parts_that_overlap_much_are_one_and_end_at_the_edge() -> None:
    boxes = boxed((20, 20), (20, 35), (60, 60), (60, 75))
    assert crowded(boxes, 10, 200, (90, 300)) == [np.s_[0:90, 0:285]]
