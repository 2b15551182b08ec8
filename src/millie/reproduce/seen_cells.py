"""Cells of other sets that the model has seen: found again, by their pictures, in its bags.

Some published sets were cut out of others (ALL-IDB2 out of ALL-IDB1). Owns the search; what is done
about it is the business of :mod:`millie.reproduce.cell_tests`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from millie.bags.store import BagReader
from millie.outputs.bag_facts import read_store
from millie.outputs.overlap_proof import cell_pictures

if TYPE_CHECKING:
    from collections.abc import Iterable

    from millie.bags.store import Store

SEEN = 0.95
"""Correlation of small grey pictures from which two are taken for one cell: no pair of cells of
different patients reaches it (:data:`millie.outputs.overlap_proof.ALIKE` says on what), and a cell
that was cut again a few pixels off does."""

_BLOCK = 1024


def seen_cells(training: Store, external: Store, patients: Iterable[str]) -> set[tuple[str, str]]:
    """Images of single cells whose cell is in the training store too.

    Args:
        training: bags of the model's patients.
        external: bags of the cells to be tested; each image holds one cell.
        patients: of the external store.

    Returns:
        (patient, name of the image).
    """
    known = cell_pictures(training, read_store(training).bags)[2]
    bags = read_store(external).of(patients)
    owners, numbers, pictures = cell_pictures(external, bags)
    highest = np.zeros(len(pictures), np.float32)
    for start in range(0, len(known), _BLOCK):
        products = pictures @ known[start : start + _BLOCK].T
        highest = np.maximum(highest, products.max(axis=1, initial=0))
    images = {bag.patient: _image_names(external, bag.patient) for bag in bags}
    return {
        (owner, images[owner][number])
        for owner, number, r in zip(owners, numbers, highest, strict=True)
        if r >= SEEN
    }


def _image_names(store: Store, patient: str) -> list[str]:
    """The image of each cell of a bag."""
    with BagReader(store.path_of(patient), verify=False) as bag:
        names = [source.name for source in bag.sources]
        return [names[cell.source] for cell in bag.cells]
