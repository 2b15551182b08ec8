"""How far a patient's probabilities depend on which cells happened to be on the film.

The cells that were found are a sample of the patient's cells. Drawing as many of them anew, with
replacement, and fusing each draw shows how another film of the same blood might have come out
(percentile interval: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13.3). It
says nothing about another stain, another camera, or errors of the model itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from millie.models.network import MilNetwork

DRAWS = 100
"""Draws of a patient's cells."""

TAIL = 0.05
"""Share of the draws beyond either end of an interval: 90 % lie within."""

MOST_CELLS = 500
"""Cells of a draw: of larger bags the interval is that of so many, wider than need be."""

_VALUES = 4_000_000
"""Features held at a time: 16 MB."""


@torch.no_grad()
def probability_ranges(
    networks: Sequence[MilNetwork],
    features: Sequence[Tensor],
    probabilities: Callable[[Tensor], Tensor],
    point: Mapping[str, float],
) -> dict[str, tuple[float, float]]:
    """Ends of the interval of each class's probability under resampling of the cells.

    Args:
        networks: of the ensemble.
        features: (N, D) as the encoder gave them; one for all networks, or one each.
        probabilities: logits (M, n, C) of M networks -> calibrated probabilities (n, C).
        point: of all cells, by class in the order of the logits.

    Returns:
        By class, the 5th and the 95th percentile over 100 draws of N cells (at most 500), widened
        where need be to hold the probability of all cells. The draws are seeded: the same cells
        give the same interval, in whatever order they come.
    """
    own = list(features) if len(features) == len(networks) else list(features) * len(networks)
    count, dim = own[0].shape
    rng = np.random.default_rng(0)
    size = min(count, MOST_CELLS)
    order = torch.from_numpy(np.lexsort(own[0].numpy().T))  # the order of the files does not count
    drawn = order[torch.from_numpy(rng.integers(0, count, (DRAWS, size)))]
    step = max(1, _VALUES // (size * dim))
    logits = torch.stack([
        torch.cat([network.bag_logits(cells[part]) for part in torch.split(drawn, step)])
        for network, cells in zip(networks, own, strict=True)
    ])  # fmt: skip
    ends = np.quantile(probabilities(logits).numpy(), (TAIL, 1 - TAIL), axis=0)
    return {
        label: (min(float(low), point[label]), max(float(high), point[label]))
        for label, low, high in zip(point, *ends, strict=True)
    }
