"""Where red cells lie side by side: order of places and judgement by the stained share."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from millie.readers.monolayer import MOST_LOOKS, edges, spread, survey

GLASS, RED = 230, 150


def place(stained: float, glass: int = GLASS) -> NDArray[np.uint8]:
    """A checkered place of which a share is stained, in each quarter alike."""
    image = np.full((80, 80, 3), glass, np.uint8)
    image[:, : round(40 * stained)] = RED
    image[:, 40 : 40 + round(40 * stained)] = RED
    return image


def test_only_places_with_room_between_cells_are_kept() -> None:
    shares = [0.0, 0.05, 0.3, 0.5, 0.8, 0.95, 1.0]
    found = survey(range(7), lambda i: place(shares[i]))
    assert found.places == (2, 3, 4)
    assert (found.looked, found.thin, found.thick) == (7, 2, 2)


def test_a_place_that_is_thick_on_one_side_is_left_out() -> None:
    half = place(0.5)
    half[:, 40:] = RED
    assert survey([0, 1], lambda i: (place(0.5), half)[i]).places == (0,)


def test_a_place_that_is_uneven_as_tissue_is_left_out() -> None:
    uneven = place(0.2)
    uneven[:40, :40] = place(0.7)[:40, :40]
    found = survey([0, 1], lambda i: (place(0.5), uneven)[i])
    assert (found.places, found.thick) == ((0,), 1)


def test_what_was_not_scanned_does_not_make_glass_look_stained() -> None:
    white = np.full((80, 80, 3), 255, np.uint8)
    looks = [place(0.4), white, white, white, place(0.0, glass=205), white]
    found = survey(range(6), lambda i: looks[i])
    assert found.places == (0,)
    assert found.thin == 4


def test_an_empty_slide_has_no_monolayer() -> None:
    found = survey(range(3), lambda _: np.full((40, 40, 3), 228, np.uint8))
    assert (found.places, found.thin) == ((), 3)


def test_looks_are_bounded() -> None:
    seen: list[int] = []
    survey(range(3 * MOST_LOOKS), lambda i: (seen.append(i), place(0.4))[1])
    assert len(seen) == MOST_LOOKS


@pytest.mark.parametrize(("columns", "rows"), [(1, 1), (1, 7), (16, 16), (37, 12), (300, 125)])
def test_every_beginning_of_the_order_is_spread_evenly(columns: int, rows: int) -> None:
    order = spread(columns, rows)
    assert sorted(order.tolist()) == list(range(columns * rows))
    beginning = order[: columns * rows // 4]
    if len(beginning) < 16:
        return
    for axis, length in ((beginning % columns, columns), (beginning // columns, rows)):
        low = (axis < length / 2).mean()
        assert 0.35 < low < 0.65


@pytest.mark.parametrize("length", [1, 10, 799, 800, 1300, 20_000])
def test_edges_cover_a_length_without_overlap(length: int) -> None:
    found = edges(50, length, 800)
    assert (found[0], found[-1]) == (50, 50 + length)
    sides = np.diff(found)
    assert sides.min() > 0
    assert sides.max() <= 1200
