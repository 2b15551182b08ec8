"""What every fusion of cells promises: one call on padded bags, and the same answer from a stream.

An aggregator maps embeddings (B, N, D) and a mask (B, N) to a bag vector (B, W), with a score for
every cell; W is D unless a fusion says otherwise. Properties that all of them have, and that the
tests check: padding changes nothing, the order of cells does not matter, a cell alone is a bag of
one (the paper's cell-level output, eq. 2; where W is D, its own vector), and a stream over chunks
of cells gives the same vector in the memory of one chunk. The kinds of fusion are
:mod:`millie.models.aggregators`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from millie.errors import ConfigError, NoCellsError
from millie.models.encoder import CellTypes


class Fused(NamedTuple):
    """A bag after fusion.

    Attributes:
        bag: (B, W), the bag's vector.
        scores: (B, N), share of each cell in the bag's vector; >= 0, sums to 1, 0 on padding.
    """

    bag: Tensor
    scores: Tensor


State = tuple[Tensor, ...]
"""What a stream remembers between chunks; empty before the first one. Its size never grows."""


class Aggregator(nn.Module, ABC):
    """One fusion.

    A stream is used as ``state = a.init(); state = a.update(state, chunk); a.finish(state)``.
    """

    def forward(self, embeddings: Tensor, mask: Tensor | None = None) -> Fused:
        """Fuse padded bags.

        Args:
            embeddings: (B, N, D) float; values on padding are ignored, even NaN.
            mask: (B, N) bool, True is a real cell; None: all are real.

        Raises:
            ConfigError: the shapes do not fit.
            NoCellsError: a bag has no real cell.
        """
        mask = checked_mask(embeddings, mask)
        clean = embeddings.masked_fill(~mask[..., None], 0.0)
        return self.fuse(clean, mask)

    @abstractmethod
    def fuse(self, embeddings: Tensor, mask: Tensor) -> Fused:
        """Fuse checked bags: padding is zero, each bag has a real cell."""

    def pool(self, embeddings: Tensor, mask: Tensor | None = None) -> Tensor:
        """The bags' vectors (B, W) alone; arguments and errors as :meth:`forward`."""
        bag: Tensor = self(embeddings, mask).bag
        return bag

    def width(self, dim: int) -> int:
        """Length W of a bag's vector for cells of ``dim`` features."""
        return dim

    def alone(self, cells: Tensor) -> Tensor:
        """Vectors (n, W) of bags of one cell each, from cells (n, D); here the cells themselves."""
        return cells

    def fit(self, chunks: Iterable[Tensor], types: CellTypes | None = None) -> None:
        """Learn from training cells without their diagnoses; most fusions have nothing to learn.

        Args:
            chunks: standardised embeddings (n, D).
            types: types of cell that the encoder knows, for these embeddings.
        """

    def stream(self) -> Aggregator:
        """The accumulator with ``init``, ``update`` and ``finish``; it keeps no state itself."""
        return self

    def init(self) -> State:
        """State before the first cell."""
        return ()

    def update(self, state: State, embeddings: Tensor) -> State:
        """State after more cells.

        Args:
            state: from :meth:`init` or the last update.
            embeddings: (n, D) of real cells; n may be 0.
        """
        return self.accumulate(state, embeddings) if len(embeddings) else state

    def finish(self, state: State) -> Tensor:
        """The bag's vector (W,), equal to ``forward`` on all cells at once.

        Raises:
            NoCellsError: no cell was seen.
        """
        if not state:
            raise NoCellsError("an empty bag cannot be fused: no cell was given to the stream")
        return self.conclude(state)

    @abstractmethod
    def accumulate(self, state: State, embeddings: Tensor) -> State:
        """State after (n, D) more cells, n >= 1."""

    @abstractmethod
    def conclude(self, state: State) -> Tensor:
        """(W,) from a state that has seen a cell."""


def checked_mask(embeddings: Tensor, mask: Tensor | None) -> Tensor:
    """The mask (B, N) of embeddings (B, N, D), all True where none is given.

    Raises:
        ConfigError: the shapes do not fit.
        NoCellsError: a bag has no real cell.
    """
    if embeddings.ndim != 3:
        raise ConfigError(f"embeddings of shape {tuple(embeddings.shape)}: expected (B, N, D)")
    if mask is None:
        mask = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
    if mask.dtype != torch.bool or mask.shape != embeddings.shape[:2]:
        raise ConfigError(
            f"mask {mask.dtype} of shape {tuple(mask.shape)}: expected bool of shape "
            f"{tuple(embeddings.shape[:2])}, True for real cells"
        )
    if not bool(mask.any(dim=1).all()):
        raise NoCellsError("an empty bag cannot be fused: give every bag at least one real cell")
    return mask
