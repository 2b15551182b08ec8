"""Where cells lie on the glass, in um.

Owns positions only: leukocytes that do not lie on one another, red cells in a monolayer around
them, rolls of red cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import KDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Points = NDArray[np.float64]

_MARGIN_UM = 3.0  # a leukocyte's centre keeps this distance from the edge, so it can be cut


def separate(
    size_um: tuple[float, float], radii_um: NDArray[np.float64], rng: np.random.Generator
) -> Points:
    """Random places (n, 2) of discs that touch at most, where there is room.

    Discs start anywhere and push each other away.
    """
    size = np.asarray(size_um)
    margin = np.minimum(_MARGIN_UM, size / 2)
    places = rng.uniform(margin, size - margin, (len(radii_um), 2))
    reach = radii_um[:, None] + radii_um[None, :] + rng.uniform(-0.3, 1.2)
    np.fill_diagonal(reach, 0)
    for _ in range(300):
        gap = places[:, None, :] - places[None, :, :]
        distance = np.sqrt(np.square(gap).sum(axis=2)) + 1e-6
        overlap = np.clip(reach - distance, 0, None)
        if overlap.max(initial=0.0) < 0.05:
            break
        push = (gap / distance[..., None] * overlap[..., None]).sum(axis=1) * 0.4
        places = np.clip(places + push, margin, size - margin)
    return places


def spread_red_cells(
    size_um: tuple[float, float],
    diameter_um: float,
    coverage: float,
    *,
    rouleaux: float,
    leukocytes: Points,
    radii_um: NDArray[np.float64],
    rng: np.random.Generator,
) -> Points:
    """Places (n, 2) of red cells: a loose monolayer pushed aside by the leukocytes.

    Args:
        size_um: width and height of the field.
        diameter_um: mean diameter of a red cell.
        coverage: their summed area over the field's.
        rouleaux: share of red cells in rolls.
        leukocytes: (m, 2) centres.
        radii_um: (m,) of the leukocytes.
        rng: draws the places.
    """
    if coverage <= 0:
        return np.zeros((0, 2))
    spacing = diameter_um * np.sqrt(np.pi / (2 * np.sqrt(3) * coverage))
    places = _loose_lattice(size_um, spacing, rng)
    places = _with_rolls(places, size_um, diameter_um, rouleaux, rng)
    return _pushed_aside(places, leukocytes, radii_um + diameter_um / 2 - 0.3)


def _loose_lattice(
    size_um: tuple[float, float], spacing: float, rng: np.random.Generator
) -> Points:
    """A hexagonal lattice shaken until nobody sees it: locally, and in waves of some 25 um."""
    width, height = (length + 8 * spacing for length in size_um)
    columns, rows = np.meshgrid(
        np.arange(0, width, spacing), np.arange(0, height, spacing * np.sqrt(3) / 2)
    )
    columns[1::2] += spacing / 2
    places = np.stack([columns.ravel(), rows.ravel()], axis=1)
    angle = rng.uniform(-0.2, 0.2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([width, height]) / 2
    places = (places - middle) @ turn.T + np.asarray(size_um) / 2
    places += rng.normal(0, 0.27 * spacing, places.shape)
    for _ in range(4):
        wave = rng.normal(0, 1, 2)
        wave *= 2 * np.pi / (rng.uniform(18, 45) * np.linalg.norm(wave))
        shift = np.sin(places @ wave + rng.uniform(0, 2 * np.pi))
        places += shift[:, None] * rng.normal(0, 0.3 * spacing, 2)
    reach = spacing
    inside = np.all((places > -reach) & (places < np.asarray(size_um) + reach), axis=1)
    return np.asarray(places[inside & (rng.random(len(places)) > 0.04)])


def _with_rolls(
    places: Points, size_um: tuple[float, float], diameter_um: float, share: float,
    rng: np.random.Generator,
) -> Points:  # fmt: skip
    """Replace a share of the red cells by rolls of three to nine."""
    wanted = round(share * len(places))
    rolls: list[Points] = []
    while wanted >= 3:
        n = min(int(rng.integers(3, 10)), wanted)
        angles = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.12, n))
        steps = diameter_um * rng.uniform(0.3, 0.55, n)[:, None]
        path = np.cumsum(steps * np.stack([np.cos(angles), np.sin(angles)], axis=1), axis=0)
        rolls.append(rng.uniform(0, size_um) + path - path.mean(axis=0))
        wanted -= n
    if not rolls:
        return places
    stacked = np.concatenate(rolls)
    nearest, _ = KDTree(stacked).query(places)
    free = nearest > 0.85 * diameter_um
    kept = places[free]
    surplus = len(kept) + len(stacked) - len(places)
    return np.concatenate([kept[max(surplus, 0) :], stacked])


def _pushed_aside(places: Points, leukocytes: Points, reach_um: NDArray[np.float64]) -> Points:
    """Red cells beside leukocytes; those that find no room are left out."""
    if not len(leukocytes) or not len(places):
        return places
    for _ in range(2):
        distance = _distances(places, leukocytes)
        nearest = np.argmin(distance - reach_um, axis=1)
        row = np.arange(len(places))
        depth = reach_um[nearest] - distance[row, nearest]
        away = (places - leukocytes[nearest]) / (distance[row, nearest, None] + 1e-6)
        places = places + np.clip(depth, 0, 3.0)[:, None] * away
    depth = (reach_um - _distances(places, leukocytes)).max(axis=1)
    return np.asarray(places[depth < 0.6])


def _distances(first: Points, second: Points) -> NDArray[np.float64]:
    gap = first[:, None, :] - second[None, :, :]
    return np.asarray(np.sqrt(np.square(gap).sum(axis=2)), dtype=np.float64)
