"""Encoder, standardiser, aggregator and head put together: from cells to logits of classes.

The head sees a fused vector for a bag (paper, eq. 1) and that of a bag of one for a cell (eq. 2,
where f_fusion(F) = F), by the same weights. This module owns no training and no calibration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from millie.config import ModelConfig
from millie.errors import ConfigError
from millie.models.aggregators import build_aggregator
from millie.models.encoder import Encoder
from millie.models.fusion import Aggregator, Fused
from millie.models.type_shares import CascadeHead, TypeSharesAggregator
from millie.models.weights import check_tensors

_SMALLEST_STD = 1e-6


class Standardiser(nn.Module):
    """Subtracts the mean and divides by the standard deviation of each feature.

    Both are buffers, the identity until :meth:`fit` sets them from training cells.

    Args:
        dim: number of features D.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Standardise embeddings (..., D)."""
        return (embeddings - self.mean) / self.std

    def fit(self, chunks: Tensor | Iterable[Tensor]) -> None:
        """Set mean and standard deviation from training cells, in one pass over chunks.

        A feature that never varies keeps the standard deviation 1, so it becomes 0, not NaN.

        Args:
            chunks: (n, D), or several of them.

        Raises:
            ConfigError: no cells, or a chunk of another width.
        """
        count, mean, squares = 0, torch.zeros_like(self.mean, dtype=torch.float64), None
        for chunk in [chunks] if isinstance(chunks, Tensor) else chunks:
            count, mean, squares = self._merge(chunk, count, mean, squares)
        if squares is None:
            raise ConfigError("the standardiser was given no cells; fit it on training cells")
        std = (squares / count).sqrt()
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > _SMALLEST_STD, std, torch.ones_like(std)))

    def _merge(
        self, chunk: Tensor, count: int, mean: Tensor, squares: Tensor | None
    ) -> tuple[int, Tensor, Tensor | None]:
        """Merge the moments of a chunk (Chan et al. 1979, eq. 2.1)."""
        if chunk.ndim != 2 or chunk.shape[1] != len(self.mean):
            raise ConfigError(
                f"embeddings of shape {tuple(chunk.shape)}: expected (n, {len(self.mean)})"
            )
        if len(chunk) == 0:
            return count, mean, squares
        wide = chunk.detach().to(device=mean.device, dtype=torch.float64)
        total = count + len(wide)
        own_mean = wide.mean(dim=0)
        own = (wide - own_mean).square().sum(dim=0)
        gap = own_mean - mean
        before = torch.zeros_like(own) if squares is None else squares
        merged = before + own + gap.square() * (count * len(wide) / total)
        return total, mean + gap * (len(wide) / total), merged


class Head(nn.Sequential):
    """FC -> ReLU for each hidden width, then the classification layer; dropout before each.

    Source: Manescu et al. 2023, Methods: FC -> ReLU -> FC -> ReLU -> classification layer.

    Args:
        dim: features D.
        hidden: widths of the FC layers; empty: a linear classifier.
        n_classes: C.
        dropout: probability, 0 to below 1.
    """

    def __init__(self, dim: int, hidden: Sequence[int], n_classes: int, dropout: float) -> None:
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Dropout(dropout), nn.Linear(dim, width), nn.ReLU()]
            dim = width
        super().__init__(*layers, nn.Dropout(dropout), nn.Linear(dim, n_classes))
        self.n_classes = n_classes


class MilNetwork(nn.Module):
    """Multiple instance network.

    Args:
        encoder: cells to embeddings; None: the caller brings embeddings (frozen encoder).
        standardiser: applied to embeddings before everything else.
        aggregator: fusion of the cells.
        head: fused vector to logits.
    """

    def __init__(
        self,
        encoder: Encoder | None,
        standardiser: Standardiser,
        aggregator: Aggregator,
        head: Head | CascadeHead,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.standardiser = standardiser
        self.aggregator = aggregator
        self.head = head

    @property
    def dim(self) -> int:
        """Features of an embedding, D."""
        return len(self.standardiser.mean)

    @property
    def n_classes(self) -> int:
        """Logits of a bag, C."""
        return self.head.n_classes

    def forward(self, cells: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (B, C) of bags.

        Args:
            cells: embeddings (B, N, D), or images (B, N, 3, S, S) float32 in 0 to 1.
            mask: (B, N) bool, True is a real cell; None: all are real.
        """
        if cells.ndim == 5:
            bags, n = cells.shape[:2]
            cells = self.embed(cells.flatten(0, 1)).reshape(bags, n, self.dim)
        return self.bag_logits(cells, mask)

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings (N, D), not standardised, of images (N, 3, S, S) float32 in 0 to 1.

        Raises:
            ConfigError: the network was built without an encoder.
        """
        if self.encoder is None:
            raise ConfigError(
                "this network has no encoder; embed the cells with build_encoder(config) first"
            )
        vectors: Tensor = self.encoder(images)
        return vectors

    def fuse(self, embeddings: Tensor, mask: Tensor | None = None) -> Fused:
        """Bag vectors (B, W) and cell scores (B, N) of embeddings (B, N, D)."""
        fused: Fused = self.aggregator(self.standardiser(embeddings), mask)
        return fused

    def bag_logits(self, embeddings: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (B, C) of bags of embeddings (B, N, D) (paper, eq. 1)."""
        logits: Tensor = self.head(self.aggregator.pool(self.standardiser(embeddings), mask))
        return logits

    def cell_logits(self, embeddings: Tensor) -> Tensor:
        """Logits (N, C) of cells (N, D), each a bag of its own: the same weights (paper, eq. 2)."""
        logits: Tensor = self.head(self.aggregator.alone(self.standardiser(embeddings)))
        return logits

    def stream_logits(self, chunks: Iterable[Tensor]) -> Tensor:
        """Logits (C,) of one bag given as chunks (n, D), in the memory of one chunk.

        Raises:
            NoCellsError: the chunks hold no cell.
        """
        state = self.aggregator.init()
        for chunk in chunks:
            state = self.aggregator.update(state, self.standardiser(chunk))
        logits: Tensor = self.head(self.aggregator.finish(state)[None])
        return logits[0]


