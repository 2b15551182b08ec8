"""Proof that nothing of a test patient was trained on: patients, files, and pictures of cells.

Owns the search for what patients in different parts of a split share: image files with equal bytes,
and cells whose pictures are all but equal (a copy that was encoded, scaled or cut again). Patients
in two parts of a split are found by :func:`millie.outputs.study.records.check_splits`. What is
found is told, never repaired here.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from millie.bags.store import BagReader, Store
from millie.engines.seam import available_cores
from millie.files import write_text
from millie.outputs.study.bag_facts import BagFacts
from millie.outputs.tables import read_json

SIDE_PX = 24
"""Side of the grey picture that is compared."""

ALIKE = 0.98
"""Correlation of two such pictures from which they count as copies. Of 5,091 cells of different
patients in the APL set of Johns Hopkins no pair reaches 0.95; a crop of 224 px shifted by two
pixels has 0.987 with itself, shifted by one 0.997, encoded again as JPEG of quality 30 0.9997."""

MOST_CELLS = 20_000
"""Cells compared, all pairs of them: some 10 s on a core. Above it every patient gives an equal
share, evenly over the bag, and the proof says so."""

_BLOCK = 2048
_CACHE = "overlap.json"
_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Pair:
    """Two patients that share something, and in how many splits they lie in different parts."""

    first: str
    second: str
    what: str
    splits: int


@dataclass(frozen=True, slots=True)
class OverlapProof:
    """What the searches found.

    Attributes:
        n_splits: splits checked.
        n_files: image files compared by SHA-256.
        n_cells: cells compared by their pictures; ``of_cells``: cells in all.
        files: shared files.
        cells: cells alike, strongest first; at most some dozens are named.
        n_alike: all pairs of cells alike.
    """

    n_splits: int
    n_files: int
    n_cells: int
    of_cells: int
    files: tuple[Pair, ...]
    cells: tuple[Pair, ...]
    n_alike: int

    @property
    def clean(self) -> bool:
        """Nothing shared lies on both sides of a split."""
        return not any(pair.splits for pair in (*self.files, *self.cells))

    @property
    def title(self) -> str:
        """What it comes to, in words."""
        if any(pair.splits for pair in self.files):
            return "Overlap check failed: test files used in training, do not use these results"
        if not self.clean:
            return "Overlap check: cells of test patients look like copies of training cells"
        return "Overlap check: no overlap found"


Parts = Sequence[Mapping[str, str]]
"""For each split the part (train or test) of each patient."""


def read_parts(folder: Path) -> list[dict[str, str]]:
    """The parts of each split of a study; empty without ``splits.json``.

    Validation counts as training: it decides when to stop.
    """
    path = folder / "splits.json"
    if not path.is_file():
        return []
    return [
        {p: "train" for name in ("train", "validation") for p in split.get(name, ())}
        | dict.fromkeys(split.get("test", ()), "test")
        for split in read_json(path).get("assignments", [])
    ]


def prove(folder: Path, store: Store, bags: Sequence[BagFacts]) -> OverlapProof:
    """Search a study, or read what an earlier search of the same bags and splits found.

    Args:
        folder: of the study; the result is kept there as ``overlap.json``.
        store: the bags' store.
        bags: of the patients in the study.
    """
    parts = read_parts(folder)
    content = [SIDE_PX, ALIKE, MOST_CELLS, parts, [(b.patient, b.sha256) for b in bags]]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    known = _read(folder / _CACHE, digest)
    if known is not None:
        return known
    owners, numbers, pictures = cell_pictures(store, bags)
    alike = similar_cells(owners, pictures)
    found = [
        Pair(owners[i], owners[j],
             f"cell {numbers[i] + 1} and cell {numbers[j] + 1}, correlation {r:.4f}",
             separated(parts, owners[i], owners[j]))
        for i, j, r in alike
    ]  # fmt: skip
    proof = OverlapProof(
        len(parts),
        sum(len(bag.digests) for bag in bags),
        len(owners),
        sum(bag.n_cells for bag in bags),
        shared_files(bags, parts),
        tuple(found[:_SHOWN]),
        len(found),
    )
    write_text(folder / _CACHE, json.dumps({"digest": digest, **asdict(proof)}, indent=1) + "\n")
    return proof


def separated(parts: Parts, first: str, second: str) -> int:
    """In how many splits one trains and the other is tested."""
    return sum({split.get(first), split.get(second)} == {"train", "test"} for split in parts)


def shared_files(bags: Iterable[BagFacts], parts: Parts) -> tuple[Pair, ...]:
    """Every pair of patients with an image file of equal bytes."""
    owners: dict[str, set[str]] = defaultdict(set)
    for bag in bags:
        for digest in bag.digests:
            owners[digest].add(bag.patient)
    shared: dict[tuple[str, str], int] = defaultdict(int)
    for patients in owners.values():
        for first, second in itertools.combinations(sorted(patients), 2):
            shared[first, second] += 1
    return tuple(
        Pair(first, second, f"{n} identical file{'s' * (n > 1)}", separated(parts, first, second))
        for (first, second), n in sorted(shared.items())
    )


def cell_pictures(
    store: Store, bags: Sequence[BagFacts]
) -> tuple[list[str], list[int], NDArray[np.float32]]:
    """Owner, number and normalised grey picture of the cells that are compared.

    Returns:
        Patients (n,), indices in their bags (n,), pictures float32 (n, side * side), each with
        mean 0 and length 1, so that a product is a correlation.
    """
    total = sum(bag.n_cells for bag in bags)
    share = None if total <= MOST_CELLS else max(1, MOST_CELLS // max(len(bags), 1))
    owners: list[str] = []
    numbers: list[int] = []
    pictures: list[NDArray[np.float32]] = []
    for bag in bags:
        chosen = np.arange(bag.n_cells)
        if share is not None and bag.n_cells > share:
            chosen = np.linspace(0, bag.n_cells - 1, share).astype(int)
        with (
            BagReader(store.path_of(bag.patient), verify=False) as reader,
            ThreadPoolExecutor(available_cores()) as pool,  # decoders work outside Python's lock
        ):
            pictures += pool.map(lambda i, bag=reader: normalised(bag.image(int(i))), chosen)
        owners += [bag.patient] * len(chosen)
        numbers += chosen.tolist()
    empty = np.zeros((0, SIDE_PX * SIDE_PX), np.float32)
    return owners, numbers, np.stack(pictures) if pictures else empty


def normalised(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A crop (S, S, 3) as a small grey picture of mean 0 and length 1; a flat one gives zeros."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    vector = small.astype(np.float32).ravel()
    vector -= vector.mean()
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / length if length > 0 else vector, dtype=np.float32)


def similar_cells(
    owners: Sequence[str], pictures: NDArray[np.float32], alike: float = ALIKE
) -> list[tuple[int, int, float]]:
    """All pairs of cells of different patients with a correlation of ``alike`` or more.

    Returns:
        Indices and correlation, strongest first.
    """
    ids = np.unique(np.asarray(owners, dtype=np.str_), return_inverse=True)[1]
    found: list[tuple[int, int, float]] = []
    for top in range(0, len(pictures), _BLOCK):
        rows = pictures[top : top + _BLOCK]
        for left in range(top, len(pictures), _BLOCK):
            products = rows @ pictures[left : left + _BLOCK].T
            near_i, near_j = np.nonzero(products >= alike)
            i, j = near_i + top, near_j + left
            keep = (i < j) & (ids[i] != ids[j])
            values = products[near_i[keep], near_j[keep]]
            found += zip(i[keep].tolist(), j[keep].tolist(), values.tolist(), strict=True)
    return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))


def _read(path: Path, digest: str) -> OverlapProof | None:
    if not path.is_file():
        return None
    content = read_json(path)
    if content.pop("digest", None) != digest:
        return None
    for name in ("files", "cells"):
        content[name] = tuple(Pair(**entry) for entry in content[name])
    return OverlapProof(**content)
