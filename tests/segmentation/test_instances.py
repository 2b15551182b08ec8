"""Leukocytes out of maps that were drawn: who owns a pixel, what is one cell, what is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millie.config import SegmentationConfig
from millie.segmentation.instances import cells_of, maxima, shared_out
from millie.segmentation.network import WORK_UM_PX, Maps

CONFIG = SegmentationConfig()
SIDE = 120


def drawn(centres: list[tuple[float, float]], radius: float = 14, share: float = 0.7) -> Maps:
    """Maps of round cells with round nuclei; centres (x, y) and radius in pixels of the input."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(float)
    far = np.full((SIDE, SIDE), np.inf)
    owner = np.zeros((SIDE, SIDE), int)
    for k, (x, y) in enumerate(centres):
        away = np.hypot(columns - x, rows - y)
        owner[away < far] = k
        far = np.minimum(far, away)
    half = SIDE // 2
    centre, offset = np.zeros((half, half)), np.zeros((2, half, half))
    for k, (x, y) in enumerate(centres):
        near = np.hypot(columns - x, rows - y)[::2, ::2] / 2
        centre = np.maximum(centre, np.exp(-(near**2) / 8))
        own = owner[::2, ::2] == k
        offset[0][own] = x / 2 - columns[::2, ::2][own] / 2
        offset[1][own] = y / 2 - rows[::2, ::2][own] / 2
    none = np.zeros((half, half), np.float32)
    clipped = np.minimum(far, 1e3)
    return Maps(
        nucleus=np.clip(radius * share - clipped, -8, 8).astype(np.float32),
        cell=np.clip(radius - clipped, -8, 8).astype(np.float32),
        centre=centre.astype(np.float32), red_cell=none, platelet=none, smudge=none,
        offset_px=offset.astype(np.float32), log2_scale=np.zeros((1, 2), np.float32),
    )  # fmt: skip


def found(maps: Maps, config: SegmentationConfig = CONFIG, factor: int = 1) -> list:
    return cells_of(maps, (SIDE * factor, SIDE * factor), WORK_UM_PX / factor, config)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_round_cell_is_drawn_where_it_lies_at_any_resolution(factor: int) -> None:
    (region,) = found(drawn([(60, 50)]), factor=factor)
    cell = region.cell
    assert (cell.x_px + 0.5) / factor == pytest.approx(60.5, abs=0.3)
    assert (cell.y_px + 0.5) / factor == pytest.approx(50.5, abs=0.3)
    assert cell.area_px / factor**2 == pytest.approx(np.pi * 14**2, rel=0.06)
    assert region.nucleus_mask.sum() / factor**2 == pytest.approx(np.pi * 9.8**2, rel=0.06)
    assert not (cell.at_border)
    assert not (cell.in_clump)
    assert not (cell.smudge)


def test_touching_cells_part_in_the_middle_and_know_it() -> None:
    left, right = sorted(found(drawn([(46, 60), (72, 60)])), key=lambda r: r.cell.x_px)
    assert left.cell.in_clump
    assert right.cell.in_clump
    assert left.cell.left_px + left.cell.width_px == pytest.approx(59, abs=2)
    assert left.cell.area_px == pytest.approx(right.cell.area_px, rel=0.05)


def test_cells_apart_are_no_clump() -> None:
    assert [r.cell.in_clump for r in found(drawn([(30, 60), (85, 60)]))] == [False, False]


def test_every_pixel_has_one_owner() -> None:
    maps = drawn([(40, 40), (64, 40), (52, 62)])
    seen = np.zeros((SIDE, SIDE), int)
    for region in found(maps):
        c = region.cell
        seen[c.top_px : c.top_px + c.height_px, c.left_px : c.left_px + c.width_px] += (
            region.cell_mask
        )
    assert seen.max() == 1


def test_lobes_apart_are_one_cell_where_they_point_to_one_middle() -> None:
    maps = drawn([(60, 60)])
    maps.nucleus[:, 56:64] = -5
    (region,) = found(maps)
    assert region.nucleus_mask.any(axis=0).sum() > 10


def test_a_cell_cut_by_the_edge_is_flagged_or_left_out() -> None:
    maps = drawn([(4, 60), (70, 60)])
    assert [r.cell.at_border for r in found(maps)] == [True, False]
    assert len(found(maps, SegmentationConfig(drop_border=True))) == 1


def test_a_small_nucleus_is_none() -> None:
    maps = drawn([(60, 60)], radius=6)
    assert found(maps, SegmentationConfig(min_nucleus_um2=20)) == []
    assert len(found(maps, SegmentationConfig(min_nucleus_um2=2))) == 1


def test_a_smudge_is_flagged_and_worth_less() -> None:
    maps = drawn([(60, 60)])
    (plain,) = found(maps)
    maps.smudge[:] = 0.9
    (smudge,) = found(maps)
    assert smudge.cell.smudge
    assert smudge.cell.quality < plain.cell.quality


def test_no_middle_no_cell() -> None:
    maps = drawn([(60, 60)])
    maps.centre[:] = 0.1
    assert found(maps) == []
    assert not shared_out(maps).labels.any()


@given(st.integers(0, 1000))
def test_maxima_lie_apart_and_come_highest_first(seed: int) -> None:
    rng = np.random.default_rng(seed)
    places, chances = maxima(rng.random((30, 40)).astype(np.float32), 0.5)
    assert (np.diff(chances) <= 0).all()
    away = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    assert (away[np.triu_indices(len(places), 1)] >= 4.0 / 0.8).all()
