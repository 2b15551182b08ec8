"""Lobes: pieces of one cell become one nucleus, those of two cells stay two."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from millie.segmentation import lobe_model
from millie.segmentation.lobes import FEATURES, grouped, joined, pair_features, pieces_of
from millie.segmentation.nuclei import find_pieces
from millie.segmentation.stain import StainMap, stain_map

WORK_UM = 0.25
BACKGROUND = np.array([235.0, 230.0, 225.0])
RED_CELL = np.array([0.12, 0.30, 0.22])
CYTOPLASM = np.array([0.12, 0.12, 0.04])
NUCLEUS = np.array([0.85, 1.15, 0.25])


def drawn(bodies: list[tuple], nuclei: list[tuple], beside: tuple[tuple, ...] = ()) -> StainMap:
    """Discs (x, y, radius) in um on 40 x 40 um with red cells along the edges, and beside."""
    side = round(40 / WORK_UM)
    density = np.zeros((side, side, 3), np.float32)
    red = [(x, y, 3.6) for x in (4, 13, 22, 31) for y in (4, 36)]
    red += beside
    for discs, value in ((red, RED_CELL), (bodies, CYTOPLASM), (nuclei, NUCLEUS)):
        for x, y, radius in discs:
            point = (round(x / WORK_UM), round(y / WORK_UM))
            cv2.circle(density, point, round(radius / WORK_UM), tuple(map(float, value)), -1)
    density = cv2.GaussianBlur(density, (0, 0), 0.7)
    return stain_map(np.clip(BACKGROUND * np.exp(-density), 0, 255).astype(np.uint8))


def groups_of(stain: StainMap) -> tuple[tuple[int, ...], ...]:
    return grouped(find_pieces(stain, WORK_UM)[0], stain, WORK_UM)


def test_three_lobes_in_one_cell_are_one_nucleus() -> None:
    stain = drawn([(20, 20, 6.0)], [(17.5, 19, 2.0), (22.5, 18.5, 2.0), (20, 23, 2.0)])
    assert find_pieces(stain, WORK_UM)[0].max() > 1
    assert len(groups_of(stain)) == 1


@pytest.mark.parametrize("gap", [0.5, 1.5, 3.0])
def test_two_round_cells_side_by_side_are_two(gap: float) -> None:
    x = 20 - 4.2 - gap / 2, 20 + 4.2 + gap / 2
    stain = drawn([(v, 20, 5.0) for v in x], [(v, 20, 4.2) for v in x])
    assert len(groups_of(stain)) == 2


@pytest.mark.parametrize("body", [5.0, 6.0])
def test_a_neck_of_the_cytoplasm_parts_what_the_nuclei_alone_would_join(
    body: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cells whose nuclei lie close to where the cells touch."""
    monkeypatch.setattr(lobe_model, "evidence", lambda rows: np.full(len(rows), 5.0))
    x = 20.5 - 0.85 * body, 20.5 + 0.85 * body
    near = [(x[0] + 0.6, 20, 3.0), (x[1] - 0.6, 20, 3.0)]
    assert len(groups_of(drawn([(v, 20, body) for v in x], near))) == 2
    assert len(groups_of(drawn([(20.5, 20, 9.0)], near))) == 1


def test_networks_that_are_sure_outweigh_a_neck(monkeypatch: pytest.MonkeyPatch) -> None:
    """An eosinophil may narrow between its lobes."""
    monkeypatch.setattr(lobe_model, "evidence", lambda rows: np.full(len(rows), 12.0))
    x = 16.25, 24.75
    near = [(x[0] + 0.6, 20, 3.0), (x[1] - 0.6, 20, 3.0)]
    assert len(groups_of(drawn([(v, 20, 5.0) for v in x], near))) == 1


def test_a_neck_filled_by_red_cells_parts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """They hide the outline, and so may they the pale cytoplasm of one cell."""
    monkeypatch.setattr(lobe_model, "evidence", lambda rows: np.full(len(rows), 5.0))
    x, body = (15.5, 25.5), 5.5
    stain = drawn([(v, 20, body) for v in x], [(v, 20, 3.0) for v in x])
    neck = np.s_[
        round(14 / WORK_UM) : round(26 / WORK_UM), round(15 / WORK_UM) : round(26 / WORK_UM)
    ]
    stain.density[neck] = np.maximum(stain.density[neck], stain.red_cell_density)
    assert len(groups_of(stain)) == 1


def test_red_cells_that_touch_a_cell_do_not_part_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lobe_model, "evidence", lambda rows: np.full(len(rows), 5.0))
    body = [(18, 20, 4.0), (22, 20, 4.0)]
    stain = drawn(body, [(16.2, 20, 2.0), (23.8, 20, 2.0)], ((12.5, 20, 5.0), (27.5, 20, 5.0)))
    assert find_pieces(stain, WORK_UM)[0].max() > 1
    assert len(groups_of(stain)) == 1


def test_each_piece_lies_in_exactly_one_group() -> None:
    stain = drawn([(14, 20, 6.0), (28, 20, 5.0)], [(12, 19, 2), (16, 21, 2), (28, 20, 4)])
    pieces = find_pieces(stain, WORK_UM)[0]
    held = sorted(k for group in grouped(pieces, stain, WORK_UM) for k in group)
    assert held == list(range(1, pieces.max() + 1))


def test_features_do_not_depend_on_the_order_of_the_pair() -> None:
    stain = drawn([(20, 20, 6.0)], [(17.5, 19, 2.2), (23, 21, 1.8)])
    a, b = pieces_of(find_pieces(stain, WORK_UM)[0], stain)[:2]
    first, second = pair_features(a, b, stain, WORK_UM), pair_features(b, a, stain, WORK_UM)
    assert first.shape == (len(FEATURES),)
    neck = FEATURES.index("neck")  # counted along the first outline
    keep = np.arange(len(FEATURES)) != neck
    assert first[keep] == pytest.approx(second[keep], abs=0.02)
    assert np.isfinite(first).all()
    assert joined(a, b).area_px == a.area_px + b.area_px


def test_gap_and_neck_are_those_of_the_outlines() -> None:
    stain = drawn([(20, 20, 6.0)], [(17.5, 19, 2.2), (23, 21, 1.8)])
    a, b = pieces_of(find_pieces(stain, WORK_UM)[0], stain)[:2]
    values = dict(zip(FEATURES, pair_features(a, b, stain, WORK_UM), strict=True))
    apart = np.linalg.norm(a.outline[:, None] - b.outline[None], axis=2).min(axis=1)
    assert values["gap_um"] == pytest.approx(max(apart.min() - 1, 0) * WORK_UM)
    smaller = 2 * np.sqrt(min(a.area_px, b.area_px) / np.pi)
    assert values["neck"] == pytest.approx(np.count_nonzero(apart <= 1.5) / smaller)


def test_evidence_of_many_pairs_is_that_of_each() -> None:
    values = np.random.default_rng(0).normal(1.0, 1.0, (7, len(FEATURES)))
    together = lobe_model.evidence(values)
    assert together.shape == (7,)
    assert together == pytest.approx([float(lobe_model.evidence(row)) for row in values])
    assert np.isfinite(lobe_model.evidence(values * 1e6)).all()
