"""The kinds of fusion: maximum, means, smooth maxima, attention; and the table of all.

What all of them promise is :mod:`millie.models.fusion`. This module owns no weights of encoders or
heads and does not know classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from millie.errors import ConfigError
from millie.models.fusion import Aggregator, Fused, State, checked_mask
from millie.models.ghost_vlad import GhostVladAggregator
from millie.models.type_shares import TypeSharesAggregator

if TYPE_CHECKING:
    from millie.config import ModelConfig

ATTENTION_WIDTH = 128
"""Hidden units of the attention layer (Ilse et al. 2018, section 4)."""

_LOWEST = -30.0
"""Smallest input of the generalised mean: softplus(-30) = 9e-14 is still exact in float32."""


class MaxAggregator(Aggregator):
    """Element-wise maximum over the cells (Manescu et al. 2023, eq. 1).

    The score of a cell is the share of features for which it is the maximum; cells that tie share
    a feature, and its gradient, evenly.
    """

    def fuse(self, embeddings: Tensor, mask: Tensor) -> Fused:
        """Fuse checked bags."""
        masked = embeddings.masked_fill(~mask[..., None], -torch.inf)
        bag = masked.amax(dim=1)
        hits = (masked == bag[:, None]).to(embeddings.dtype)
        return Fused(bag, (hits / hits.sum(dim=1, keepdim=True)).mean(dim=2))

    def pool(self, embeddings: Tensor, mask: Tensor | None = None) -> Tensor:
        """The maxima alone: training has no use for scores, which cost several times as much."""
        mask = checked_mask(embeddings, mask)
        return embeddings.masked_fill(~mask[..., None], -torch.inf).amax(dim=1)

    @staticmethod
    def winners(embeddings: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, D) int64: index of the cell that gives each feature's maximum, the first of ties."""
        mask = checked_mask(embeddings, mask)
        return embeddings.masked_fill(~mask[..., None], -torch.inf).argmax(dim=1)

    def accumulate(self, state: State, embeddings: Tensor) -> State:
        """State: (running maximum (D,),)."""
        highest = embeddings.amax(dim=0)
        return (torch.maximum(state[0], highest) if state else highest,)

    def conclude(self, state: State) -> Tensor:
        """The running maximum."""
        return state[0]


class MeanAggregator(Aggregator):
    """Mean over the cells; every cell has the same score."""

    def fuse(self, embeddings: Tensor, mask: Tensor) -> Fused:
        """Fuse checked bags."""
        real = mask.to(embeddings.dtype)
        scores = real / real.sum(dim=1, keepdim=True)
        return Fused(torch.einsum("bn,bnd->bd", scores, embeddings), scores)

    def accumulate(self, state: State, embeddings: Tensor) -> State:
        """State: (mean (D,), number of cells ()); Welford's update keeps it exact."""
        added = embeddings.new_tensor(float(len(embeddings)))
        if not state:
            return embeddings.mean(dim=0), added
        mean, count = state
        total = count + added
        return mean + (embeddings.mean(dim=0) - mean) * (added / total), total

    def conclude(self, state: State) -> Tensor:
        """The mean."""
        return state[0]


class LogSumExpAggregator(Aggregator):
    """Smooth maximum, 1/r log(mean exp(r x)); r is learned and stays positive.

    r towards 0 is the mean, r towards infinity the maximum. The score of a cell is its softmax
    share, averaged over features.

    Source: Pinheiro and Collobert, CVPR 2015, eq. 6.
    """

    def __init__(self, sharpness: float = 2.0) -> None:
        super().__init__()
        self.log_r = nn.Parameter(torch.tensor(math.log(sharpness)))

    def fuse(self, embeddings: Tensor, mask: Tensor) -> Fused:
        """Fuse checked bags."""
        r = self.log_r.exp()
        return _log_mean_exp(embeddings * r, mask, r)

    def accumulate(self, state: State, embeddings: Tensor) -> State:
        """State: (running log of the sum (D,), number of cells ())."""
        return _add_log_sum(state, embeddings * self.log_r.exp())

    def conclude(self, state: State) -> Tensor:
        """The smooth maximum."""
        return (state[0] - state[1].log()) / self.log_r.exp()


