"""Forms of nuclei: round, clefted, folded, banded, lobed.

Owns the geometry of nuclei alone; chromatin is painted by :mod:`millie.synthetic.leukocytes`.
Every form is a function of the grid and the radius (um) of the whole nucleus that returns a
signed distance (um).

Source: B. J. Bain, Blood Cells: A Practical Guide, 6th ed. (2022), ch. 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from millie.synthetic.shapes import capsule, cut, ellipse, join, polyline

if TYPE_CHECKING:
    from millie.synthetic.shapes import Grid, Plane, Point


def round_form(grid: Grid, radius_um: float, rng: np.random.Generator) -> Plane:
    """Round or slightly oval."""
    long = rng.uniform(1.0, 1.1)
    return ellipse(grid, (0, 0), (radius_um * long, radius_um / long), rng.uniform(0, np.pi))


def dented(grid: Grid, radius_um: float, rng: np.random.Generator) -> Plane:
    """Oval, often with a shallow dent (lymphocyte, myeloblast)."""
    body = round_form(grid, radius_um, rng)
    if rng.random() < 0.55:
        return body
    depth = rng.uniform(0.15, 0.4) * radius_um
    tool_um = rng.uniform(0.35, 0.8) * radius_um
    return cut(body, ellipse(grid, _at(radius_um + tool_um - depth, rng), (tool_um, tool_um)), 0.8)


def clefted(grid: Grid, radius_um: float, rng: np.random.Generator) -> Plane:
    """Round, now and then with a narrow cleft (lymphoblast)."""
    body = round_form(grid, radius_um, rng)
    if rng.random() < 0.55:
        return body
    x, y = _at(1.1 * radius_um, rng)
    depth = rng.uniform(0.25, 0.55)
    wedge = capsule(grid, (x, y), (x * (1 - depth), y * (1 - depth)), 0.2)
    wedge = join(wedge, ellipse(grid, (x, y), (0.2 * radius_um, 0.2 * radius_um)), 1.5)
    return cut(body, wedge, 0.8)


def folded(grid: Grid, radius_um: float, rng: np.random.Generator) -> Plane:
    """Kidney or horseshoe with broad limbs (monocyte)."""
    width = rng.uniform(0.40, 0.5) * radius_um
    sweep = rng.uniform(0.75, 1.35) * np.pi
    points = _bow(1.1 * (radius_um - width), sweep, rng, points=5, wobble=0.14)
    body = polyline(grid, points, width)
    for point in points:
        swell = width * rng.uniform(0.9, 1.3)
        body = join(body, ellipse(grid, point, (swell, swell)), 1.2)
    return body


def banded(grid: Grid, radius_um: float, rng: np.random.Generator) -> Plane:
    """Sausage bent to a C or U, no filaments (band neutrophil)."""
    sweep = rng.uniform(0.9, 1.45) * np.pi
    points = _bow(0.72 * radius_um, sweep, rng, points=7, wobble=0.08)
    return polyline(grid, points, 0.33 * radius_um * rng.uniform(0.9, 1.1))


def segmented(grid: Grid, radius_um: float, rng: np.random.Generator) -> Plane:
    """Three to five lobes on a bow, joined by filaments (neutrophil)."""
    n = int(rng.choice([2, 3, 4, 5], p=[0.1, 0.45, 0.33, 0.12]))
    sweep = {2: 0.9, 3: 1.0, 4: 1.2, 5: 1.4}[n] * np.pi * rng.uniform(0.8, 1.15)
    size = {2: 0.52, 3: 0.5, 4: 0.44, 5: 0.39}[n] * radius_um
    return _lobes(grid, _bow(0.66 * radius_um, sweep, rng, points=n, wobble=0.16), size, rng)


def two_lobed(grid: Grid, radius_um: float, rng: np.random.Generator) -> Plane:
    """Two plump lobes like spectacles (eosinophil)."""
    points = _bow(0.56 * radius_um, rng.uniform(0.8, 1.0) * np.pi, rng, points=2, wobble=0.05)
    return _lobes(grid, points, 0.5 * radius_um, rng)


def dumbbell(grid: Grid, radius_um: float, rng: np.random.Generator) -> Plane:
    """Two broad leaves over a deep cleft, or a kidney (promyelocyte of APL)."""
    angle = rng.uniform(0, 2 * np.pi)
    reach = rng.uniform(0.5, 0.62) * radius_um
    dx, dy = reach * np.cos(angle), reach * np.sin(angle)
    shift = rng.uniform(0.0, 0.25) * radius_um  # bends the pair to a butterfly or kidney
    sx, sy = -shift * np.sin(angle), shift * np.cos(angle)
    big, small = rng.uniform(0.56, 0.64) * radius_um, rng.uniform(0.46, 0.58) * radius_um
    tilt = rng.uniform(0.2, 0.9)
    across = angle + np.pi / 2
    first = ellipse(grid, (dx + sx, dy + sy), (big * 1.15, big * 0.9), across + tilt)
    second = ellipse(grid, (sx - dx, sy - dy), (small * 1.2, small * 0.9), across - tilt)
    return join(first, second, rng.uniform(0.4, 1.2))


def _lobes(grid: Grid, points: list[Point], size_um: float, rng: np.random.Generator) -> Plane:
    body = polyline(grid, points, 0.3)
    for x, y in points:
        long = rng.uniform(1.0, 1.25)
        axes = (size_um * long * rng.uniform(0.88, 1.1), size_um / long * rng.uniform(0.92, 1.1))
        tangent = float(np.arctan2(y, x)) + np.pi / 2 + rng.normal(0, 0.5)
        body = join(body, ellipse(grid, (x, y), axes, tangent), 0.5)
    return body


def _bow(
    radius_um: float, sweep: float, rng: np.random.Generator, points: int, wobble: float
) -> list[Point]:
    """Points along an arc of a circle, its middle in the origin, each moved a little."""
    start = rng.uniform(0, 2 * np.pi)
    angles = start + np.linspace(0, sweep, points)
    reach = radius_um * (1 + rng.uniform(-wobble, wobble, points) * 2)
    x, y = reach * np.cos(angles), reach * np.sin(angles)
    return list(zip((x - 0.5 * x.mean()).tolist(), (y - 0.5 * y.mean()).tolist(), strict=True))


def _at(distance_um: float, rng: np.random.Generator) -> Point:
    angle = rng.uniform(0, 2 * np.pi)
    return distance_um * float(np.cos(angle)), distance_um * float(np.sin(angle))
