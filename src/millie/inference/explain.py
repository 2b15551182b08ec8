"""Which cells made a call: one network's view of a bag that streams past.

The evidence for a class is its logit less the log of the summed exponentials of the others (its log
odds). A cell's contribution is gradient x feature of that evidence, with features in standard
deviations from the mean training cell: its part in what lifts this bag above an average one. Under
max fusion a feature's part goes whole to the cell that gave the maximum; where kinds of cell are
kept apart, deviations from the kind's centre take the place of features. This module owns that
arithmetic in constant memory; probabilities and states are the prediction's.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from millie.errors import ConfigError, StoreError
from millie.models.aggregators import MaxAggregator
from millie.models.fusion import State
from millie.models.ghost_vlad import GhostVladAggregator
from millie.models.network import MilNetwork
from millie.models.type_shares import TypeSharesAggregator
from millie.types import Winner

_CHUNK = 1024
_LEFT_OUT = 128
"""Bags less one cell at a time: 0.7 MB."""


class StreamedBag:
    """A bag seen by one network, batch after batch.

    Under max fusion nothing is kept but the running maximum and whose it is. Other fusions need
    each cell again once the bag is known: their standardised features wait in a temporary file.

    Args:
        network: in evaluation mode.
        n_cells: N, cells that will come.
        explained: whether contributions will be asked for; False keeps no cell whatever the fusion.
    """

    def __init__(self, network: MilNetwork, n_cells: int, *, explained: bool = True) -> None:
        self._network = network
        self._n_cells = n_cells
        self._state: State = network.aggregator.init()
        self._highest = torch.full((network.dim,), -torch.inf)
        self._cell_of = torch.zeros(network.dim, dtype=torch.int64)
        self._is_max = isinstance(network.aggregator, MaxAggregator)
        self._spill = _Spill(network.dim) if explained and not self._is_max else None

    @torch.no_grad()
    def add(self, start: int, features: Tensor) -> Tensor:
        """Take the next cells.

        Args:
            start: index of the first of them in the bag.
            features: (n, D) as the encoder gave them.

        Returns:
            logits (n, C) of each cell alone (paper, eq. 2).
        """
        network, alone = self._network, self._network.aggregator.alone
        cells = network.standardiser(features)
        self._state = network.aggregator.update(self._state, cells)
        highest, rows = cells.max(dim=0)
        first = highest > self._highest  # of cells that tie, the first
        self._cell_of[first] = start + rows[first]
        self._highest[first] = highest[first]
        if self._spill is not None:
            self._spill.append(cells.numpy())
        return torch.cat([network.head(alone(part)) for part in cells.split(_CHUNK)])

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Logits (C,) of the bag of all cells that came.

        Raises:
            NoCellsError: no cell came.
        """
        fused = self._network.aggregator.finish(self._state)
        logits: Tensor = self._network.head(fused[None])[0]
        return logits

    def features_won(self) -> NDArray[np.int64]:
        """For each cell the number of features for which it is the maximum; (N,), sums to D."""
        return np.bincount(self._cell_of.numpy(), minlength=self._n_cells).astype(np.int64)

    def contributions(self) -> NDArray[np.float32]:
        """Signed parts (N, C) of the cells in the evidence for each class.

        Raises:
            ConfigError: the bag was streamed without ``explained`` and no cell was kept.
        """
        if self._is_max:
            return self._through_maximum()
        if self._spill is None:
            raise ConfigError("this bag was streamed with explained=False: no cell was kept")
        if isinstance(self._network.aggregator, GhostVladAggregator):
            return self._through_kinds(self._spill, self._network.aggregator)
        if isinstance(self._network.aggregator, TypeSharesAggregator):
            return self._one_left_out(self._spill, self._network.aggregator)
        return self._through_stream(self._spill)

    @torch.no_grad()
    def _one_left_out(self, spill: _Spill, aggregator: TypeSharesAggregator) -> NDArray[np.float32]:
        """What the evidence loses without each cell: exact, a bag being a few hundred numbers."""
        whole = class_evidence(self.logits())
        heads = (
            self._network.head(aggregator.without(self._state, part))
            for chunk in spill.chunks()
            for part in torch.split(chunk, _LEFT_OUT)
        )
        parts = [torch.stack([whole - class_evidence(row) for row in rows]) for rows in heads]
        return torch.cat(parts).numpy()

    def _through_maximum(self) -> NDArray[np.float32]:
        fused = self._highest.clone().requires_grad_()
        evidence = class_evidence(self._network.head(fused[None])[0])
        parts = np.zeros((self._n_cells, len(evidence)), np.float32)
        for c in range(len(evidence)):
            (gradient,) = torch.autograd.grad(evidence[c], fused, retain_graph=True)
            np.add.at(parts[:, c], self._cell_of.numpy(), (gradient * fused).detach().numpy())
        return parts

    def _through_kinds(self, spill: _Spill, aggregator: GhostVladAggregator) -> NDArray[np.float32]:
        fused = aggregator.finish(self._state).requires_grad_()
        evidence = class_evidence(self._network.head(fused[None])[0])
        gradients = [torch.autograd.grad(e, fused, retain_graph=True)[0] for e in evidence]
        return np.concatenate([
            torch.stack([aggregator.parts(self._state, chunk, g) for g in gradients], 1).numpy()
            for chunk in spill.chunks()
        ])  # fmt: skip

    def _through_stream(self, spill: _Spill) -> NDArray[np.float32]:
        """Backpropagation through the chain of chunks, last to first, with one chunk in memory."""
        aggregator = self._network.aggregator
        states: list[State] = [aggregator.init()]
        with torch.no_grad():
            for chunk in spill.chunks():
                states.append(aggregator.update(states[-1], chunk))
        last = _leaves(states[-1])
        evidence = class_evidence(self._network.head(aggregator.finish(last)[None])[0])
        parts = np.zeros((self._n_cells, len(evidence)), np.float32)
        adjoints = [_gradients([evidence[c]], last, [None]) for c in range(len(evidence))]
        for i in reversed(range(len(states) - 1)):
            before, chunk = _leaves(states[i]), spill.chunk(i).requires_grad_()
            after = aggregator.update(before, chunk)
            for c, adjoint in enumerate(adjoints):
                *earlier, own = _gradients(after, [*before, chunk], adjoint)
                adjoints[c] = earlier
                part = (own * chunk).sum(dim=1).detach().numpy()
                parts[i * _CHUNK : i * _CHUNK + len(part), c] = part
        return parts