class GeneralisedMeanAggregator(Aggregator):
    """Power mean (mean s(x)^p)^(1/p) of softplus-transformed features, transformed back.

    Powers need positive values: s is softplus, and its inverse at the end makes a bag of one cell
    that cell. p is learned and stays positive; p = 1 is near the mean, a large p near the maximum.
    Inputs below -30 count as -30. The score of a cell is its share of the power sum.

    Source: Radenovic et al., IEEE TPAMI 2019, eq. 3 (GeM), with softplus instead of clamping.
    """

    def __init__(self, power: float = 3.0) -> None:
        super().__init__()
        self.log_p = nn.Parameter(torch.tensor(math.log(power)))

    def fuse(self, embeddings: Tensor, mask: Tensor) -> Fused:
        """Fuse checked bags."""
        p = self.log_p.exp()
        fused = _log_mean_exp(_log_softplus(embeddings) * p, mask, p)
        return Fused(_inverse_softplus(fused.bag.exp()), fused.scores)

    def accumulate(self, state: State, embeddings: Tensor) -> State:
        """State: (running log of the power sum (D,), number of cells ())."""
        return _add_log_sum(state, _log_softplus(embeddings) * self.log_p.exp())

    def conclude(self, state: State) -> Tensor:
        """The power mean, transformed back."""
        return _inverse_softplus(((state[0] - state[1].log()) / self.log_p.exp()).exp())


class AttentionAggregator(Aggregator):
    """Weighted mean; the weights are a softmax over cells of w tanh(V x) (Ilse et al. 2018, eq. 8).

    The score of a cell is its attention weight.
    """

    def __init__(self, dim: int, width: int = ATTENTION_WIDTH) -> None:
        super().__init__()
        self.value = nn.Linear(dim, width)
        self.weight = nn.Linear(width, 1, bias=False)

    def energy(self, embeddings: Tensor) -> Tensor:
        """Attention logits (..., N) of embeddings (..., N, D)."""
        logits: Tensor = self.weight(torch.tanh(self.value(embeddings)))
        return logits.squeeze(-1)

    def fuse(self, embeddings: Tensor, mask: Tensor) -> Fused:
        """Fuse checked bags."""
        energy = self.energy(embeddings).masked_fill(~mask, -torch.inf)
        scores = energy.softmax(dim=1)
        return Fused(torch.einsum("bn,bnd->bd", scores, embeddings), scores)

    def accumulate(self, state: State, embeddings: Tensor) -> State:
        """State: (weighted sum (D,), sum of weights (), largest logit ()): an online softmax."""
        energy = self.energy(embeddings)
        highest = energy.max()
        if state:
            highest = torch.maximum(highest, state[2])
        weights = (energy - highest).exp()
        total, norm = weights @ embeddings, weights.sum()
        if state:
            shrink = (state[2] - highest).exp()
            total, norm = total + state[0] * shrink, norm + state[1] * shrink
        return total, norm, highest

    def conclude(self, state: State) -> Tensor:
        """The weighted mean."""
        return state[0] / state[1]


class GatedAttentionAggregator(AttentionAggregator):
    """Attention with a sigmoid gate, w (tanh(V x) * sigmoid(U x)) (Ilse et al. 2018, eq. 9)."""

    def __init__(self, dim: int, width: int = ATTENTION_WIDTH) -> None:
        super().__init__(dim, width)
        self.gate = nn.Linear(dim, width)

    def energy(self, embeddings: Tensor) -> Tensor:
        """Attention logits (..., N) of embeddings (..., N, D)."""
        opened = torch.tanh(self.value(embeddings)) * torch.sigmoid(self.gate(embeddings))
        logits: Tensor = self.weight(opened)
        return logits.squeeze(-1)


