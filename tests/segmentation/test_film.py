"""Colours of a film: its background, and images that are none."""

from __future__ import annotations

import numpy as np
import pytest

from millie.segmentation.film import film_of


def stained(background: tuple[int, int, int], share: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(0)
    image = np.full((100, 120, 3), background, np.uint8)
    image[:, : round(120 * share)] = np.multiply(background, (0.85, 0.5, 0.6))
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("background", [(240, 235, 230), (180, 220, 190), (150, 150, 150)])
def test_background_is_the_brightest_frequent_colour(background: tuple[int, int, int]) -> None:
    film = film_of(stained(background))
    np.testing.assert_allclose(film.background_rgb, background, atol=2)
    assert film.refusal == ""


def test_foreground_is_what_is_not_background() -> None:
    assert film_of(stained((240, 235, 230), 0.4)).foreground == pytest.approx(0.4, abs=0.02)


REFUSED = {
    "almost black": np.zeros((80, 80, 3), np.uint8),
    "empty": np.full((80, 80, 3), 250, np.uint8),
    "greyscale": np.repeat(stained((240, 235, 230))[:, :, 1:2], 3, axis=2),
    "no bright, even area": np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8),
}


@pytest.mark.parametrize("why", REFUSED)
def test_reasons_to_refuse(why: str) -> None:
    assert why in film_of(REFUSED[why]).refusal
