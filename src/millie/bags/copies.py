"""Which cells are one picture: within a patient while they are cut, between patients afterwards.

Owns which cells are compared; what makes two of them one is :mod:`millie.bags.fingerprints`. What
is found is told, never repaired here.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from millie.bags.bagfile import BagReader
from millie.bags.files import read_seal
from millie.bags.fingerprints import RADIUS, same_picture
from millie.errors import DataError, MissingError
from millie.types import Finding, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from millie.bags.fingerprints import Fingerprint
    from millie.types import Patient

_FIRST_ROWS = 256

NEAREST = 20
"""Cells with the most alike colours that a cell is compared with: a copy is among the very nearest,
and in a bag of thousands of blasts all others are near as well."""


class KnownCells:
    """The cells of a patient so far; a copy of one of them is not added."""

    def __init__(self) -> None:
        self._rings = np.zeros((_FIRST_ROWS, 0), np.float32)
        self._kept: list[tuple[str, NDArray[np.uint8]]] = []

    def copied(self, one: Fingerprint) -> str | None:
        """The image that shows this cell already, or None."""
        count = len(self._kept)
        if not count:
            return None
        apart = self._rings[:count] - one.rings
        squared = np.einsum("nd,nd->n", apart, apart)
        near = np.flatnonzero(squared <= RADIUS**2)
        near = near[np.argsort(squared[near], kind="stable")[:NEAREST]]
        found = (self._kept[int(i)] for i in near)
        return next((name for name, picture in found if same_picture(picture, one.picture)), None)

    def add(self, one: Fingerprint, image: str) -> None:
        """Take a cell of an image that is no copy."""
        count = len(self._kept)
        if not count:
            self._rings = np.zeros((_FIRST_ROWS, len(one.rings)), np.float32)
        elif count == len(self._rings):
            self._rings = np.concatenate([self._rings, np.zeros_like(self._rings)])
        self._rings[count] = one.rings
        self._kept.append((image, one.picture))


@dataclass(frozen=True, slots=True)
class Shared:
    """Two patients with a picture in common.

    Attributes:
        first: whose bag comes first; ``second`` the other.
        bags: files of the first one and of the second one.
        cells: index in the first one's bag and in the second one's, of each picture.
        images: names of the files that show the first of these pictures.
    """

    first: Patient
    second: Patient
    bags: tuple[Path, Path]
    cells: tuple[tuple[int, int], ...]
    images: tuple[str, str]

    @property
    def contradicts(self) -> bool:
        """One picture cannot stand for two diagnoses."""
        labels = {self.first.label, self.second.label} - {None}
        return len(labels) > 1

    def problems(self) -> tuple[Problem, Problem]:
        """What to tell at each of the two: a note, or a failure where the diagnoses differ."""
        pair = self.first, self.second
        return self._problem(*pair, *self.images), self._problem(*pair[::-1], *self.images[::-1])

    def _problem(self, patient: Patient, other: Patient, own: str, theirs: str) -> Problem:
        n = len(self.cells)
        cells = "1 cell" if n == 1 else f"{n} cells"
        text = f"{cells} also under patient {other.id} ({own} and {theirs} show the same cell)"
        if not self.contradicts:
            return Problem(patient.id, own, Finding.SAME_CELL, text, note=True)
        text += (
            f", with another diagnosis: {patient.label}, there {other.label}; find out whose "
            "images these are and take them out of the other patient"
        )
        return Problem(patient.id, own, Finding.SAME_CELL, text)


def shared_between(bags: Sequence[Path]) -> list[Shared]:
    """All pairs of patients that have a picture of a cell in common, in the order of the bags.

    Of most cells only the colours around their middles are read. A bag that cannot be read is
    passed over: whoever uses it names it. The same bags are searched once a process, since a
    cross-validation and each of its controls ask.
    """
    return list(_shared_between(tuple((path, _seal(path)) for path in bags)))


def _seal(path: Path) -> str:
    try:
        return read_seal(path)
    except (DataError, MissingError):
        return ""


@lru_cache(maxsize=4)
def _shared_between(sealed: tuple[tuple[Path, str], ...]) -> tuple[Shared, ...]:
    bags = [path for path, _ in sealed]
    heads = [head for path in bags if (head := _head(path)) is not None]
    counts = [len(head.rings) for head in heads]
    if sum(map(bool, counts)) < 2:
        return ()
    owners = np.repeat(np.arange(len(heads)), counts)
    cells = np.concatenate([np.arange(n) for n in counts])
    rings = np.concatenate([head.rings for head in heads]).astype(np.float32)
    k = min(NEAREST + 1, len(rings))  # each cell finds itself as well
    _, near = cKDTree(rings).query(rings, k=k, distance_upper_bound=RADIUS)
    first, second = np.repeat(np.arange(len(rings)), k), near.reshape(-1)
    there = second < len(rings)  # beyond it stands for nobody
    pairs = np.unique(np.sort(np.stack([first[there], second[there]], axis=1), axis=1), axis=0)
    pairs = pairs[owners[pairs[:, 0]] != owners[pairs[:, 1]]]
    pictures = _pictures(heads, owners, cells, np.unique(pairs))
    found: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for i, j in pairs.tolist():
        if same_picture(pictures[i], pictures[j]):
            found[int(owners[i]), int(owners[j])].append((int(cells[i]), int(cells[j])))
    return tuple(_shared(heads[a], heads[b], found[a, b]) for a, b in sorted(found))


@dataclass(frozen=True, slots=True, eq=False)
class _Head:
    path: Path
    patient: Patient
    rings: NDArray[np.uint8]


def _head(path: Path) -> _Head | None:
    try:
        with BagReader(path, verify=False) as bag:
            return _Head(path, bag.patient, bag.rings())
    except (DataError, MissingError):
        return None


def _pictures(
    heads: Sequence[_Head],
    owners: NDArray[np.intp],
    cells: NDArray[np.intp],
    wanted: NDArray[np.intp],
) -> dict[int, NDArray[np.uint8]]:
    """The grey pictures of some cells, by position among all."""
    by_bag: dict[int, list[int]] = defaultdict(list)
    for position in wanted.tolist():
        by_bag[int(owners[position])].append(position)
    found: dict[int, NDArray[np.uint8]] = {}
    for number, positions in by_bag.items():
        with BagReader(heads[number].path, verify=False) as bag:
            pictures = bag.pictures([int(cells[p]) for p in positions])
        found.update(zip(positions, pictures, strict=True))
    return found


def _shared(first: _Head, second: _Head, cells: Sequence[tuple[int, int]]) -> Shared:
    images = _image_of(first.path, cells[0][0]), _image_of(second.path, cells[0][1])
    bags = first.path, second.path
    return Shared(first.patient, second.patient, bags, tuple(cells), images)


def _image_of(path: Path, cell: int) -> str:
    with BagReader(path, verify=False) as bag:
        return bag.sources[bag.sources_of(cell, cell + 1)[0]].name
