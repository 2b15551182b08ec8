"""Colour transfer: what stays, what becomes equal, and what statistics may not depend on."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from millie.errors import ConfigError
from millie.segmentation.colour import ColourStatistics, fit, transfer


def film(seed: int, tint: tuple[float, float, float], shape: tuple[int, int] = (60, 80)) -> NDArray:
    """An image with pale background, red cells and a nucleus, in the tint of a source."""
    rng = np.random.default_rng(seed)
    image = np.full((*shape, 3), (225.0, 222.0, 215.0))
    for _ in range(25):
        centre = (int(rng.integers(0, shape[1])), int(rng.integers(0, shape[0])))
        cv2.circle(image, centre, 6, (200.0, 160.0, 150.0), -1)
    cv2.circle(image, (shape[1] // 2, shape[0] // 2), 9, (110.0, 60.0, 150.0), -1)
    image = image * tint + rng.normal(0, 3, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


WARM, COLD = (1.0, 0.92, 0.8), (0.85, 0.93, 1.0)


@pytest.fixture(scope="module")
def warm() -> ColourStatistics:
    return fit(film(seed, WARM) for seed in range(4))


@pytest.fixture(scope="module")
def cold() -> ColourStatistics:
    return fit(film(seed, COLD) for seed in range(4, 8))


def test_a_source_given_its_own_colours_stays_as_it_is(warm: ColourStatistics) -> None:
    image = film(1, WARM)
    assert np.abs(transfer(image, warm, warm).astype(int) - image).max() <= 1


def test_transfer_gives_the_statistics_of_the_target(
    warm: ColourStatistics, cold: ColourStatistics
) -> None:
    moved = fit(transfer(film(seed, WARM), warm, cold) for seed in range(4))
    assert moved.mean == pytest.approx(cold.mean, abs=0.003)
    assert moved.deviation == pytest.approx(cold.deviation, rel=0.05, abs=0.001)


def test_there_and_back_is_the_image(warm: ColourStatistics, cold: ColourStatistics) -> None:
    image = film(2, WARM)
    back = transfer(transfer(image, warm, cold), cold, warm)
    assert np.abs(back.astype(int) - image).mean() < 1.0


def test_images_of_one_source_get_the_same_change(
    warm: ColourStatistics, cold: ColourStatistics
) -> None:
    image = film(3, WARM)
    whole = transfer(image, warm, cold)
    np.testing.assert_array_equal(transfer(image[:30], warm, cold), whole[:30])
    assert whole.dtype == np.uint8
    assert whole.shape == image.shape


def test_statistics_know_pixels_not_their_order() -> None:
    images = [film(seed, WARM, (20 + 10 * seed, 50)) for seed in range(3)]
    one, other = fit(images), fit(reversed(images))
    joined = fit([np.concatenate(images)])
    assert one.n_pixels == joined.n_pixels == 90 * 50
    for statistics in (other, joined):
        assert statistics.mean == pytest.approx(one.mean, abs=1e-6)
        assert statistics.deviation == pytest.approx(one.deviation, abs=1e-6)


def test_the_space_is_that_of_the_paper() -> None:
    grey = fit([np.full((4, 4, 3), 128, np.uint8)])
    light, alpha, beta = grey.mean
    assert light == pytest.approx(3 / np.sqrt(3) * np.log10(128 / 255), abs=0.005)
    assert (alpha, beta) == pytest.approx((0, 0), abs=0.005), "grey has no colour"
    blue = fit([np.full((4, 4, 3), (60, 60, 200), np.uint8)])
    assert blue.mean[1] < -0.1, "alpha is yellow against blue"


def test_without_contrast_colours_are_shifted_not_scaled(cold: ColourStatistics) -> None:
    flat = np.full((8, 8, 3), (200, 180, 160), np.uint8)
    moved = transfer(flat, fit([flat]), cold)
    assert np.ptp(moved, axis=(0, 1)).max() == 0
    assert fit([moved]).mean == pytest.approx(cold.mean, abs=0.01)


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_are_no_special_case(
    level: int, warm: ColourStatistics, cold: ColourStatistics
) -> None:
    moved = transfer(np.full((4, 4, 3), level, np.uint8), warm, cold)
    assert abs(int(moved.mean()) - level) < 60


def test_statistics_survive_json(warm: ColourStatistics) -> None:
    assert ColourStatistics.from_dict(json.loads(json.dumps(warm.to_dict()))) == warm


def test_what_is_no_image_or_no_statistics_is_refused(warm: ColourStatistics) -> None:
    with pytest.raises(ConfigError, match="at least one training image"):
        fit([])
    with pytest.raises(ConfigError, match="expected uint8 RGB"):
        fit([np.zeros((4, 4, 3), np.float32)])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="expected uint8 RGB"):
        transfer(np.zeros((4, 4), np.uint8), warm, warm)
    with pytest.raises(ConfigError, match="fit them again"):
        ColourStatistics.from_dict({"mean": [0, 0, 0]})
    with pytest.raises(ConfigError, match="3 finite means"):
        ColourStatistics((0.0, 0.0, float("nan")), (1.0, 1.0, 1.0), 5)


@pytest.mark.realdata
def test_two_cameras_of_all_idb1_become_alike(data_root: Path) -> None:
    def small(name: str) -> NDArray:
        image = cv2.imread(str(data_root / "all_idb1" / "im" / name))
        assert image is not None
        return cv2.resize(image, None, fx=0.2, fy=0.2, interpolation=cv2.INTER_AREA)[:, :, ::-1]

    ours = [small(name) for name in ("Im001_1.jpg", "Im005_1.jpg", "Im016_1.jpg")]
    theirs = [small(name) for name in ("Im041_0.jpg", "Im043_0.jpg", "Im045_0.jpg")]
    source, target = fit(ours), fit(theirs)
    moved = fit(transfer(image, source, target) for image in ours)
    before = np.abs(np.subtract(source.mean, target.mean)).sum()
    after = np.abs(np.subtract(moved.mean, target.mean)).sum()
    assert after < 0.1 * before
