"""The network: its input, its maps' shapes, and that large images are seen in parts unnoticed."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

from millie.segmentation import network
from millie.segmentation.network import Maps, shipped, standardised


def film(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Discs of several colours on a bright ground, with noise."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), (235.0, 230.0, 225.0))
    rows, columns = np.mgrid[:height, :width]
    for _ in range(height * width // 900):
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        image[(rows - y) ** 2 + (columns - x) ** 2 < 81] = rng.uniform(60, 220, 3)
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(64, 64), (97, 131), (10, 33), (16, 17)])
def test_maps_have_the_size_of_the_image_or_half_of_it(shape: tuple[int, int]) -> None:
    maps = shipped()(film(*shape))
    half = (shape[0] + 1) // 2, (shape[1] + 1) // 2
    assert maps.nucleus.shape == maps.cell.shape == shape
    assert maps.centre.shape == maps.red_cell.shape == maps.platelet.shape == half
    assert maps.smudge.shape == half
    assert maps.offset_px.shape == (2, *half)
    assert maps.log2_scale.shape[1] == 2
    assert len(maps.log2_scale) >= 1


def arrays(maps: Maps) -> list[np.ndarray]:
    return [getattr(maps, name) for name in Maps.__slots__]


def test_a_large_image_in_parts_gives_the_same_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    image = film(300, 420)
    whole = shipped()(image)
    monkeypatch.setattr(network, "_PART_PX", 160)
    for a, b in zip(arrays(whole), arrays(shipped()(image)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_the_same_image_gives_the_same_maps() -> None:
    image = film(96, 96)
    for a, b in zip(arrays(shipped()(image)), arrays(shipped()(image)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_light_and_exposure_leave_the_input_nearly_alone() -> None:
    image = film(96, 96)
    darker = (image * np.array([0.8, 0.7, 0.9])).astype(np.uint8)
    away = np.abs(standardised(image) - standardised(darker))
    assert np.quantile(away, 0.95) < 0.15


def test_black_surround_does_not_shift_the_input() -> None:
    image = film(96, 96)
    framed = np.zeros((160, 160, 3), np.uint8)
    framed[32:128, 32:128] = image
    np.testing.assert_allclose(standardised(framed)[32:128, 32:128], standardised(image), atol=0.2)


def test_a_surround_beside_one_cell_on_empty_glass_does_not_either() -> None:
    """Its edge lies within places of 8 px, which then look dark without a cell."""
    image = np.full((96, 96, 3), (235, 230, 225), np.uint8)
    rows, columns = np.mgrid[:96, :96]
    image[(rows - 40) ** 2 + (columns - 40) ** 2 < 100] = (120, 60, 160)
    framed = np.zeros((160, 160, 3), np.uint8)
    framed[35:131, 35:131] = image
    np.testing.assert_allclose(standardised(framed)[35:131, 35:131], standardised(image), atol=0.3)


@pytest.mark.parametrize("value", [0, 255])
def test_an_even_image_is_no_division_by_zero(value: int) -> None:
    assert np.isfinite(standardised(np.full((40, 40, 3), value, np.uint8))).all()


def test_the_weights_are_small() -> None:
    """One million parameters and 4 MB at most."""
    assert files("millie.segmentation").joinpath("leukocytes.safetensors").stat().st_size < 4e6
