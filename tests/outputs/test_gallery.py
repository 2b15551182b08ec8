from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from millie.bags.store import BagReader
from millie.errors import DataError
from millie.outputs.gallery import Album, badges, bar_length_um, jpeg_uri, shrunk
from millie.types import Cell, ImageKind

from .conftest import SIZE_PX, MakeBag


@settings(deadline=None)
@given(st.floats(2, 5000))
def test_scale_bar_is_round_and_fits(across_um: float) -> None:
    length = bar_length_um(across_um)
    assert 0 < length <= across_um / 2
    assert length > across_um / 2 / 2.6
    assert str(length).rstrip("0") in {"1", "2", "5"}


def test_picture_is_a_jpeg_of_the_crop(make_bag: MakeBag) -> None:
    store = make_bag("p", um_px=0.1)
    with BagReader(store.path_of("p")) as bag:
        shown = Album(bag).picture(2, side_px=32)
    head, _, content = shown.uri.partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (32, 32)
    assert (shown.bar_um, shown.bar_percent) == (10, 40.0)
    assert (shown.source, shown.position) == ("slide/im0.jpg", "160, 80")
    assert [badge.word for badge in shown.badges] == ["clump"]


def test_scale_bar_only_where_the_scale_is_known(make_bag: MakeBag) -> None:
    store = make_bag("p", kinds=(ImageKind.CELL,), um_px=None)
    with BagReader(store.path_of("p")) as bag:
        shown = Album(bag).picture(0, side_px=32)
    assert shown.bar_um is None
    assert shown.bar_percent is None


def test_cell_beyond_the_bag_is_refused(make_bag: MakeBag) -> None:
    store = make_bag("p", n=3)
    with (
        BagReader(store.path_of("p")) as bag,
        pytest.raises(DataError, match="cell 3 is listed as evidence, but the bag has 3"),
    ):
        Album(bag).picture(3, side_px=32)


def test_badges_say_what_they_mean() -> None:
    cell = Cell(0, 1, 1, 0, 0, 2, 2, 4, quality=0, smudge=True, at_border=True)
    assert [badge.word for badge in badges(cell)] == ["smudge", "edge", "no outline"]


def test_pictures_are_never_enlarged_and_equal_input_gives_equal_bytes() -> None:
    image = np.random.default_rng(0).integers(0, 255, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    assert shrunk(image, 500).size == (SIZE_PX, SIZE_PX)
    assert jpeg_uri(shrunk(image, 20)) == jpeg_uri(shrunk(image, 20))
