"""Are there immature cells at all? Without them a high probability of APL is no emergency.

A model's probability rests on all shares of types at once, and may be high for a healthy film whose
mixture it has not met. Acute leukaemia shows itself in immature cells, and how many of a sample's
cells look like one is a figure that means something by itself. This module owns that share; the
limit is a bundle's, from its training patients that have the class that must not wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from millie.inference.resampling import DRAWS, TAIL
from millie.models.blood_cell import IMMATURE, TYPES
from millie.models.type_shares import TypeSharesAggregator
from millie.statistics.conformal import exclusion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from millie.models.network import MilNetwork

LIMIT = "urgent_immature_share"
"""Name of the limit in a bundle (``qc`` of its manifest)."""


@dataclass(frozen=True, slots=True)
class Immature:
    """Share of a sample's cells that look immature, 0 to 1.

    Attributes:
        share: mean over cells of the probability that it is a blast or a promyelocyte.
        high: the same at most, when cells are drawn anew (95th percentile).
        limit: the share that patients with the class that must not wait have at least.
    """

    share: float
    high: float
    limit: float

    @property
    def seen(self) -> bool:
        """Whether such a patient could have so few."""
        return self.high >= self.limit


@torch.no_grad()
def immature_cells(network: MilNetwork, encoder: str, cells: Tensor) -> Tensor | None:
    """Probability (N,), float64, of a blast or a promyelocyte; None if the model cannot tell.

    Args:
        network: of the ensemble.
        encoder: name of what made the cells' vectors.
        cells: vectors (N, D).
    """
    fusion = network.aggregator
    if encoder != "blood_cell" or not isinstance(fusion, TypeSharesAggregator):
        return None
    if fusion.n_types != len(TYPES):
        return None
    types = fusion.types(network.standardiser(cells))
    return types[:, [TYPES.index(name) for name in IMMATURE]].double().sum(dim=1)


def immature(
    network: MilNetwork, encoder: str, cells: Tensor, limits: Mapping[str, float]
) -> Immature | None:
    """The share of a sample beside the bundle's limit; None without one, or if it cannot be told.

    Args:
        network: of the ensemble.
        encoder: name of what made the cells' vectors.
        cells: vectors (N, D), N >= 1.
        limits: of the bundle (``qc`` of its manifest).
    """
    told = immature_cells(network, encoder, cells) if LIMIT in limits else None
    if told is None:
        return None
    found = np.sort(told.numpy())  # the order of the files does not count
    drawn = np.random.default_rng(0).integers(0, len(found), (DRAWS, len(found)))
    high = float(np.quantile(found[drawn].mean(axis=1), 1 - TAIL))
    share = float(found.mean())
    return Immature(share, max(share, high), limits[LIMIT])


def immature_limit(shares: Sequence[float], sensitivity: float) -> dict[str, float]:
    """The limit for a new bundle, by name; none of no patients.

    Args:
        shares: of the training patients with the class that must not wait.
        sensitivity: share of such patients that is to be at or above the limit, as far as their
            number allows (:func:`millie.statistics.conformal.exclusion`).
    """
    return {LIMIT: exclusion(np.array(shares), sensitivity).limit} if len(shares) else {}
