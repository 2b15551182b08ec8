"""Changes of images: what stays, what moves, and by how much."""

from __future__ import annotations

import numpy as np
import pytest

from millie.synthetic.changes import (
    INTERFERENCES,
    blur,
    compress,
    recolour,
    rescale,
    restain,
    turn_hue,
)

IMAGE = np.random.default_rng(0).integers(60, 220, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", INTERFERENCES)
def test_every_change_changes_something_and_keeps_the_form(name: str) -> None:
    change = INTERFERENCES[name]
    changed = change.apply(IMAGE)
    assert changed.dtype == np.uint8
    assert changed.shape == (round(40 * change.scale), round(60 * change.scale), 3)
    assert change.scale != 1 or not np.array_equal(changed, IMAGE)
    assert np.array_equal(changed, change.apply(IMAGE))


def test_the_neutral_degrees_change_nothing() -> None:
    assert np.array_equal(blur(IMAGE, 0), IMAGE)
    assert np.array_equal(compress(IMAGE, 100), IMAGE)
    assert np.array_equal(recolour(IMAGE, (1, 1, 1)), IMAGE)
    assert np.array_equal(rescale(IMAGE, 1), IMAGE)
    assert np.array_equal(turn_hue(IMAGE, 0), IMAGE)
    assert np.abs(turn_hue(IMAGE, 1.0).astype(int) - IMAGE).max() <= 1
    assert np.abs(restain(IMAGE, 1.0).astype(int) - IMAGE).max() <= 3


def test_a_stronger_stain_is_darker_and_white_stays() -> None:
    film = np.full((10, 10, 3), 240, np.uint8)
    film[2:5, 2:5] = 120
    strong, weak = restain(film, 1.6), restain(film, 0.6)
    assert strong[3, 3, 0] < 120 < weak[3, 3, 0]
    assert abs(int(strong[0, 0, 0]) - 240) <= 1
    # optical density, against white: twice the strength squares the transmission
    assert restain(film, 2.0)[3, 3, 0] == pytest.approx(240 * (121 / 241) ** 2, abs=2)
