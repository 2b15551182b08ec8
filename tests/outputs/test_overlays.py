from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from millie.bags.store import BagReader
from millie.errors import ImageError, MissingFileError
from millie.outputs.gallery import Album
from millie.outputs.overlays import (
    Mark,
    draw_boxes,
    draw_outlines,
    overlay_names,
    safe_names,
    write_overlays,
)
from millie.types import Cell, CellRegion, Field, ImageKind, SourceRecord

from .conftest import MakeBag, field_image, read_field

FOR = np.array([213, 94, 0])
AGAINST = np.array([0, 114, 178])
CELL = Cell(0, 200, 150, 180, 130, 40, 40, 1000)


def has_colour(image: Image.Image, colour: np.ndarray) -> bool:
    return bool((np.asarray(image) == colour).all(axis=2).any())


@settings(deadline=None)
@given(st.lists(st.text(max_size=40), unique=True, max_size=8))
def test_file_names_are_safe_and_distinct(names: list[str]) -> None:
    files = safe_names(names, ".jpg")
    assert len({f.lower() for f in files}) == len(names)
    for name in files:
        assert name.endswith(".jpg")
        assert not set(name) & set('/\\:*?"<>|\0')
        assert not name.startswith(("-", "."))


def test_plain_names_stay_and_twins_are_told_apart() -> None:
    assert safe_names(["a/Im001_1.jpg", "Im002.tif"], ".jpg") == ["Im001_1.jpg", "Im002.jpg"]
    first, second = safe_names(["a/x.jpg", "b/x.jpg"], ".jpg")
    assert first != second


def test_field_keeps_its_shape_and_cells_their_pixels() -> None:
    image = field_image()
    drawn = np.asarray(draw_boxes(image, {0: CELL}, {0: Mark("1", supports=True)}))
    assert drawn.shape == image.shape
    np.testing.assert_array_equal(drawn[131:169, 181:219], image[131:169, 181:219])


@pytest.mark.parametrize(("supports", "colour"), [(True, FOR), (False, AGAINST)])
def test_winning_cells_have_their_own_colour(supports: bool, colour: np.ndarray) -> None:
    image = field_image()
    assert has_colour(draw_boxes(image, {0: CELL}, {0: Mark("1", supports)}), colour)
    assert not has_colour(draw_boxes(image, {0: CELL}, {}), colour)


def test_sides_differ_by_line_and_not_by_colour_alone() -> None:
    image = field_image(600, 800)
    one = np.asarray(draw_boxes(image, {0: CELL}, {0: Mark("1", supports=True)}))
    other = np.asarray(draw_boxes(image, {0: CELL}, {0: Mark("1", supports=False)}))
    assert (one == FOR).all(axis=2).sum() > 1.2 * (other == AGAINST).all(axis=2).sum()


def region(*, smudge: bool = False) -> CellRegion:
    """A square cell of 40 px with a square nucleus of 16 px in it."""
    nucleus = np.zeros((40, 40), bool)
    nucleus[12:28, 12:28] = True
    return CellRegion(replace(CELL, smudge=smudge), np.ones((40, 40), bool), nucleus)


def test_outlines_run_along_cell_and_nucleus_and_hide_neither() -> None:
    image = field_image()
    changed = (np.asarray(draw_outlines(image, [region()])) != image).any(axis=2)
    assert changed[130, 182:218].all()  # the cell's upper edge
    assert changed[142, 194:206].all()  # the nucleus' upper edge
    assert not changed[134:138, 184:216].any()
    assert not changed[146:154, 198:204].any()
    assert not changed[:120].any()


def test_a_smudge_is_named_on_the_picture() -> None:
    image = field_image()
    plain, named = (np.asarray(draw_outlines(image, [region(smudge=s)])) for s in (False, True))
    assert (plain[:125] == image[:125]).all()
    assert (named[:129] != image[:129]).any()