def build_network(
    config: ModelConfig,
    classes: Sequence[str],
    feature_dim: int | None = None,
    encoder: Encoder | None = None,
    *,
    types: int = 0,
    seed: int = 0,
) -> MilNetwork:
    """A network with fresh weights for the aggregator and the head.

    Args:
        config: aggregator, hidden widths, dropout.
        classes: names of the classes in the order of the logits.
        feature_dim: features of the embeddings that the caller will bring; or
        encoder: an encoder to train with the rest. Exactly one of the two.
        types: of cell, that the encoder knows; 0: none.
        seed: of the fresh weights; torch's own generator is left as it was.

    Raises:
        ConfigError: fewer than two classes, a class twice, both or neither of dim and encoder, or
            an unknown aggregator.
    """
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise ConfigError(f"classes {list(classes)}: expected two or more different names")
    if (feature_dim is None) == (encoder is None):
        raise ConfigError("build_network takes either feature_dim or encoder, not both or neither")
    dim = encoder.dim if encoder is not None else int(feature_dim or 0)
    if dim < 1:
        raise ConfigError(f"feature_dim={dim}: expected at least 1")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        aggregator = build_aggregator(config, dim, types)
        width = aggregator.width(dim)
        head: Head | CascadeHead
        if isinstance(aggregator, TypeSharesAggregator):
            types = aggregator.n_types
            head = CascadeHead(types, width - types, classes, config.subtypes)
        else:
            head = Head(width, config.hidden, len(classes), config.dropout)
        return MilNetwork(encoder, Standardiser(dim), aggregator, head)


def state_tensors(network: MilNetwork, *, with_encoder: bool) -> dict[str, Tensor]:
    """Copies of all weights and buffers by name, on the CPU and contiguous.

    Args:
        network: what to save.
        with_encoder: False leaves out the names that begin with ``encoder.``.
    """
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in network.state_dict().items()
        if with_encoder or not name.startswith("encoder.")
    }


def load_tensors(network: MilNetwork, tensors: Mapping[str, Tensor]) -> None:
    """Set weights and buffers; the encoder's may be left out, and then stay as they are.

    A network on the device ``meta``, which has shapes and no memory, takes these very tensors,
    others copy them.

    Raises:
        BundleError: a name is missing or unknown, a shape or type differs, or a value is not
            finite.
    """
    own = network.state_dict()
    if not any(name.startswith("encoder.") for name in tensors):
        own = {k: v for k, v in own.items() if not k.startswith("encoder.")}
    check_tensors(tensors, own, "weights of the network")
    network.load_state_dict(dict(tensors), strict=False, assign=network.standardiser.mean.is_meta)


def parameter_count(module: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
