"""Pictures drawn by a program: synthetic films, plain discs, and what is no blood film at all."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from leukocyte_sources import KEPT_UM_PX, NO_RED, Picture, Pixels, blank

from millie.synthetic import CellType, FilmConfig, draw_field, draw_style

SEED = 13


def synthetic(_: object) -> Iterator[Picture]:
    """Films of ``millie.synthetic``, smudges among their leukocytes."""
    rng = np.random.default_rng(SEED)
    kinds = list(CellType)
    for _n in range(70):
        chosen = rng.integers(0, len(kinds), rng.integers(0, 22))
        composition = {k: int((chosen == i).sum()) for i, k in enumerate(kinds)}
        config = FilmConfig(
            width_px=720, height_px=540, um_px=0.2, red_cell_coverage=float(rng.uniform(0.1, 0.7)),
            rouleaux=float(rng.choice([0.05, 0.4])), giant_platelets=0.15,
            platelets_per_red_cell=0.15,
            platelet_clumps=0.5, debris=3.0, style=draw_style(rng),
        )  # fmt: skip
        drawn = draw_field(config, composition, rng)
        picture = blank("synthetic", drawn.image, 0.2)
        picture.cells[:] = drawn.cell_labels
        picture.nuclei[:] = drawn.nucleus_labels > 0
        for k, cell in enumerate(drawn.cells):
            if cell.type == CellType.SMUDGE:
                picture.things[drawn.cell_labels == k + 1] = 3
        yield picture


def discs(_: object) -> Iterator[Picture]:
    """Red cells and leukocytes as plain discs in any colours."""
    rng = np.random.default_rng(SEED + 1)
    for _n in range(50):
        side, um_px = 480, 0.2
        picture = blank("discs", np.zeros((side, side, 3), np.uint8), um_px)
        density = np.zeros((side, side, 3), np.float32)
        red, body, nucleus = (rng.uniform(*v, 3) for v in ((0.08, 0.6), (0.05, 0.4), (0.5, 1.4)))
        step = rng.uniform(9, 14)
        places = np.stack(np.meshgrid(*[np.arange(step / 2, side * um_px, step)] * 2), -1).reshape(
            -1, 2
        )
        places = places + rng.uniform(-1.2, 1.2, places.shape)
        few = rng.choice([0.0, 0.1, 0.4, 0.9])
        for x, y in places[rng.random(len(places)) < rng.uniform(0.4, 1)]:
            if rng.random() < few:
                radius = rng.uniform(4, 7)
                inner = radius * rng.uniform(0.6, 0.92)
                shift = rng.uniform(-0.5, 0.5, 2) * (radius - inner)
                put(density, (x, y), radius, body, um_px)
                put(density, (x + shift[0], y + shift[1]), inner, nucleus, um_px)
                put(picture.cells, (x, y), radius, int(picture.cells.max()) + 1, um_px)
                put(picture.nuclei, (x + shift[0], y + shift[1]), inner, 1, um_px)
            else:
                radius = rng.normal(3.6, 0.2)
                put(density, (x, y), radius, red, um_px)
                put(
                    density,
                    (x, y),
                    radius * rng.uniform(0.2, 0.5),
                    red * rng.uniform(0.4, 1),
                    um_px,
                )
                put(picture.things, (x, y), radius, 1, um_px)
        picture.unknown &= ~np.uint8(NO_RED)
        density = cv2.GaussianBlur(density, (0, 0), rng.uniform(0.4, 2))
        picture.image[:] = (rng.uniform(190, 250, 3) * np.exp(-density)).clip(0, 255)
        yield picture


def put(
    plane: np.ndarray, at: tuple[float, float], radius: float, value: object, um_px: float
) -> None:
    """A disc, um."""
    centre = tuple(round(v / um_px * 16) for v in at)
    colour = tuple(map(float, value)) if isinstance(value, np.ndarray) else value
    cv2.circle(plane, centre, round(radius / um_px * 16), colour, -1, cv2.LINE_8, 4)


def nothing(_: object) -> Iterator[Picture]:
    """No film: blurred colours, stripes, text, noise, tissue-like sheets, an empty glass."""
    rng = np.random.default_rng(SEED + 2)
    for number in range(60):
        image = MADE[number % len(MADE)](rng)
        picture = blank("nothing", image, KEPT_UM_PX, scale_known=False)
        picture.unknown[:] = 0
        yield picture


def colours(rng: np.random.Generator) -> Pixels:
    coarse = rng.integers(0, 256, (*rng.integers(3, 30, 2), 3)).astype(np.uint8)
    return np.asarray(
        cv2.resize(coarse, (400, 300), interpolation=int(rng.choice([0, 1, 2]))), np.uint8
    )


def page(rng: np.random.Generator) -> Pixels:
    image = np.full((300, 400, 3), rng.integers(180, 256, 3), np.uint8)
    for y in range(20, 300, int(rng.integers(14, 40))):
        text = "".join(rng.choice(list("abcdefghij klmno PQRS 0123")) for _ in range(40))
        cv2.putText(
            image, text, (5, y), 0, float(rng.uniform(0.3, 1)), (0, 0, 0), int(rng.integers(1, 3))
        )
    return image


def grain(rng: np.random.Generator) -> Pixels:
    noise = rng.normal(0, 1, (300, 400, 3)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.3, 8))
    noise /= noise.std()
    return (rng.uniform(60, 240, 3) + noise * rng.uniform(3, 50)).clip(0, 255).astype(np.uint8)


def sheet(rng: np.random.Generator) -> Pixels:
    """Dense tissue: every nucleus in a stained sheet, none is a leukocyte on a film."""
    ground = rng.uniform(0.1, 0.5, 3).astype(np.float32)
    density = np.ones((300, 400, 3), np.float32) * ground
    patchy = cv2.resize(rng.uniform(0.6, 1.6, (15, 20)).astype(np.float32), (400, 300))
    density *= patchy[..., None]
    for x, y in rng.integers(0, 400, (int(rng.integers(100, 500)), 2)):
        axes = (int(rng.integers(3, 9)), int(rng.integers(3, 9)))
        cv2.ellipse(
            density,
            (int(x), int(y)),
            axes,
            float(rng.uniform(0, 180)),
            0,
            360,
            (0.8, 0.9, 0.35),
            -1,
        )
    return (245 * np.exp(-cv2.GaussianBlur(density, (0, 0), 1.2))).clip(0, 255).astype(np.uint8)


MADE = (colours, page, grain, sheet)