def class_evidence(logits: Tensor) -> Tensor:
    """Log odds (C,) of each class against the others together, from logits (C,)."""
    own = torch.eye(len(logits), dtype=torch.bool)
    others = logits.expand(len(logits), -1).masked_fill(own, -torch.inf)
    return logits - others.logsumexp(dim=1)


def find_winners(
    bags: Sequence[StreamedBag], labels: Sequence[str], count: int
) -> dict[str, tuple[Winner, ...]]:
    """For each class the cells that speak for it, strongest first.

    Args:
        bags: the bag as each network of the ensemble saw it; shares are averaged.
        labels: the classes in the order of the logits.
        count: most cells named for a class.
    """
    shares = np.mean([_shares(bag.contributions()) for bag in bags], axis=0)
    won = np.rint(np.mean([bag.features_won() for bag in bags], axis=0)).astype(int)
    return {
        label: tuple(
            Winner(int(i), float(shares[i, c]), int(won[i]))
            for i in np.argsort(-shares[:, c], kind="stable")[:count]
            if shares[i, c] > 0
        )
        for c, label in enumerate(labels)
    }


def _shares(parts: NDArray[np.float32]) -> NDArray[np.float64]:
    """Each cell's share (N, C) of what speaks for a class; a class with nothing for it has 0."""
    positive = np.maximum(parts.astype(np.float64), 0)
    total = positive.sum(axis=0)
    shares = np.zeros_like(positive)
    np.divide(positive, total, out=shares, where=total > 0)
    return shares


def _leaves(state: State) -> State:
    return tuple(tensor.detach().clone().requires_grad_() for tensor in state)


def _gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], adjoint: Sequence[Tensor | None]
) -> list[Tensor]:
    """Gradient of each input; zero where an output does not depend on it."""
    live = [(o, a) for o, a in zip(outputs, adjoint, strict=True) if o.requires_grad]
    found = torch.autograd.grad(
        [output for output, _ in live],
        inputs,
        [weight for _, weight in live],
        retain_graph=True,
        allow_unused=True,
    )
    return [
        torch.zeros_like(tensor) if gradient is None else gradient
        for gradient, tensor in zip(found, inputs, strict=True)
    ]


class _Spill:
    """Features (N, D) float32 in a temporary file that vanishes with the object."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._rows = 0
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives with the object
        weakref.finalize(self, self._file.close)

    def append(self, cells: NDArray[np.float32]) -> None:
        """Add features (n, D) at the end.

        Raises:
            StoreError: the disk of temporary files is full.
        """
        try:
            self._file.seek(0, 2)
            self._file.write(np.ascontiguousarray(cells, np.float32).tobytes())
            self._file.flush()
        except OSError as error:
            raise StoreError(
                f"no space for features in the temporary folder {tempfile.gettempdir()} ({error}): "
                "free some, or set TMPDIR to another folder"
            ) from error
        self._rows += len(cells)

    def chunk(self, i: int) -> Tensor:
        start = i * _CHUNK
        count = min(_CHUNK, self._rows - start)
        self._file.seek(start * self._dim * 4)
        data = bytearray(self._file.read(count * self._dim * 4))
        return torch.frombuffer(data, dtype=torch.float32).reshape(count, self._dim)

    def chunks(self) -> Iterator[Tensor]:
        return (self.chunk(i) for i in range(-(-self._rows // _CHUNK)))
