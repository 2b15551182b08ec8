"""Contours: the outline of a cell body, from rays and the closed line through them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millie.segmentation import contour_model
from millie.segmentation.contours import (
    ANGLES,
    RADII,
    REACH,
    STEP_UM,
    Nucleus,
    Rays,
    cast,
    closed_lines,
    corners,
    costs,
    features,
)
from millie.segmentation.nuclei import find_nuclei
from millie.segmentation.stain import StainMap, stain_map

WORK_UM = 0.25
SIDE_UM = 40
BACKGROUND = np.array([235.0, 230.0, 225.0])
RED_CELL = (0.12, 0.30, 0.22)
PLASMA = {"blue": (0.30, 0.25, 0.06), "pink": (0.15, 0.24, 0.10), "pale": (0.06, 0.10, 0.03)}
NUCLEUS = (0.85, 1.15, 0.25)
TOUCHING = (14.2, 20.0, 3.6), (24.0, 26.8, 3.6)  # red cells under the edge of the cell

Disc = tuple[float, float, float]


def drawn(cells: list[tuple[Disc, Disc]], plasma: str, beside: tuple[Disc, ...] = ()) -> StainMap:
    """Cells (body, nucleus) as discs (x, y, radius) in um over red cells along the edges."""
    side = round(SIDE_UM / WORK_UM)
    density = np.zeros((side, side, 3), np.float32)
    layers = [(disc, RED_CELL) for disc in ((x, y, 3.6) for x in (4, 13, 22, 31) for y in (3, 37))]
    layers += [(disc, RED_CELL) for disc in beside]
    layers += [(body, PLASMA[plasma]) for body, _ in cells]
    layers += [(nucleus, NUCLEUS) for _, nucleus in cells]
    for (x, y, radius), value in layers:
        point = round(x / WORK_UM), round(y / WORK_UM)
        cv2.circle(density, point, round(radius / WORK_UM), value, -1)
    grain = np.random.default_rng(1).normal(0, 1.0, density.shape[:2])[..., None]
    for body, _ in cells:  # granules; red cells are smooth
        density += grain * disc_mask(body)[..., None] * PLASMA[plasma]
    density = cv2.GaussianBlur(density, (0, 0), 0.8)
    density += np.random.default_rng(0).normal(0, 0.01, density.shape)
    return stain_map(np.clip(BACKGROUND * np.exp(-density), 0, 255).astype(np.uint8))


def nuclei_of(stain: StainMap, least_um2: float = 10.0) -> list[Nucleus]:
    labels = find_nuclei(stain, WORK_UM).labels
    whole = slice(0, labels.shape[0]), slice(0, labels.shape[1])
    found = [Nucleus(whole, labels == k) for k in range(1, labels.max() + 1)]
    return [nucleus for nucleus in found if nucleus.mask.sum() * WORK_UM**2 > least_um2]


def bodies_of(stain: StainMap) -> list[np.ndarray]:
    rays = cast(stain, nuclei_of(stain), WORK_UM)
    masks = []
    for outline in corners(rays, closed_lines(costs(rays)), WORK_UM):
        mask = np.zeros(stain.score.shape, np.uint8)
        cv2.fillPoly(mask, [np.rint(outline).astype(np.int32)], 1)
        masks.append(mask > 0)
    return masks


def disc_mask(disc: Disc) -> np.ndarray:
    side = round(SIDE_UM / WORK_UM)
    y, x = np.mgrid[:side, :side] * WORK_UM
    return np.hypot(x - disc[0], y - disc[1]) <= disc[2]


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("plasma", PLASMA)
@pytest.mark.parametrize("beside", [(), TOUCHING], ids=["alone", "touched by red cells"])
def test_cytoplasm_of_any_colour_belongs_to_the_cell(plasma: str, beside: tuple[Disc, ...]) -> None:
    body = (21.0, 20.0, 6.0)
    found = bodies_of(drawn([(body, (19.5, 20.0, 3.4))], plasma, beside))
    assert len(found) == 1
    assert dice(found[0], disc_mask(body)) > 0.9


def test_a_cell_without_visible_cytoplasm_is_its_nucleus() -> None:
    disc = (20.0, 20.0, 4.2)
    found = bodies_of(drawn([(disc, disc)], "blue"))
    assert dice(found[0], disc_mask(disc)) > 0.9


def test_bodies_of_touching_cells_share_hardly_a_pixel() -> None:
    cells = [((x, 20.0, 5.5), (x, 20.0, 4.0)) for x in (14.6, 25.4)]
    first, second = bodies_of(drawn(cells, "blue"))
    assert (first & second).sum() < 0.01 * first.sum()
    for found, (body, _) in zip(sorted((first, second), key=_left), cells, strict=True):
        assert dice(found, disc_mask(body)) > 0.9


def _left(mask: np.ndarray) -> float:
    return float(np.nonzero(mask)[1].mean())


def test_rays_know_where_another_nucleus_is_nearer() -> None:
    cells = [((x, 20.0, 5.5), (x, 20.0, 4.0)) for x in (14.6, 25.4)]
    stain = drawn(cells, "blue")
    both, alone = (cast(stain, part, WORK_UM) for part in (nuclei_of(stain), nuclei_of(stain)[:1]))
    towards = int(np.argmin(both.end[0]))
    middle_um = both.end[0, towards] * STEP_UM
    assert both.foreign[0, towards]
    assert middle_um == pytest.approx((25.4 - 14.6) / 2, abs=0.8)
    assert not alone.foreign.any()
    assert alone.end[0, towards] == RADII


def test_rays_end_at_the_edge_of_the_picture() -> None:
    stain = drawn([((2.0, 20.0, 6.0), (2.0, 20.0, 4.0))], "blue")
    rays = cast(stain, nuclei_of(stain), WORK_UM)
    assert rays.end.min() * STEP_UM == pytest.approx(rays.centres[0, 0] * WORK_UM, abs=0.6)
    assert not rays.foreign.any()


def test_features_do_not_depend_on_the_strength_of_the_stain() -> None:
    """Densities are measured in units of the nucleus' own."""
    body, nucleus = (21.0, 20.0, 6.0), (20.0, 20.0, 3.4)
    stain = drawn([(body, nucleus)], "pink")
    plain = cast(stain, nuclei_of(stain), WORK_UM)
    doubled = StainMap(
        **{
            name: getattr(stain, name) * 2
            if name in ("density", "channels", "background_density", "red_cell_colour")
            else getattr(stain, name)
            for name in StainMap.__dataclass_fields__
        }
    )
    strong = cast(doubled, nuclei_of(stain), WORK_UM)
    colour = features(strong)[..., :39] - features(plain)[..., :39]
    assert np.abs(colour).max() < 1e-3


