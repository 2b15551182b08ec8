"""What a training step sees: which patients, which of their cells, under which augmentation.

Owns the draws and the loading of drawn cells as tensors. A drawn bag is a record: loading it twice
gives the same tensor, so a second pass over the same cells is exact. Owns no network and no loss.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from millie.bags.files import read_seal
from millie.bags.loading import sample_cells, shown, to_tensor
from millie.bags.store import BagReader, Store
from millie.errors import ConfigError, NoCellsError
from millie.models.augment import Draw, apply, draw

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from millie.bags.loading import Background, Recolour
    from millie.config import Config

    Indices = NDArray[np.int64]


class CellSource(Protocol):
    """Cells of patients, by index.

    Attributes:
        images: True: cells are crops for an encoder; False: embeddings.
    """

    images: bool

    def count(self, patient: str) -> int:
        """Number of cells of a patient, at least 1."""
        ...

    def cells(self, patient: str, indices: Indices) -> torch.Tensor:
        """Embeddings float32 (n, D), or crops float32 (n, 3, S, S) in 0 to 1."""
        ...

    def digest(self, patients: Sequence[str]) -> str:
        """SHA-256 (hex) of the cells of these patients: equal cells, equal digest."""
        ...


class EmbeddedCells:
    """Cells of a frozen encoder, held in memory: one block, the bags one behind the other.

    Args:
        features: (N, D) for each patient.

    Raises:
        NoCellsError: a patient without cells.
        ConfigError: patients with different D.
    """

    images = False

    def __init__(self, features: Mapping[str, NDArray[np.floating]]) -> None:
        empty = sorted(p for p, f in features.items() if len(f) == 0)
        if empty:
            raise NoCellsError(f"no cells for {', '.join(empty)}: leave these patients out")
        widths = {f.shape[1] for f in features.values()}
        if len(widths) != 1:
            raise ConfigError(
                f"embeddings with {sorted(widths)} features: expected the same number for all"
            )
        self.dim = widths.pop()
        self._packed = torch.empty(sum(map(len, features.values())), self.dim)
        self._bags: dict[str, torch.Tensor] = {}
        start = 0
        for patient, own in features.items():
            bag = self._packed[start : start + len(own)]
            bag.copy_(torch.from_numpy(np.ascontiguousarray(own, dtype=np.float32)))
            self._bags[patient] = bag
            start += len(own)
        self._digests = {
            p: hashlib.sha256(np.ascontiguousarray(f).tobytes()).hexdigest()
            for p, f in features.items()
        }

    def count(self, patient: str) -> int:
        """Number of cells of a patient."""
        return len(self._bags[patient])

    def cells(self, patient: str, indices: Indices) -> torch.Tensor:
        """Embeddings (n, D); a whole bag is a view, not to be written to."""
        bag = self._bags[patient]
        if len(indices) == len(bag) and np.array_equal(indices, np.arange(len(bag))):
            return bag
        return bag.index_select(0, torch.from_numpy(indices))

    def digest(self, patients: Sequence[str]) -> str:
        """SHA-256 (hex) over patients and features."""
        return _joined({p: self._digests[p] for p in patients})


class StoredCells:
    """Crops of a bag store, kept in memory as far as they fit.

    Args:
        store: the bags.
        background: what is shown outside (or inside) the cell.
        memory_bytes: crops above this are read again each time.
        colours: by patient, a change of colours with its digest.
    """

    images = True

    def __init__(
        self,
        store: Store,
        background: Background = "keep",
        memory_bytes: int = 2_000_000_000,
        colours: Mapping[str, tuple[str, Recolour]] | None = None,
    ) -> None:
        self._store = store
        self._colours = dict(colours or {})
        self._background: Background = background
        self._free_bytes = memory_bytes
        self._kept: dict[str, NDArray[np.uint8]] = {}
        self._counts = {s.patient: s.n_cells for s in store.index()}
        self._bag_digests: dict[str, str] = {}

    def count(self, patient: str) -> int:
        """Number of cells of a patient."""
        return self._counts[patient]

    def cells(self, patient: str, indices: Indices) -> torch.Tensor:
        """Crops (n, 3, S, S) in 0 to 1."""
        if patient in self._kept:
            return to_tensor(self._kept[patient][indices])
        with BagReader(self._store.path_of(patient), verify=False) as reader:
            side = reader.meta.size_px
            size_bytes = reader.n_cells * side * side * 3
            if size_bytes <= self._free_bytes:
                self._free_bytes -= size_bytes
                self._kept[patient] = self._shown(reader, 0, reader.n_cells)
                return to_tensor(self._kept[patient][indices])
            parts = [self._shown(reader, int(i), int(i) + 1) for i in indices]
        return to_tensor(np.concatenate(parts))

    def digest(self, patients: Sequence[str]) -> str:
        """SHA-256 (hex) over patients and their bags' seals."""
        seals = {p: read_seal(self._store.path_of(p)) for p in patients}
        changed = {f"colours {p}": self._colours[p][0] for p in patients if p in self._colours}
        return _joined({**seals, **changed, "background": self._background})

    def _shown(self, reader: BagReader, start: int, stop: int) -> NDArray[np.uint8]:
        changed = self._colours.get(reader.patient_id)
        recolour = changed[1] if changed else None
        return shown(reader, start, stop, self._background, recolour)


