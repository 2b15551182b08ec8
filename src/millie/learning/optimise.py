"""One step of optimisation: the loss of a few bags and its gradient.

Owns the optimisers, the class weights and the two ways to the same gradient: the plain one, and the
exact one for bags whose crops do not fit in memory. Maximum fusion passes its gradient to the cells
that gave the maxima alone, so those are found first without gradient, in chunks, and then run again
with gradient, in chunks too. Encoders stand in evaluation mode in training as in prediction: a
cell's vector then never depends on the other cells of its chunk (frozen batch statistics), without
which neither the two passes nor streaming would be exact.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from millie.bags.loading import collate
from millie.errors import ConfigError
from millie.learning.parallel import Team
from millie.learning.sampling import CellSource, DrawnBag, chunks, load_cells
from millie.models.aggregators import MaxAggregator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from millie.config import TrainingConfig
    from millie.learning.sampling import Indices
    from millie.models.network import MilNetwork


ALONE = Team()
"""One process."""


def build_optimiser(network: MilNetwork, config: TrainingConfig) -> torch.optim.Optimizer:
    """SGD (the paper's) or AdamW over all weights that take a gradient."""
    weights = [p for p in network.parameters() if p.requires_grad]
    if config.optimiser == "sgd":
        return torch.optim.SGD(
            weights, config.learning_rate, config.momentum, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(weights, config.learning_rate, weight_decay=config.weight_decay)


def class_weights(labels: Sequence[str], classes: Sequence[str], *, balanced: bool) -> Tensor:
    """Weights (C,) of the cross entropy: n / (C n_c), so that a patient weighs 1 on average.

    Args:
        labels: of the training patients; each class occurs.
        classes: in the order of the logits.
        balanced: False gives ones.
    """
    if not balanced:
        return torch.ones(len(classes))
    counts = Counter(labels)
    return torch.tensor([len(labels) / (len(classes) * counts[name]) for name in classes])


def embed_chunk(network: MilNetwork, source: CellSource, cells: Tensor) -> Tensor:
    """Embeddings float32 (n, D) of loaded cells: by the encoder where it lies, or as they are."""
    if not source.images or network.encoder is None:
        return cells
    return network.embed(cells.to(network.encoder.device)).float()


@dataclass(frozen=True, slots=True)
class Step:
    """A few bags and what they should be.

    Attributes:
        bags: B of them.
        targets: (B,) class index.
        weights: (C,) class weights of the cross entropy.
    """

    bags: tuple[DrawnBag, ...]
    targets: Tensor
    weights: Tensor


def plain_backward(
    network: MilNetwork, source: CellSource, step: Step, team: Team = ALONE
) -> float:
    """Gradient of the mean weighted cross entropy, all cells in memory; returns the loss.

    Args:
        network: gradients are added to its weights.
        source: of the cells.
        step: bags and targets, those of other processes too.
        team: the processes; each loads its share of the bags.
    """
    own = step.bags[team.share(len(step.bags))]
    fused = _fused(network, source, own) if own else _nothing(network)
    loss, gradient = _head_backward(network, fused, step, team)
    if fused.requires_grad:
        torch.autograd.backward(fused, gradient)
    team.add_up(network.parameters())
    return loss


def _nothing(network: MilNetwork) -> Tensor:
    """Vectors (0, W) of a process that has no bag in this step."""
    return network.standardiser.mean.new_zeros((0, network.aggregator.width(network.dim)))


def _head_backward(
    network: MilNetwork, fused: Tensor, step: Step, team: Team
) -> tuple[float, Tensor]:
    """Loss of the whole step, gradient of the head, and of the own fused vectors (b, W).

    Every process runs the head on the vectors of all, with the same dropout; its gradient counts
    once.
    """
    count = len(step.bags)
    vectors = team.gather(fused.detach(), count).requires_grad_()
    targets, weights = step.targets.to(vectors.device), step.weights.to(vectors.device)
    with torch.autocast(vectors.device.type, enabled=False):
        loss = functional.cross_entropy(network.head(vectors), targets, weights)
        torch.autograd.backward(loss)
    if not team.leads:
        network.head.zero_grad()
    gradient = torch.zeros_like(vectors) if vectors.grad is None else vectors.grad
    return float(loss.detach()), gradient[team.share(count)]


def _fused(network: MilNetwork, source: CellSource, bags: Sequence[DrawnBag]) -> Tensor:
    """Vectors (B, W) of bags, all cells in memory."""
    cells = [load_cells(source, bag) for bag in bags]
    if not source.images and isinstance(network.aggregator, MaxAggregator):
        # Standardising keeps the order of values, so here it may follow the maximum: the same bits
        # from one pass over the cells, where padding and standardising them takes six.
        highest: Tensor = network.standardiser(torch.stack([own.amax(dim=0) for own in cells]))
        return highest
    embedded = embed_chunk(network, source, torch.cat(cells))
    embeddings, mask = collate(torch.split(embedded, [len(bag) for bag in bags]))
    with torch.autocast(embeddings.device.type, enabled=False):  # bfloat16 is the encoder's alone
        return network.aggregator.pool(network.standardiser(embeddings), mask)


def exact_backward(
    network: MilNetwork, source: CellSource, step: Step, chunk_size: int, team: Team = ALONE
) -> float:
    """The same gradient and loss as :func:`plain_backward` in the memory of one chunk of cells.

    Args:
        network: with maximum fusion; gradients are added to its weights.
        source: of the cells.
        step: bags of any size, and targets, those of other processes too.
        chunk_size: cells in memory at a time.
        team: the processes; each loads its share of the bags.

    Raises:
        ConfigError: another fusion than maximum.
    """
    check_exact(network)
    own = step.bags[team.share(len(step.bags))]
    passes = [_find_winners(network, source, bag, chunk_size) for bag in own]
    fused = torch.stack([highest for highest, _ in passes]) if own else _nothing(network)
    loss, gradients = _head_backward(network, fused, step, team)
    if source.images:
        for bag, (_, winners), gradient in zip(own, passes, gradients, strict=True):
            for cells in torch.split(torch.unique(winners), chunk_size):
                embeddings = _standardised(network, source, bag, cells.cpu().numpy())
                won = cells[:, None] == winners[None, :]
                torch.autograd.backward((embeddings * won * gradient).sum())
    team.add_up(network.parameters())
    return loss


def check_exact(network: MilNetwork) -> None:
    """Refuse fusions that pass a gradient to every cell.

    Raises:
        ConfigError: another fusion than maximum.
    """
    if not isinstance(network.aggregator, MaxAggregator):
        raise ConfigError(
            "training.exact_gradient works only with model.aggregator=max: other aggregators pass "
            "a gradient to every cell; set training.exact_gradient=false"
        )


@torch.no_grad()
def _find_winners(
    network: MilNetwork, source: CellSource, bag: DrawnBag, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """Maximum (D,) and position (D,) of the cell that gives it, the first of ties."""
    highest = torch.full_like(network.standardiser.mean, -torch.inf)
    winners = torch.zeros_like(highest, dtype=torch.long)
    for part in chunks(bag, chunk_size):
        values, positions = _standardised(network, source, bag, part).max(dim=0)
        better = values > highest
        highest = torch.where(better, values, highest)
        winners = torch.where(better, positions + part.start, winners)
    return highest, winners


def _standardised(
    network: MilNetwork, source: CellSource, bag: DrawnBag, positions: Indices | slice
) -> Tensor:
    """What the aggregator sees (n, D) of drawn cells."""
    cells = load_cells(source, bag, positions)
    vectors: Tensor = network.standardiser(embed_chunk(network, source, cells))
    return vectors


def targets_of(
    bags: Sequence[DrawnBag], labels: Mapping[str, str], classes: Sequence[str]
) -> Tensor:
    """Class index (B,) of bags."""
    return torch.tensor([list(classes).index(labels[bag.patient]) for bag in bags])
