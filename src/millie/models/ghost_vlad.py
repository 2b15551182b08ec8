"""Fusion that compares like with like: one mean for each kind of cell instead of one for all.

A patient's mean over all cells moves with the mixture: a film with many lymphocytes and one with
many neutrophils differ more than two diseases do. Here every cell is dealt, softly, to one of a few
kinds (prototypes), and a bag is described by how far the cells of each kind lie from that kind's
centre. Cells that are of none of them go to a ghost that is left out.

This module owns the prototypes: from the encoder where it knows kinds of cell, else by k-means from
training cells without labels. Diagnoses take no part in either.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from millie.errors import ConfigError, no_warnings
from millie.models.encoder import CellTypes
from millie.models.fusion import Aggregator, Fused, State

_SHRINK = 1.0
"""Cells' worth of "nothing unusual" added to each kind: a kind seen once counts half."""
_ROUNDS = 25
_SHARPNESS = 4.0
"""Of the softness of k-means: half the weight is lost where the squared distance to two centres
differs by 0.17 of the mean squared distance to the nearest."""
_NO_GHOST = -1e4
_RESOLVED = 1e-6
"""Least squared distance to a centre, of the squared length of a cell: single precision."""
_TINY = 1e-12


class GhostVladAggregator(Aggregator):
    """For each kind k the mean deviation of its cells from its centre c_k, softly assigned.

    V_k = sum_i a_k(x_i) (x_i - c_k) / (1 + sum_i a_k(x_i)), where a is the softmax of a linear map
    onto types, summed over the types of a kind; what is of no kind goes to the ghost. Division by
    the number of cells, with one more for shrinkage, stands in place of the source's unit length,
    which would make a kind with one cell as loud as one with fifty. The score of a cell is the
    weight of its deviations in this, summed over kinds.

    Source: NetVLAD, Arandjelovic et al., CVPR 2016, eq. 4; GhostVLAD, Zhong et al., ACCV 2018.

    Args:
        dim: features D.
        kinds: K, without the ghost.
        types: T types that an encoder knows; 0: it knows none, and the kinds are clusters.
    """

    directions: Tensor
    offsets: Tensor
    lines: Tensor
    centres: Tensor

    def __init__(self, dim: int, kinds: int, types: int = 0) -> None:
        super().__init__()
        types = types or kinds + 1
        directions = torch.empty(types, dim)
        # On the device meta torch would load its compiler for this first: a second, for nothing.
        if not directions.is_meta:
            directions = torch.randn(types, dim) / dim**0.5
        self.register_buffer("directions", directions)
        self.register_buffer("offsets", torch.zeros(types))
        self.register_buffer("lines", torch.zeros(types, kinds).fill_diagonal_(1))
        self.register_buffer("centres", torch.zeros(kinds, dim))

    def width(self, dim: int) -> int:
        """K D."""
        return len(self.centres) * dim

    def types(self, embeddings: Tensor) -> Tensor:
        """Probability of each type for each cell (..., D); (..., T), sums to 1."""
        return (embeddings @ self.directions.T + self.offsets).softmax(dim=-1)

    def shares(self, embeddings: Tensor) -> Tensor:
        """How far each cell (..., D) belongs to each kind; (..., K), 0 to 1, sums to at most 1."""
        return self.types(embeddings) @ self.lines

    def fit(self, chunks: Iterable[Tensor], types: CellTypes | None = None) -> None:
        """Set prototypes from training cells; diagnoses are not seen.

        Args:
            chunks: standardised embeddings (n, D), which are held in memory together.
            types: of the encoder, for these embeddings; None: k-means, without a ghost.

        Raises:
            ConfigError: fewer cells than kinds, or the encoder knows another number of kinds.
        """
        cells = torch.cat([chunk.detach() for chunk in chunks])
        if len(cells) < len(self.centres):
            raise ConfigError(
                f"{len(cells)} training cells for {len(self.centres)} prototypes: give more "
                "cells, or lower model.prototypes"
            )
        if types is None:
            directions, offsets = _k_means(cells, len(self.centres))
            self._take(directions, offsets, torch.eye(len(offsets), len(self.centres)))
        else:
            self._take(types.weight.detach(), types.bias.detach(), types.lines)
        shares = self.shares(cells)
        total = shares.sum(dim=0).clamp(min=_TINY)
        self.centres.copy_(shares.T @ cells / total[:, None])

    def _take(self, directions: Tensor, offsets: Tensor, lines: Tensor) -> None:
        if lines.shape != self.lines.shape:
            raise ConfigError(
                f"the encoder knows {lines.shape[1]} kinds of cell: set model.prototypes="
                f"{lines.shape[1]} (now {len(self.centres)})"
            )
        self.directions.copy_(directions)
        self.offsets.copy_(offsets)
        self.lines.copy_(lines)

    def alone(self, cells: Tensor) -> Tensor:
        """Vectors (n, K D) of bags of one cell."""
        return self.pool(cells[:, None])

    def fuse(self, embeddings: Tensor, mask: Tensor) -> Fused:
        """Fuse checked bags."""
        shares = self.shares(embeddings) * mask[..., None].to(embeddings.dtype)
        total = shares.sum(dim=1)
        sums = torch.einsum("bnk,bnd->bkd", shares, embeddings) - total[..., None] * self.centres
        weights = (shares / (total + _SHRINK)[:, None]).sum(dim=2)
        weights = torch.where(weights.sum(dim=1, keepdim=True) > _TINY, weights, mask.to(weights))
        scores = weights / weights.sum(dim=1, keepdim=True)  # strangers alone: all are equal
        return Fused((sums / (total + _SHRINK)[..., None]).flatten(1), scores)

    def accumulate(self, state: State, embeddings: Tensor) -> State:
        """State: (summed deviations (K, D), summed shares (K,))."""
        shares = self.shares(embeddings)
        total = shares.sum(dim=0)
        sums = shares.T @ embeddings - total[:, None] * self.centres
        return (state[0] + sums, state[1] + total) if state else (sums, total)

    def conclude(self, state: State) -> Tensor:
        """Mean deviations (K D,)."""
        return (state[0] / (state[1] + _SHRINK)[:, None]).flatten()

    def parts(self, state: State, embeddings: Tensor, gradient: Tensor) -> Tensor:
        """What each cell adds to ``gradient`` times the bag's vector; exact, summed over cells.

        Args:
            state: of the whole bag.
            embeddings: (n, D), some of its cells.
            gradient: (K D,) of a score with respect to the bag's vector.

        Returns:
            (n,)
        """
        weights = gradient.view_as(self.centres) / (state[1] + _SHRINK)[:, None]
        reach = embeddings @ weights.T - (weights * self.centres).sum(dim=1)
        return (self.shares(embeddings) * reach).sum(dim=1)