def test_lines_grow_with_the_image() -> None:
    marks = {0: Mark("1", supports=True)}
    small, large = (
        int((np.asarray(draw_boxes(field_image(h, w), {0: CELL}, marks)) == FOR).all(2).sum())
        for h, w in ((300, 400), (1500, 2000))
    )
    assert large > 1.5 * small


def test_huge_fields_are_shrunk() -> None:
    image = np.full((100, 8192, 3), 200, np.uint8)
    cell = replace(CELL, left_px=8000, top_px=20)
    drawn = draw_boxes(image, {0: cell}, {0: Mark("1", supports=True)})
    assert drawn.size == (4096, 50)
    columns = np.flatnonzero((np.asarray(drawn) == FOR).all(axis=2).any(axis=0))
    assert 3970 < columns.min() < 4010


def test_scale_bar_stands_where_it_hides_no_cell() -> None:
    image = np.full((300, 400, 3), 200, np.uint8)
    low_left = replace(CELL, left_px=0, top_px=260, width_px=60, height_px=40)
    drawn = np.asarray(draw_boxes(image, {0: low_left}, {}, um_px=0.1))
    assert (drawn[262:298, 2:58] == 200).all()
    assert (drawn != 200).any(axis=2)[200:, 250:].any()


def test_fields_get_overlays_and_crops_one_contact_sheet(tmp_path: Path, make_bag: MakeBag) -> None:
    kinds = (ImageKind.FIELD, ImageKind.CELL, ImageKind.CELL)
    store = make_bag("p", kinds=kinds)
    with BagReader(store.path_of("p")) as bag:
        lost = write_overlays(
            tmp_path / "o", Album(bag), {1: Mark("1", supports=True)}, range(6),
            read_field,
        )  # fmt: skip
    assert lost == []
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["cells.jpg", "im0.jpg"]
    with Image.open(tmp_path / "o" / "im0.jpg") as opened:
        assert opened.size == (400, 300)


def test_pictures_are_those_of_winners_or_none(tmp_path: Path, make_bag: MakeBag) -> None:
    kinds = (ImageKind.FIELD, ImageKind.FIELD, ImageKind.CELL, ImageKind.CELL)
    store = make_bag("p", n=8, kinds=kinds)
    marks = {1: Mark("1", supports=True), 2: Mark("A", supports=False)}  # of im1 and of a crop
    with BagReader(store.path_of("p")) as bag:
        album = Album(bag)
        for wanted in ("none", "winners", "all"):
            write_overlays(tmp_path / wanted, album, marks, range(8), read_field, wanted)
    names = {w.name: sorted(p.name for p in w.iterdir()) for w in tmp_path.iterdir() if w.is_dir()}
    assert names["winners"] == ["cells.jpg", "im1.jpg"]
    assert names["all"] == ["cells.jpg", "im0.jpg", "im1.jpg"]
    assert "none" not in names
    sizes = [(tmp_path / w / "cells.jpg").stat().st_size for w in ("winners", "all")]
    assert sizes[0] < sizes[1]  # one crop has a mark, of four


def test_fields_that_are_gone_or_have_changed_are_named(tmp_path: Path, make_bag: MakeBag) -> None:
    store = make_bag("p", kinds=(ImageKind.FIELD,) * 3)

    def reader(patient: str, record: SourceRecord) -> Field:
        if record.name.endswith("im0.jpg"):
            raise MissingFileError("gone")
        if record.name.endswith("im1.jpg"):
            raise ImageError("cut short")
        return replace(read_field(patient, record), sha256="0" * 64)

    with BagReader(store.path_of("p")) as bag:
        lost = write_overlays(tmp_path / "o", Album(bag), {}, range(6), reader)
        assert lost == [f"slide/im{i}.jpg" for i in range(3)]
        assert write_overlays(tmp_path / "o", Album(bag), {}, range(6), None) == lost


def test_a_field_called_cells_does_not_collide_with_the_contact_sheet() -> None:
    sources = [SourceRecord("cells.png", "0", ImageKind.FIELD, None, 1, 1)]
    assert overlay_names(sources) == {0: "field-cells.jpg"}
