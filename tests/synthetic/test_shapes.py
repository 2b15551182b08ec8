"""Geometry in micrometres: areas, unions, spots."""

from __future__ import annotations

import numpy as np
import pytest

from millie.synthetic.shapes import (
    capsule,
    coverage,
    cut,
    draw_noise,
    ellipse,
    join,
    pack,
    polyline,
    scatter,
    specks,
    square_grid,
)


def area_um2(distance: np.ndarray, um_px: float) -> float:
    return float(coverage(distance, 2 * um_px).sum()) * um_px**2


@pytest.mark.parametrize("um_px", [0.05, 0.1, 0.2])
def test_areas_are_physical_at_every_scale(um_px: float) -> None:
    grid = square_grid(round(20 / um_px), um_px)
    assert area_um2(ellipse(grid, (1, -1), (4, 3), 0.7), um_px) == pytest.approx(
        12 * np.pi, rel=0.02
    )
    rod = capsule(grid, (-3, 0), (3, 0), 1.0)
    assert area_um2(rod, um_px) == pytest.approx(12 + np.pi, rel=0.02)


def test_join_holds_both_and_cut_keeps_neither_tool() -> None:
    grid = square_grid(200, 0.1)
    first, second = ellipse(grid, (-2, 0), (3, 3)), ellipse(grid, (2, 0), (3, 3))
    both = join(first, second, 0.8)
    assert np.all(both <= np.minimum(first, second) + 1e-6)
    rest = cut(first, second, 0.8)
    assert np.all(rest >= first - 1e-6)
    assert not np.any((rest < 0) & (second < -0.01))


def test_polyline_passes_through_its_points() -> None:
    grid = square_grid(101, 0.1)
    line = polyline(grid, [(-3, -3), (0, 3), (3, -3)], 0.4)
    for x, y in ((-3, -3), (0, 3), (3, -3)):
        assert line[round(y / 0.1) + 50, round(x / 0.1) + 50] == pytest.approx(-0.4, abs=0.01)


def test_specks_keep_their_peak_and_place() -> None:
    grid = square_grid(101, 0.1)
    spots = specks(grid, np.array([[1.0, -2.0]]), np.array([0.8]), 0.3)
    row, column = np.unravel_index(int(spots.argmax()), spots.shape)
    assert (grid.x[row, column], grid.y[row, column]) == pytest.approx((1.0, -2.0), abs=0.06)
    assert spots.max() == pytest.approx(0.8, rel=0.05)


@pytest.mark.parametrize("draw", [scatter, pack])
def test_random_points_lie_in_the_mask(draw) -> None:  # type: ignore[no-untyped-def]
    grid = square_grid(200, 0.1)
    mask = coverage(ellipse(grid, (2, 1), (4, 3)), 0.2)
    points = draw(mask, grid, 150, np.random.default_rng(0))
    assert 120 <= len(points) <= 180
    assert np.all(((points - (2, 1)) / (4.2, 3.2)) ** 2 @ np.ones(2) <= 1)
    assert len(draw(np.zeros_like(mask), grid, 5, np.random.default_rng(0))) == 0
    assert len(draw(mask, grid, 0, np.random.default_rng(0))) == 0


def test_noise_is_standardised_and_its_grain_grows() -> None:
    noise = draw_noise(0.1, np.random.default_rng(0))
    steps = []
    for tile in (noise.fine, noise.coarse, noise.broad):
        assert float(tile.mean()) == pytest.approx(0, abs=1e-3)
        assert float(tile.std()) == pytest.approx(1, abs=1e-3)
        steps.append(float(np.abs(np.diff(tile, axis=1)).mean()))
    assert steps == sorted(steps, reverse=True)
