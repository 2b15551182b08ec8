"""Places: a grid finds the same neighbours as looking at every pair."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from millie.segmentation.places import Places

COORDINATES = st.floats(-50, 50, allow_nan=False)


@given(points=st.lists(st.tuples(COORDINATES, COORDINATES), min_size=1, max_size=30))
def test_neighbours_are_those_nearer_than_the_reach(points: list[tuple[float, float]]) -> None:
    places = Places(7.5)
    for name, (x, y) in enumerate(points):
        places.put(name, x, y)
    for name, here in enumerate(points):
        expected = [
            k for k, there in enumerate(points) if k != name and math.dist(here, there) < 7.5
        ]
        assert places.near(name) == expected


def test_a_place_that_moved_or_went_is_found_no_more() -> None:
    places = Places(5.0)
    for name, x in enumerate((0.0, 3.0, 6.0)):
        places.put(name, x, 0.0)
    assert places.near(1) == [0, 2]
    places.put(0, 40.0, 0.0)
    places.remove(2)
    places.remove(2)
    assert places.near(1) == []
    assert places.near(0) == []
