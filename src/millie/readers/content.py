"""Which files of a published set are the same picture: digests of content.

Owns the rule that identical bytes are one image: counted once, with the other copies named. The
same file under two patients belongs to neither for certain, and is left out of both. Nothing is
decoded here: adapters say with it whose a file is, and of what type, before any cell is cut. Copies
in another format or size are known by their cells, in :mod:`millie.bags.copies`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from millie.config import ReadingConfig
from millie.types import Finding, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from millie.types import ImageSource, Patient

_START_BYTES = 4096
_LARGEST_BYTES = ReadingConfig().max_file_megabytes * 1e6


def sha256_of(data: bytes) -> str:
    """Hex digest of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def pixels_sha256(image: NDArray[np.uint8]) -> str:
    """Hex digest of a decoded picture, whatever the file's format."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def note(patient: str, source: str, message: str, kind: Finding = Finding.NOTE) -> Problem:
    """Something the user should know although nothing was lost; not a failure."""
    return Problem(patient, source, kind, message, note=True)


def problem(patient: str, source: str, error: Exception, *, fatal: bool = False) -> Problem:
    """The record of an error after which the run went on."""
    return Problem(patient, source, type(error).__name__, str(error), fatal=fatal)


def copy_note(patient: str, dropped: str, kept: str) -> Problem:
    """The record of a copy that was left out."""
    return note(patient, dropped, f"identical to {kept}: counted once", Finding.DUPLICATE)


def same_bytes(images: Iterable[ImageSource]) -> list[list[ImageSource]]:
    """Groups of two or more byte-identical images, in order.

    Only files of equal size are opened, of those that are not too large to be read as images; only
    those that begin alike are read to their end, piece by piece. Empty files are not copies of each
    other, nor are files that cannot be read.
    """
    by_size: dict[int, list[ImageSource]] = defaultdict(list)
    for image in images:
        by_size[_size_bytes(image.path)].append(image)
    groups: dict[str, list[ImageSource]] = defaultdict(list)
    for size, same in by_size.items():
        if not 0 < size <= _LARGEST_BYTES or len(same) == 1:
            continue
        starts: dict[str, list[ImageSource]] = defaultdict(list)
        for image in same:
            starts[_start_sha256(image.path)].append(image)
        for start, alike in starts.items():
            if start and len(alike) > 1:
                for image in alike:
                    groups[_file_sha256(image.path)].append(image)
    groups.pop("", None)
    return [group for group in groups.values() if len(group) > 1]


def without_copies(
    patient: str, images: Sequence[ImageSource]
) -> tuple[tuple[ImageSource, ...], tuple[Problem, ...]]:
    """Keep the first of byte-identical images of a patient, in order.

    Where experts gave the copies of one image several cell labels, it keeps none. Empty files and
    files that cannot be read each stay, to be named as unusable.

    Returns:
        The images that stay and a note for each that does not.
    """
    notes: dict[str, Problem] = {}
    contested: dict[str, Problem] = {}
    for kept, *copies in same_bytes(images):
        notes.update((copy.name, copy_note(patient, copy.name, kept.name)) for copy in copies)
        types = sorted({image.cell_label for image in (kept, *copies) if image.cell_label})
        if len(types) > 1:
            contested[kept.name] = contested_note(patient, kept.name, types)
    stay = tuple(
        replace(image, cell_label=None) if image.name in contested else image
        for image in images
        if image.name not in notes
    )
    found = {**notes, **contested}
    return stay, tuple(found[image.name] for image in images if image.name in found)


def contested_note(patient: str, name: str, types: Sequence[str]) -> Problem:
    """The record of an image to which experts gave several types."""
    text = f"filed under {' and '.join(types)}: cell label left blank"
    return note(patient, name, text, Finding.CELL_TYPES_DIFFER)


def shared_problem(patient: str, name: str, owners: str) -> Problem:
    """The record of an image that occurs under several patients."""
    text = f"the same file occurs under {owners}: left out of each"
    return Problem(patient, name, Finding.SHARED, text)


def unlisted(patient: str, source: str, message: str) -> Problem:
    """The record of a file or folder that the set's table or layout does not name."""
    return Problem(patient, source, Finding.UNLISTED, message)


def unshared(patients: Sequence[Patient]) -> tuple[list[Patient], list[Problem]]:
    """Take out images whose bytes occur in two patients.

    If each of these patients consists of that one image and all have the same label, the set simply
    holds the picture twice, and the first stays. Otherwise its owner is unknown, and it is left out
    of each patient.

    Returns:
        The patients that still have an image, and what was taken out.
    """
    owners = {(id(image)): patient for patient in patients for image in patient.images}
    dropped: set[int] = set()
    problems: list[Problem] = []
    for group in same_bytes(image for patient in patients for image in patient.images):
        held = {owners[id(image)].id: owners[id(image)] for image in group}
        if len(held) == 1:
            continue
        single = all(len(patient.images) == 1 for patient in held.values())
        if single and len({patient.label for patient in held.values()}) == 1:
            kept, *out = group
            problems += [copy_note(owners[id(i)].id, i.name, kept.name) for i in out]
        else:
            out = group
            problems += _shared(group, owners)
        dropped.update(id(image) for image in out)
    return [left for patient in patients for left in _rest(patient, dropped)], problems


def _shared(group: Sequence[ImageSource], owners: dict[int, Patient]) -> Iterator[Problem]:
    whose = ", ".join(sorted({owners[id(image)].id for image in group}))
    for image in group:
        yield shared_problem(owners[id(image)].id, image.name, whose)


def _rest(patient: Patient, dropped: set[int]) -> Iterator[Patient]:
    images = tuple(image for image in patient.images if id(image) not in dropped)
    if images:
        yield replace(patient, images=images)


def _start_sha256(path: Path) -> str:
    """As :func:`sha256_of` of a file's first bytes; empty if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return sha256_of(stream.read(_START_BYTES))
    except OSError:
        return ""


def _file_sha256(path: Path) -> str:
    """As :func:`sha256_of` of the whole file, read in pieces; empty if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