def rays(n: int = 1) -> Rays:
    """Rays of no cell in particular."""
    rng = np.random.default_rng(n)
    edge = rng.integers(5, 12, (n, ANGLES))
    return Rays(
        centres=np.zeros((n, 2)),
        colour=rng.uniform(0, 1.5, (n, ANGLES, 5 + REACH + 12, 3)).astype(np.float32),
        edge=edge,
        end=edge + rng.integers(1, 40, (n, ANGLES)),
        foreign=np.zeros((n, ANGLES), bool),
        nucleus_um=rng.uniform(3, 6, n).astype(np.float32),
        red=rng.uniform(0, 1, (n, 4)).astype(np.float32),
        empty=rng.uniform(0.1, 0.4, n).astype(np.float32),
    )


def test_features_stand_in_the_order_that_the_network_learnt() -> None:
    one = rays()
    found, k = features(one)[0, 7], 9  # a ray, a place on it
    colour = one.colour[0]
    assert found.shape == (REACH, len(contour_model.weights()["first"]))
    for place, offset in enumerate((-5, -3, -2, -1, 0, 1, 2, 3, 5)):
        assert found[k, 3 * place : 3 * place + 3] == pytest.approx(colour[7, 5 + k + offset])
    wide = colour[5:10].mean(axis=0)
    for place, offset in enumerate((-3, 0, 3)):
        assert found[k, 27 + 3 * place : 30 + 3 * place] == pytest.approx(wide[5 + k + offset])
    way = colour[7, 5 : 5 + k + 1]
    assert found[k, 36:39] == pytest.approx(way.mean(axis=0), rel=1e-4)
    assert found[k, 39] == pytest.approx(way.sum(axis=1).std(), rel=1e-3)
    assert found[k, 40] == pytest.approx(way.sum(axis=1).min())
    following = wide.sum(axis=1)[5 + k + 1 :]
    stained = wide.sum(axis=1)[5:] > one.empty[0]
    assert found[k, 41:43] == pytest.approx(
        [following[:6].mean(), following[6:12].mean()], rel=1e-3
    )
    assert found[k, 43:46] == pytest.approx(
        [stained[k + 1 : k + 7].mean(), stained[k + 7 : k + 13].mean(), stained[: k + 1].mean()]
    )
    edge = int(one.edge[0, 7])
    left = np.clip(one.end[0, 7] - edge - k, -6, 6)
    distances = [k * STEP_UM, edge * STEP_UM, (edge + k) * STEP_UM, one.nucleus_um[0], left]
    assert found[k, 46:52] == pytest.approx([*distances, one.empty[0]], rel=1e-5)
    assert found[k, 52:] == pytest.approx(one.red[0])


