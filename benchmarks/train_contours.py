"""Train the network of ``segmentation/contours.py``: where along a ray does the cell end?

It learns from the films of ``contour_films``: real leukocytes whose outline is plain, or drawn in
``wbc_masks``, among real red cells that touch them. Even images train, odd ones test; ``apl_aml``
takes no part. Writes ``contour_model.npz`` and prints, by set, the mean error of the outline and
the Dice overlap on odd images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from contour_films import (
    WORK_UM,
    Film,
    film,
    known_cells,
    leukocyte_thing,
    nuclei_of,
    red_cells,
)
from millie.segmentation import contour_model
from millie.segmentation.contours import (
    RADII,
    REACH,
    STEP_UM,
    Rays,
    cast,
    closed_lines,
    costs,
    directions,
    features,
)
from millie.segmentation.stain import stain_map
from segmentation import data_parser

FILMS = {"pbc_cells": 12, "wbc_masks": 36, "all_idb1": 60, "bone_marrow_cells": 70, "bccd": 70}
"""Films made of each cell, so that small sets count."""
SHARES = {"pbc_cells": 24, "wbc_masks": 14, "all_idb1": 3, "bone_marrow_cells": 4, "bccd": 3}
"""Cells of each set in a step."""
FARTHEST = 40  # places: an outline further from the middle is not learnt from
HIDDEN = (32, 16)
RATE = 8e-3
Examples = dict[str, NDArray]


def example(made: Film) -> tuple[Rays, NDArray, NDArray] | None:
    """Rays of the known cell, the true place of its outline on each, and where that is in view."""
    stain = stain_map(made.image)
    nuclei = nuclei_of(made, stain)
    if not nuclei:
        return None
    rays = cast(stain, nuclei, WORK_UM).part(slice(0, 1))
    steps = np.arange(RADII)[:, None] * (STEP_UM / WORK_UM)
    points = rays.centres[0] + steps * directions()[:, None]
    x, y = (np.rint(points[..., k]).astype(int) for k in (0, 1))
    height, width = made.body.shape
    out = (x < 0) | (y < 0) | (x >= width) | (y >= height)
    held = made.body[y.clip(0, height - 1), x.clip(0, width - 1)] & ~out
    truth = np.where(held, np.arange(RADII) + 1, 0).max(axis=1)
    cut = np.take_along_axis(out, truth.clip(0, RADII - 1)[:, None], axis=1)[:, 0]
    if not held[:, 0].all() or truth.max() >= FARTHEST:
        return None
    truth = truth.clip(rays.edge[0], np.maximum(rays.end[0], rays.edge[0]))
    return rays, truth, ~cut


def examples(root: Path, part: int, share: float, seed: int) -> Examples:
    """Rays of many films; ``share`` of the number in :data:`FILMS`, the first one unchanged."""
    rng = np.random.default_rng(seed)
    cells, things = known_cells(root, part), red_cells(root, part)
    leukocytes = [leukocyte_thing(c) for c in cells if c.source == "pbc_cells"]
    rows = []
    for cell in cells:
        for k in range(max(1, round(share * FILMS[cell.source]))):
            made = film(cell, things, leukocytes, rng) if k else cell.at()
            found = example(made)
            if found:
                rows.append((cell.source, *found))
    merged: Examples = {
        field.name: np.concatenate([getattr(row[1], field.name) for row in rows])
        for field in fields(Rays)
    }
    merged["colour"] = merged["colour"].astype(np.float16)
    merged |= {"truth": np.stack([r[2] for r in rows]), "seen": np.stack([r[3] for r in rows])}
    return merged | {"source": np.array([row[0] for row in rows])}


def rays_of(data: Examples, which: NDArray) -> Rays:
    parts = {field.name: data[field.name][which] for field in fields(Rays)}
    return Rays(**parts | {"colour": parts["colour"].astype(np.float32)})


def batches(data: Examples, steps: int, seed: int) -> Iterator[NDArray]:
    rng = np.random.default_rng(seed)
    pools = {name: np.flatnonzero(data["source"] == name) for name in SHARES}
    for _ in range(steps):
        yield np.concatenate([rng.choice(pools[name], n) for name, n in SHARES.items()])


def trained(data: Examples, steps: int, seed: int) -> dict[str, NDArray]:
    """Fit the network by the cross entropy of the place on each ray, blurred by one place.

    Returns:
        The arrays of ``contour_model.npz``, for features as they are.
    """
    torch.manual_seed(seed)
    some = np.random.default_rng(seed).permutation(len(data["truth"]))[:400]
    values = features(rays_of(data, some))
    values = values.reshape(-1, values.shape[-1])
    mean, scale = values.mean(axis=0), values.std(axis=0) + 1e-3
    sizes = (len(mean), *HIDDEN)
    layers: list[torch.nn.Module] = []
    for first, second in pairwise(sizes):
        layers += [torch.nn.Linear(first, second), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers, torch.nn.Linear(sizes[-1], 1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE / 2, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    for k, which in enumerate(batches(data, steps, seed)):
        loss = _loss(network, rays_of(data, which), data, which, (mean, scale))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if k % 200 == 0:
            print(f"# step {k}: {loss.item():.3f}", flush=True)
    first, bias, second, second_bias, last, last_bias = (
        p.detach().numpy() for p in network.parameters()
    )
    first = first.T / scale[:, None]
    return {
        "first": first, "first_bias": bias - mean @ first, "second": second.T,
        "second_bias": second_bias, "last": last[0], "last_bias": last_bias,
    }  # fmt: skip


def _loss(
    network: torch.nn.Module,
    rays: Rays,
    data: Examples,
    which: NDArray,
    unit: tuple[NDArray, NDArray],
) -> torch.Tensor:
    values = torch.from_numpy((features(rays) - unit[0]) / unit[1])
    place = rays.edge[..., None] + np.arange(REACH)
    allowed = (place <= np.maximum(rays.end, rays.edge)[..., None]) & (place < RADII)
    odds = network(values)[..., 0].masked_fill(torch.from_numpy(~allowed), -1e4)
    logarithm = torch.log_softmax(odds, dim=2).clamp(min=-30)
    truth = torch.from_numpy((data["truth"][which] - rays.edge).clip(0, REACH - 1))
    away = torch.arange(REACH) - truth[..., None]
    wanted = torch.softmax(-(away.float() ** 2) / 2, dim=2)
    seen = torch.from_numpy(data["seen"][which]).float()
    return -((wanted * logarithm).sum(dim=2) * seen).sum() / seen.sum()


def report(data: Examples) -> None:
    """Error of the outline and Dice overlap, by set."""
    lines = closed_lines(costs(rays_of(data, np.arange(len(data["truth"])))))
    truth, seen = data["truth"], data["seen"]
    away = (np.abs(lines - truth) * seen).sum(axis=1) / np.maximum(seen.sum(axis=1), 1) * STEP_UM
    both = np.minimum(lines, truth).astype(float) ** 2
    dice = 2 * both.sum(axis=1) / (lines**2 + truth**2).sum(axis=1)
    for name in FILMS:
        same = data["source"] == name
        print(
            f"# {name} ({same.sum()}): outline off by {away[same].mean():.2f} um, Dice "
            f"{dice[same].mean():.3f}, in the worst tenth below {np.quantile(dice[same], 0.1):.3f}"
        )


def main() -> None:
    parser = data_parser(__doc__)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out = Path(contour_model.__file__).with_suffix(".npz")
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    train = examples(arguments.data, 0, 1.0, arguments.seed)
    print(f"# {len(train['truth'])} films", flush=True)
    weights = trained(train, arguments.steps, arguments.seed)
    np.savez_compressed(out, **{k: v.astype(np.float32) for k, v in weights.items()})
    contour_model.weights.cache_clear()
    report(examples(arguments.data, 1, 0.1, arguments.seed + 1))


if __name__ == "__main__":
    main()
