"""Watershed: every pixel of the mask goes to a seed that it is connected with."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from millie.segmentation.watershed import flood


def touching(*, apart: int = 26, radius: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two touching discs: seeds at their centres, distance map, mask."""
    mask = np.zeros((50, 90), np.uint8)
    seeds = np.zeros(mask.shape, np.int32)
    for label, x in enumerate((25, 25 + apart), start=1):
        cv2.circle(mask, (x, 25), radius, 1, -1)
        seeds[25, x] = label
    return seeds, cv2.distanceTransform(mask, cv2.DIST_L2, 3), mask > 0


def test_touching_discs_part_at_their_neck() -> None:
    seeds, distance, mask = touching()
    labels = flood(seeds, distance, mask)
    assert ((labels > 0) == mask).all()
    columns = np.nonzero(labels == 1)[1].max(), np.nonzero(labels == 2)[1].min()
    assert columns[0] <= 40
    assert columns[1] >= 36


@pytest.mark.parametrize("many", [3, 300])
def test_every_pixel_goes_to_a_seed_and_seeds_keep_theirs(many: int) -> None:
    """Beyond 255 seeds the labels no longer fit a byte."""
    rng = np.random.default_rng(many)
    mask = np.ones((60, 60), bool)
    distance = cv2.GaussianBlur(rng.uniform(0, 20, mask.shape).astype(np.float32), (0, 0), 2)
    seeds = np.zeros(mask.shape, np.int32)
    places = rng.permutation(mask.size)[:many]
    seeds.ravel()[places] = np.arange(1, many + 1)
    labels = flood(seeds, distance, mask)
    assert (labels > 0).all()
    np.testing.assert_array_equal(labels.ravel()[places], np.arange(1, many + 1))
    for label in range(1, many + 1):
        assert cv2.connectedComponents((labels == label).astype(np.uint8), connectivity=8)[0] == 2


def test_parts_without_a_seed_stay_empty() -> None:
    mask = np.zeros((20, 40), bool)
    mask[5:15, 3:12] = mask[5:15, 25:35] = True
    seeds = np.zeros(mask.shape, np.int32)
    seeds[8, 7] = 9
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
    labels = flood(seeds, distance, mask)
    assert (labels[:, :20] == np.where(mask[:, :20], 9, 0)).all()
    assert not labels[:, 20:].any()
    assert not flood(np.zeros_like(seeds), distance, mask).any()
