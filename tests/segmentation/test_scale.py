"""Scale: what images of a sample say together."""

from __future__ import annotations

import pytest

from millie.segmentation.scale import Reading, over_stated, pooled


def test_images_that_agree_are_pooled_by_their_middle() -> None:
    scale, red_cells = pooled([Reading(v, 20, leukocyte=True) for v in (0.10, 0.104, 0.11)])
    assert scale == pytest.approx(0.104)
    assert red_cells == 60


def test_two_magnifications_are_not_pooled() -> None:
    assert pooled([Reading(v, 20, leukocyte=True) for v in (0.1, 0.1, 0.2, 0.2)]) == (0.0, 0.0)


def test_images_without_red_cells_do_not_outvote_those_that_have_some() -> None:
    readings = [Reading(0.2, 0, leukocyte=True)] * 5 + [Reading(0.1, 30, leukocyte=True)]
    assert pooled(readings)[0] == pytest.approx(0.1)


def test_red_cells_make_a_reading_sure() -> None:
    assert Reading(0.1, 5, leukocyte=False).sure
    assert not Reading(0.1, 1, leukocyte=True).sure


def test_a_stated_scale_is_doubted_by_the_middle_of_at_least_three_images() -> None:
    def said(*of_images: tuple[float, float]) -> float | None:
        return over_stated([Reading(v, n, leukocyte=True) for v, n in of_images])

    assert said((1.3, 15), (1.32, 15), (1.28, 4)) == pytest.approx(1.3)
    assert said((1.3, 15), (1.3, 15)) is None
    assert said((1.3, 4), (1.3, 4), (1.3, 4)) is None
    assert said((1.0, 2), (1.0, 2), (1.0, 2), (5.0, 300)) is None  # an overview among crops
    assert said((1.0, 9), (1.0, 9), (1.02, 9), (5.0, 300)) == pytest.approx(1.01)
    assert said() is None
