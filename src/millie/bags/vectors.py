"""Bags of vectors that were computed elsewhere: no pictures, otherwise bags like any other.

Owns the writing; they are read by :class:`millie.bags.bagfile.BagReader`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from millie.bags.bag_writer import row_of, write_head
from millie.bags.bagfile import TABLE, BagMeta
from millie.bags.files import new_file
from millie.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from millie.types import Cell, Patient, SourceRecord

UNNAMED = "imported"
"""Encoder of a store whose vectors nobody named."""


def write_vectors(
    path: Path,
    patient: Patient,
    cells: Sequence[Cell],
    vectors: NDArray[np.float32],
    sources: Sequence[SourceRecord],
    digest: str,
) -> None:
    """Write a patient's bag atomically.

    Args:
        path: its place; see :meth:`millie.bags.store.Store.path_of`.
        patient: whose bag.
        cells: what is known of them, in the bag's order.
        vectors: (N, D), finite.
        sources: files that ``cell.source`` counts in.
        digest: of everything that the bag is made from.

    Raises:
        ConfigError: cells, vectors and sources do not fit.
        StoreError: the file cannot be written.
    """
    if vectors.ndim != 2 or len(vectors) != len(cells) or not np.isfinite(vectors).all():
        raise ConfigError(
            f"{patient.id}: vectors {vectors.shape} for {len(cells)} cells; expected (N, D), finite"
        )
    if any(not 0 <= cell.source < len(sources) for cell in cells):
        raise ConfigError(f"{patient.id}: a cell names a source beyond the {len(sources)} given")
    names: dict[str, int] = {}
    rows = [tuple(row_of(cell, names)) for cell in cells]
    with new_file(path) as new:
        group = new.hdf.create_group("cells")
        group["table"] = np.array(rows, TABLE)
        group["vectors"] = np.asarray(vectors, np.float32)
        write_head(new.hdf, patient, list(names), BagMeta(0, 0.0, None, digest), sources)
