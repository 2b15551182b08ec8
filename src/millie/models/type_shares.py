"""Fusion and head that ask as a haematologist does: which disease, then which kind of it.

Leukaemia shows in which types of cell a film holds: blasts where there should be none. Shares of
types are a few numbers that mean the same on every microscope, so diseases that come from different
laboratories can be told apart by them without telling the laboratories apart. Which subtype of one
disease it is (APL among AML) shows in how the cells look, which is much finer; it is asked only
among patients with that disease, and of cells that may be leukaemic: the patient's own mature
cells, which share stain and camera, are what they are measured against. This module owns both; the
types are the encoder's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from millie.models.encoder import CellTypes
from millie.models.fusion import Aggregator, Fused, State
from millie.models.ghost_vlad import GhostVladAggregator

_SHRINK = 1.0
"""Cells' worth of "all types equally" added to each bag."""


class TypeSharesAggregator(Aggregator):
    """Log shares of the types, and beside them the mean deviations of the kinds of cell.

    s_t = log((1 / T + sum_i p_t(x_i)) / (1 + n)) + log T, where p is the encoder's probability of
    type t: 0 where all types are equally frequent. The deviations are those of
    :class:`~millie.models.ghost_vlad.GhostVladAggregator`, less the mean deviation of the mature
    kinds of the same bag, and 0 for these kinds themselves. The score of a cell is its part in the
    deviations.

    Args:
        dim: features D.
        kinds: K, of the deviations.
        types: T types that the encoder knows; 0: clusters stand in their place.
    """

    reference: Tensor

    def __init__(self, dim: int, kinds: int, types: int = 0) -> None:
        super().__init__()
        self.deviations = GhostVladAggregator(dim, kinds, types)
        self.n_types = types or kinds  # clusters have a ghost that no cell is of
        self.register_buffer("reference", torch.zeros(kinds))

    def types(self, embeddings: Tensor) -> Tensor:
        """Probability of each type for each cell (..., D); (..., T)."""
        return self.deviations.types(embeddings)[..., : self.n_types]

    def width(self, dim: int) -> int:
        """T + K D."""
        return self.n_types + self.deviations.width(dim)

    def fit(self, chunks: Iterable[Tensor], types: CellTypes | None = None) -> None:
        """Set types, centres and the mature kinds; diagnoses are not seen."""
        self.deviations.fit(chunks, types)
        if types is not None:
            self.reference.copy_(types.mature / types.mature.sum().clamp(min=1.0))

    def alone(self, cells: Tensor) -> Tensor:
        """Vectors (n, W) of bags of one cell."""
        return self.pool(cells[:, None])

    def fuse(self, embeddings: Tensor, mask: Tensor) -> Fused:
        """Fuse checked bags."""
        real = mask.to(embeddings.dtype)
        counts = torch.einsum("bn,bnt->bt", real, self.types(embeddings))
        deviating = self.deviations.fuse(embeddings, mask)
        shares = self._log_shares(counts, real.sum(dim=1))
        bag = torch.cat([shares, self._against_own(deviating.bag)], dim=1)
        return Fused(bag, deviating.scores)

    def accumulate(self, state: State, embeddings: Tensor) -> State:
        """State: that of the deviations, then summed probabilities (T,) and number of cells ()."""
        counts = self.types(embeddings).sum(dim=0)
        number = embeddings.new_tensor(float(len(embeddings)))
        if state:
            counts, number = counts + state[-2], number + state[-1]
        return (*self.deviations.accumulate(state[:-2], embeddings), counts, number)

    def conclude(self, state: State) -> Tensor:
        """(T + K D,)."""
        shares = self._log_shares(state[-2][None], state[-1][None])[0]
        deviations = self.deviations.conclude(state[:-2])
        return torch.cat([shares, self._against_own(deviations[None])[0]])

    def without(self, state: State, embeddings: Tensor) -> Tensor:
        """Vectors (n, T + K D) of the whole bag less one of its cells each.

        Args:
            state: of the whole bag.
            embeddings: (n, D), some of its cells.
        """
        sums, totals, counts, number = state
        own, types = self.deviations.shares(embeddings), self.types(embeddings)
        centred = embeddings[:, None] - self.deviations.centres
        left = (totals - own + _SHRINK)[..., None]
        deviations = (sums - own[..., None] * centred) / left
        shares = self._log_shares(counts - types, (number - 1).expand(len(embeddings)))
        return torch.cat([shares, self._against_own(deviations.flatten(1))], dim=1)

    def _against_own(self, deviations: Tensor) -> Tensor:
        """(B, K D) less the mean deviation of the bag's mature kinds, which are 0 themselves."""
        kinds = deviations.view(len(deviations), len(self.reference), -1)
        own = torch.einsum("k,bkd->bd", self.reference, kinds)
        others = (self.reference == 0).to(kinds)[:, None]
        return ((kinds - own[:, None]) * others).flatten(1)

    def _log_shares(self, counts: Tensor, number: Tensor) -> Tensor:
        """(B, T) from summed probabilities (B, T) and numbers of cells (B,)."""
        uniform = _SHRINK / self.n_types
        shares = (counts.clamp(min=0.0) + uniform) / (number + _SHRINK)[:, None]
        return (shares * self.n_types).log()


class CascadeHead(nn.Module):
    """Which disease by shares of types, which subtype of one disease by deviations of cells.

    logit_c = z_g(c) for a disease g alone in its group, z_g + log softmax(w)_c for a subtype: the
    softmax over classes is then P(disease) P(subtype | disease), and the cross entropy falls into
    one of each.

    Args:
        n_types: T, width of the shares.
        n_deviations: width of the deviations.
        classes: names in the order of the logits.
        subtypes: names of classes that form one disease; those not among the classes do not count.
    """

    def __init__(
        self, n_types: int, n_deviations: int, classes: Sequence[str], subtypes: Sequence[str]
    ) -> None:
        super().__init__()
        named = {name.casefold() for name in subtypes}
        within = [i for i, name in enumerate(classes) if name.casefold() in named]
        within = within if len(within) > 1 else []
        first = within[0] if within else -1
        heads = [i for i in range(len(classes)) if i not in within[1:]]
        group = [heads.index(first if i in within else i) for i in range(len(classes))]
        self.n_types, self.n_classes = n_types, len(classes)
        self._within = within
        self._group = group  # no buffer: networks are built without memory before they are loaded
        self.diseases = nn.Linear(n_types, len(heads))
        self.subtypes = nn.Linear(n_deviations, len(within)) if within else None

    def forward(self, fused: Tensor) -> Tensor:
        """Logits (B, C) of bag vectors (B, T + K D)."""
        logits: Tensor = self.diseases(fused[:, : self.n_types])[:, self._group]
        if self.subtypes is None:
            return logits
        within = functional.log_softmax(self.subtypes(fused[:, self.n_types :]), dim=1)
        places = logits.new_zeros(len(self._within), self.n_classes)
        places[range(len(self._within)), self._within] = 1.0
        return logits + within @ places
