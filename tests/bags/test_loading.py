from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from millie.bags.loading import apply_background, collate, sample_cells, stream, to_tensor
from millie.bags.store import BagReader
from millie.errors import ConfigError


def test_sampling_takes_distinct_cells_and_all_of_a_small_bag() -> None:
    rng = np.random.default_rng(0)
    drawn = sample_cells(100, 30, rng)
    assert len(set(drawn.tolist())) == 30
    assert (np.diff(drawn) > 0).all()
    assert sample_cells(5, 50, rng).tolist() == [0, 1, 2, 3, 4]
    assert len(sample_cells(0, 50, rng)) == 0


def test_sampling_is_uniform_and_seeded() -> None:
    rng = np.random.default_rng(0)
    counts = np.bincount(np.concatenate([sample_cells(10, 3, rng) for _ in range(3000)]))
    assert counts.min() > 800
    assert counts.max() < 1000
    one, two = (sample_cells(100, 9, np.random.default_rng(4)) for _ in range(2))
    assert one.tolist() == two.tolist()


def test_to_tensor_scales_and_moves_channels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
    tensor = to_tensor(images)
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.float32, (2, 3, 5, 5))
    assert tensor[1, 2, 3, 4].item() == pytest.approx(images[1, 3, 4, 2] / 255)
    assert to_tensor(np.full((1, 2, 2, 3), 255, np.uint8)).max() == 1


def test_collate_pads_with_a_mask() -> None:
    bags = [torch.ones(2, 4), torch.ones(0, 4), 2 * torch.ones(3, 4)]
    features, mask = collate(bags)
    assert features.shape == (3, 3, 4)
    assert mask.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert (features[~mask] == 0).all()
    for row, bag in enumerate(bags):
        assert torch.equal(features[row][mask[row]], bag)


def test_collate_refuses_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match="one bag or more"):
        collate([])
    with pytest.raises(ConfigError, match="same number of features"):
        collate([torch.ones(2, 4), torch.ones(2, 5)])


@pytest.mark.parametrize("batch_size", [1, 4, 10, 99])
def test_a_stream_is_the_bag(add: Callable[..., Path], batch_size: int) -> None:
    with BagReader(add("p", 10)) as bag:
        parts = list(stream(bag, batch_size))
        assert [start for start, _ in parts] == list(range(0, 10, batch_size))
        assert max(len(images) for _, images in parts) <= batch_size
        np.testing.assert_array_equal(np.concatenate([i for _, i in parts]), bag.images(0, 10))


def test_a_stream_applies_the_background(add: Callable[..., Path]) -> None:
    with BagReader(add("p", 5)) as bag:
        expected = apply_background(bag.images(0, 5), bag.masks(0, 5), "only")
        found = np.concatenate([images for _, images in stream(bag, 2, "only")])
        np.testing.assert_array_equal(found, expected)
        with pytest.raises(ConfigError, match="batch_size=0"):
            next(stream(bag, 0))


def test_background_modes_hide_the_complement() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (2, 6, 6, 3), dtype=np.uint8)
    masks = np.zeros((2, 6, 6), np.uint8)
    masks[0, 1:4, 1:4] = 1
    masks[0, 2, 2] = 2
    masked, only = (apply_background(images, masks, mode) for mode in ("mask", "only"))
    cell = masks[0] > 0
    assert apply_background(images, masks, "keep") is images
    np.testing.assert_array_equal(masked[0][cell], images[0][cell])
    y, x = np.mgrid[:6, :6] - 2.5
    hidden = cell | (x**2 + y**2 <= (0.36 * 6) ** 2)
    np.testing.assert_array_equal(only[0][~hidden], images[0][~hidden])
    assert len(np.unique(masked[0][~cell])) == len(np.unique(only[0][hidden])) == 1
    assert len(np.unique(masked[1])) == len(np.unique(only[1])) == 1, "no mask: nothing is shown"


def test_background_refuses_what_does_not_fit() -> None:
    images = np.zeros((2, 6, 6, 3), np.uint8)
    with pytest.raises(ConfigError, match="one mask of the same size"):
        apply_background(images, np.zeros((1, 6, 6), np.uint8), "mask")
    with pytest.raises(ConfigError, match="expected keep, mask, isolate or only"):
        apply_background(images, np.zeros((2, 6, 6), np.uint8), "blur")  # type: ignore[arg-type]


def test_isolate_shows_the_cell_alone_on_one_white() -> None:
    image = np.full((1, 64, 64, 3), (200, 180, 160), np.uint8)
    image[0, 24:40, 24:40] = (100, 60, 120)
    image[0, 2:10, 2:10] = (150, 90, 90)
    mask = np.zeros((1, 64, 64), np.uint8)
    mask[0, 24:40, 24:40] = 1
    colours = np.array([[200, 180, 160]], np.float32)
    shown = apply_background(image, mask, "isolate", colours)
    assert (shown[0, :20] == 245).all(), "neither the red cell nor the tint is left"
    np.testing.assert_array_equal(shown[0, 32, 32], [123, 82, 184])
    brighter = apply_background(
        np.rint(image * 0.8).astype(np.uint8), mask, "isolate", colours * np.float32(0.8)
    )
    assert np.abs(brighter.astype(int) - shown).max() <= 2, "exposure is cancelled"
    assert (apply_background(image, mask * 0, "isolate", colours) == 245).all()