@dataclass(frozen=True, slots=True, eq=False)
class DrawnBag:
    """The cells of one patient in one step.

    Attributes:
        patient: whose cells.
        indices: (n,) cells drawn, ascending.
        draws: augmentation of each; empty: none.
    """

    patient: str
    indices: Indices
    draws: tuple[Draw, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)


def whole_bag(source: CellSource, patient: str) -> DrawnBag:
    """All cells of a patient, without augmentation."""
    return DrawnBag(patient, np.arange(source.count(patient), dtype=np.int64))


def draw_steps(
    source: CellSource,
    patients: Sequence[str],
    config: Config,
    rng: np.random.Generator,
) -> Iterator[list[DrawnBag]]:
    """The steps of one epoch: every patient once, in random order.

    A last step of a single patient joins the one before it.

    Args:
        source: where cells come from; only crops are augmented.
        patients: of the training part.
        config: ``training.patients_per_step``, ``cells_per_step`` and ``vary_cells``; ``augment``.
        rng: source of all draws.
    """
    order = [patients[i] for i in rng.permutation(len(patients))]
    size = config.training.patients_per_step
    starts = list(range(0, len(order), size))
    if len(starts) > 1 and len(order) - starts[-1] == 1 < size:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        yield [_draw_bag(source, patient, config, rng) for patient in order[start:stop]]


def _draw_bag(
    source: CellSource, patient: str, config: Config, rng: np.random.Generator
) -> DrawnBag:
    n, most = source.count(patient), config.training.cells_per_step
    if config.training.vary_cells:
        most = int(math.exp(rng.uniform(0.0, math.log(min(n, most) + 1.0))))
    indices = sample_cells(n, most, rng)
    draws = tuple(draw(config.augment, rng) for _ in indices) if source.images else ()
    return DrawnBag(patient, indices, draws)


def load_cells(
    source: CellSource, bag: DrawnBag, positions: Indices | slice = slice(None)
) -> torch.Tensor:
    """Drawn cells as a tensor, augmented as drawn; equal calls give equal tensors.

    Args:
        source: where they come from.
        bag: the draw.
        positions: which of the drawn cells (not cell numbers); all of them by default.

    Returns:
        Embeddings (n, D), or crops (n, 3, S, S) in 0 to 1.
    """
    cells = source.cells(bag.patient, bag.indices[positions])
    if not bag.draws:
        return cells
    chosen = np.arange(len(bag))[positions]
    return apply(cells, [bag.draws[i] for i in chosen])


def chunks(bag: DrawnBag, size: int) -> Iterator[slice]:
    """Positions of a bag in order, at most ``size`` at a time."""
    for start in range(0, len(bag), size):
        yield slice(start, start + size)


def _joined(digests: Mapping[str, str]) -> str:
    text = "\n".join(f"{name}\0{digest}" for name, digest in sorted(digests.items()))
    return hashlib.sha256(text.encode()).hexdigest()