def test_cells_are_judged_alike_alone_and_among_many() -> None:
    many = rays(21)
    together = costs(many)
    for k in (0, 8, 20):
        assert costs(many.part(slice(k, k + 1)))[0] == pytest.approx(together[k], abs=1e-4)


def test_no_line_enters_what_is_anothers() -> None:
    many = rays(12)
    lines = closed_lines(costs(many))
    beyond = lines > np.maximum(many.end, many.edge)
    assert beyond.mean() < 0.02  # only where the steepest step does not lead back in time


def test_a_nucleus_around_another_has_its_middle_in_itself() -> None:
    """The hull's centre of two far lobes may lie in the cell between them."""
    stain = drawn([((20.0, 20.0, 5.0), (20.0, 20.0, 3.0))], "blue")
    shape = stain.score.shape
    lobes = disc_mask((12.0, 20.0, 3.0)) | disc_mask((27.5, 20.0, 2.5))
    whole = slice(0, shape[0]), slice(0, shape[1])
    around, between = Nucleus(whole, lobes), Nucleus(whole, disc_mask((20.0, 20.0, 3.0)))
    middle = cast(stain, [around, between], WORK_UM).centres * WORK_UM
    assert middle[0] == pytest.approx([12.0, 20.0], abs=0.5)
    assert middle[1] == pytest.approx([20.0, 20.0], abs=0.5)


@pytest.mark.parametrize("padding", [0, 255], ids=["black padding", "edge of the picture"])
def test_a_cut_body_reaches_the_edge(padding: int) -> None:
    body = (5.0, 20.0, 6.0)
    stain = drawn([(body, (5.5, 20.0, 3.4))], "blue")
    if padding == 0:
        stain.valid[:, :4] = False
    found = cast(stain, nuclei_of(stain), WORK_UM)
    outline = corners(found, closed_lines(costs(found)), WORK_UM)[0]
    first = 4 if padding == 0 else 0
    assert outline[:, 0].min() <= first + 0.5
    assert not found.foreign.any()


@given(
    turn=st.integers(0, ANGLES - 1),
    radius=st.integers(8, RADII - 10),
    bulge=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_the_cheapest_line_is_found_and_turns_with_the_picture(
    turn: int, radius: int, bulge: int, seed: int
) -> None:
    angle = np.arange(ANGLES) * 2 * np.pi / ANGLES
    line = np.rint(radius + bulge * np.cos(angle)).astype(int)
    cost = np.random.default_rng(seed).uniform(4, 6, (1, ANGLES, RADII)).astype(np.float32)
    cost[0, np.arange(ANGLES), line] = 0
    found = closed_lines(cost)
    assert (found == line).all()
    assert (closed_lines(np.roll(cost, turn, axis=1)) == np.roll(found, turn, axis=1)).all()


def test_one_ray_that_sees_no_edge_does_not_dent_the_line() -> None:
    cost = np.full((1, ANGLES, RADII), 6.0, np.float32)
    cost[:, :, 20] = 0
    cost[:, 7, 20] = 1.0
    cost[:, 7, 32] = 0
    assert (closed_lines(cost) == 20).all()


def test_costs_are_those_of_probabilities_within_reach_of_the_nucleus() -> None:
    stain = drawn([((21.0, 20.0, 6.0), (20.0, 20.0, 3.4))], "blue", TOUCHING)
    rays = cast(stain, nuclei_of(stain), WORK_UM)
    cost = costs(rays)
    assert cost.shape == (1, ANGLES, RADII)
    place = np.arange(RADII)
    outside = (place < rays.edge[..., None]) | (place >= rays.edge[..., None] + REACH)
    assert cost[outside].min() > 20
    assert np.exp(-cost.astype(float)).sum(axis=2) == pytest.approx(1.0, abs=1e-3)