def _k_means(cells: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Soft assignment (count + 1, D), (count + 1,) to k-means clusters; the ghost gets nothing.

    The ghost lies behind the first cluster wherever a cell is, so far out that no cell is its own.

    Source: NetVLAD eq. 3: -alpha |x - c|^2 is linear in x up to a term that all clusters share.
    """
    centres = _centres(cells, count)
    squared = torch.cdist(cells, centres).square().amin(dim=1).mean()
    least = _RESOLVED * cells.square().sum(dim=1).mean()
    alpha = _SHARPNESS / torch.maximum(squared, least).clamp(min=_TINY)
    directions, offsets = 2 * alpha * centres, -alpha * centres.square().sum(dim=1)
    return torch.cat([directions, directions[:1]]), torch.cat([offsets, offsets[:1] + _NO_GHOST])


def _centres(cells: Tensor, count: int) -> Tensor:
    """Centres (count, D) of k-means, drawn anew where torch is seeded anew.

    A centre that no cell is nearest to stays where it was drawn, without a warning.
    """
    from scipy.cluster.vq import kmeans2  # noqa: PLC0415 - only fusions by k-means need it

    seed = int(torch.randint(2**31 - 1, ()))
    with no_warnings():
        centres, _ = kmeans2(cells.cpu().numpy(), count, iter=_ROUNDS, minit="++", seed=seed)
    return torch.from_numpy(centres).to(cells)