class TopKAggregator(Aggregator):
    """For each feature the mean of its k largest values; of all, in bags of fewer than k cells.

    The score of a cell is its share of the places among the k largest, over all features.

    Args:
        k: cells averaged, >= 1; 1 is the maximum.
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def fuse(self, embeddings: Tensor, mask: Tensor) -> Fused:
        """Fuse checked bags."""
        masked = embeddings.masked_fill(~mask[..., None], -torch.inf)
        values, cells = masked.topk(min(self.k, masked.shape[1]), dim=1)
        taken = values > -torch.inf
        count = taken.sum(dim=1)
        bag = values.masked_fill(~taken, 0.0).sum(dim=1) / count
        share = taken.to(embeddings.dtype) / count[:, None]
        scores = torch.zeros_like(embeddings).scatter_add(1, cells, share)
        return Fused(bag, scores.mean(dim=2))

    def accumulate(self, state: State, embeddings: Tensor) -> State:
        """State: (the largest values so far (at most k, D),)."""
        values = torch.cat([*state, embeddings])
        return (values.topk(min(self.k, len(values)), dim=0).values,)

    def conclude(self, state: State) -> Tensor:
        """Mean of the largest values."""
        return state[0].mean(dim=0)


@dataclass(frozen=True, slots=True)
class AggregatorSpec:
    """A row of the table of aggregators.

    Attributes:
        name: as in ``model.aggregator``.
        description: one line for people.
        source: paper and equation.
        build: (configuration, D, types that the encoder knows) -> aggregator; weights from torch's
            current generator.
    """

    name: str
    description: str
    source: str
    build: Callable[[ModelConfig, int, int], Aggregator]


AGGREGATORS: dict[str, AggregatorSpec] = {
    spec.name: spec
    for spec in (
        AggregatorSpec("max", "largest value of each feature", "Manescu 2023, eq. 1",
                       lambda _config, _dim, _types: MaxAggregator()),
        AggregatorSpec("mean", "mean of each feature", "Manescu 2023, released code",
                       lambda _config, _dim, _types: MeanAggregator()),
        AggregatorSpec("generalised_mean", "power mean, learned power", "Radenovic 2019, eq. 3",
                       lambda _config, _dim, _types: GeneralisedMeanAggregator()),
        AggregatorSpec("log_sum_exp", "smooth maximum, learned sharpness", "Pinheiro 2015, eq. 6",
                       lambda _config, _dim, _types: LogSumExpAggregator()),
        AggregatorSpec("attention", "mean weighted by attention", "Ilse 2018, eq. 8",
                       lambda _config, dim, _types: AttentionAggregator(dim)),
        AggregatorSpec("gated_attention", "attention with a gate", "Ilse 2018, eq. 9",
                       lambda _config, dim, _types: GatedAttentionAggregator(dim)),
        AggregatorSpec("top_k", "mean of the k largest values of each feature",
                       "Durand 2016 (WELDON), eq. 3, without the lowest values",
                       lambda config, _dim, _types: TopKAggregator(config.top_k)),
        AggregatorSpec("ghost_vlad", "mean deviation of each kind of cell from that kind's centre",
                       "Zhong 2018, after NetVLAD (Arandjelovic 2016, eq. 4)",
                       lambda config, dim, types: GhostVladAggregator(
                           dim, config.prototypes, types)),
        AggregatorSpec("type_shares", "shares of types of cell, and ghost_vlad for subtypes",
                       "this package; a differential count by the encoder",
                       lambda config, dim, types: TypeSharesAggregator(
                           dim, config.prototypes, types)),
    )
}  # fmt: skip
"""Every fusion by name."""


def build_aggregator(config: ModelConfig, dim: int, types: int = 0) -> Aggregator:
    """The aggregator that a configuration names.

    Args:
        config: ``aggregator`` and its settings.
        dim: features of an embedding.
        types: types of cell that the encoder knows.

    Raises:
        ConfigError: the name is not in the table.
    """
    if config.aggregator not in AGGREGATORS:
        raise ConfigError(
            f"model.aggregator='{config.aggregator}' is unknown; known: {', '.join(AGGREGATORS)}"
        )
    return AGGREGATORS[config.aggregator].build(config, dim, types)


def _log_mean_exp(scaled: Tensor, mask: Tensor, sharpness: Tensor) -> Fused:
    """1/r log(mean exp(scaled)) over real cells, with each cell's share of the sum."""
    masked = scaled.masked_fill(~mask[..., None], -torch.inf)
    count = mask.sum(dim=1, keepdim=True).to(scaled.dtype)
    bag = (masked.logsumexp(dim=1) - count.log()) / sharpness
    return Fused(bag, masked.softmax(dim=1).mean(dim=2))


def _add_log_sum(state: State, scaled: Tensor) -> State:
    added = scaled.logsumexp(dim=0)
    count = scaled.new_tensor(float(len(scaled)))
    if not state:
        return added, count
    return torch.logaddexp(state[0], added), state[1] + count


def _log_softplus(x: Tensor) -> Tensor:
    return functional.softplus(x.clamp(min=_LOWEST)).log()


def _inverse_softplus(y: Tensor) -> Tensor:
    return y + torch.log(-torch.expm1(-y))
