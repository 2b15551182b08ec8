"""Proof that nothing of a test patient was trained on: patients, files, and pictures of cells.

Owns what patients in different parts of a split share: image files with equal bytes, and cells that
:mod:`millie.bags.copies` finds under two patients. Patients in two parts of a split are found by
:func:`millie.outputs.study.records.check_splits`. What is found is told, never repaired here.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from millie.bags.copies import shared_between
from millie.bags.store import Store
from millie.files import code_digest, write_text
from millie.outputs.study.bag_facts import BagFacts
from millie.outputs.tables import read_json

OVERLAP = "overlap.json"
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
        n_cells: cells compared by their pictures.
        files: shared files.
        cells: cells alike; at most some dozens are named.
        n_alike: all pairs of cells alike.
    """

    n_splits: int
    n_files: int
    n_cells: int
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
    code = code_digest("bags/copies.py", "bags/fingerprints.py")
    content = [code, parts, [(b.patient, b.sha256) for b in bags]]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    known = _read(folder / OVERLAP, digest)
    if known is not None:
        return known
    found = [
        Pair(pair.first.id, pair.second.id, f"cell {i + 1} and cell {j + 1}",
             separated(parts, pair.first.id, pair.second.id))
        for pair in shared_between([store.path_of(bag.patient) for bag in bags])
        for i, j in pair.cells
    ]  # fmt: skip
    proof = OverlapProof(
        len(parts),
        sum(len(bag.digests) for bag in bags),
        sum(bag.n_cells for bag in bags),
        shared_files(bags, parts),
        tuple(found[:_SHOWN]),
        len(found),
    )
    write_text(folder / OVERLAP, json.dumps({"digest": digest, **asdict(proof)}, indent=1) + "\n")
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


def _read(path: Path, digest: str) -> OverlapProof | None:
    if not path.is_file():
        return None
    content = read_json(path)
    if content.pop("digest", None) != digest:
        return None
    for name in ("files", "cells"):
        content[name] = tuple(Pair(**entry) for entry in content[name])
    return OverlapProof(**content)
