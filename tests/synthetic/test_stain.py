"""Dyes, light and camera."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from millie.errors import ConfigError
from millie.synthetic.stain import Dye, PatientStyle, draw_style, photograph, strips

PLAIN = PatientStyle(vignette=0, gradient=0, noise=0, blur_um=0, jpeg_quality=0)


def empty_film(style: PatientStyle) -> np.ndarray:
    return photograph(np.zeros((60, 80, 3), np.float32), 0.1, style, np.random.default_rng(0))


def test_empty_film_has_the_colour_of_the_background() -> None:
    image = empty_film(PLAIN)
    assert image.dtype == np.uint8
    assert np.all(np.abs(image - np.array(PLAIN.background_rgb())) <= 0.5)


def test_absorbances_add_and_transmittances_multiply() -> None:
    amounts = PLAIN.absorbances()
    one = np.broadcast_to(amounts[Dye.EOSIN], (4, 4, 3)).astype(np.float32)
    two = np.broadcast_to(amounts[Dye.BASOPHIL], (4, 4, 3)).astype(np.float32)
    rng = np.random.default_rng(0)
    light = np.array(PLAIN.background_rgb())
    passed = [photograph(a.copy(), 0.1, PLAIN, rng)[0, 0] / light for a in (one, two, one + two)]
    assert passed[0] * passed[1] == pytest.approx(passed[2], abs=0.01)


def test_nuclei_are_purple_red_cells_pink_blue_cytoplasm_blue() -> None:
    for seed in range(20):
        table = draw_style(np.random.default_rng(seed)).absorbances()
        red, green, blue = range(3)
        assert table[Dye.CHROMATIN, green] > table[Dye.CHROMATIN, red] > table[Dye.CHROMATIN, blue]
        assert table[Dye.HAEMOGLOBIN, red] < table[Dye.HAEMOGLOBIN, green]
        assert table[Dye.BASOPHIL].argmin() == blue
        assert table[Dye.ORANGE].argmin() == red


def test_vignette_darkens_corners_and_gradient_one_side() -> None:
    shaded = empty_film(replace(PLAIN, vignette=0.3)).astype(float)
    assert shaded[0, 0].mean() < 0.75 * shaded[30, 40].mean()
    sloped = empty_film(replace(PLAIN, gradient=0.3, gradient_angle=0.0)).astype(float)
    assert sloped[:, -1].mean() < 0.8 * sloped[:, 0].mean()


def test_drawn_styles_are_valid_and_differ() -> None:
    rng = np.random.default_rng(0)
    styles = [draw_style(rng) for _ in range(30)]
    for item in fields(PatientStyle):
        assert len({getattr(style, item.name) for style in styles}) > 5, item.name


def test_a_style_depends_on_its_generator_alone() -> None:
    assert draw_style(np.random.default_rng(4)) == draw_style(np.random.default_rng(4))


@pytest.mark.parametrize("item", fields(PatientStyle), ids=lambda item: item.name)
def test_values_out_of_range_are_refused(item) -> None:  # type: ignore[no-untyped-def]
    for wrong in (-10, 1000, float("nan")):
        with pytest.raises(ConfigError, match=rf"PatientStyle\.{item.name}=.*expected"):
            PatientStyle(**{item.name: wrong})


@pytest.mark.parametrize("height", [1, 63, 64, 65, 200])
def test_strips_cover_every_row_once(height: int) -> None:
    rows = np.concatenate([np.arange(height)[part] for part in strips(height)])
    assert rows.tolist() == list(range(height))
