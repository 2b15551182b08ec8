"""Which files are the same picture: digests of content.

Owns the rule that equal bytes are one image, counted once, the other copies named; within a
patient, and between patients, where equal bytes also mean that nobody knows whose they are. Does
not decode.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from millie.types import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from millie.types import ImageSource, Patient


def sha256_of(data: bytes) -> str:
    """Hex digest of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def note(patient: str, source: str, message: str) -> Problem:
    """Something worth telling by which nothing was lost: no failure."""
    return Problem(patient, source, "Note", message, note=True)


def problem(patient: str, source: str, error: Exception, *, fatal: bool = False) -> Problem:
    """The record of an error that was met and gone round."""
    return Problem(patient, source, type(error).__name__, str(error), fatal=fatal)


def copy_note(patient: str, dropped: str, kept: str) -> Problem:
    """The record of a copy that was left out."""
    return note(patient, dropped, f"the same bytes as {kept}: counted once")


def same_bytes(images: Iterable[ImageSource]) -> list[list[ImageSource]]:
    """Groups of two or more byte-identical images, in order.

    Only files of equal size are read. Empty files are not copies of each other, nor are files that
    cannot be read.
    """
    by_size: dict[int, list[ImageSource]] = defaultdict(list)
    for image in images:
        by_size[_size_bytes(image.path)].append(image)
    groups: dict[str, list[ImageSource]] = defaultdict(list)
    for size, same in by_size.items():
        if size <= 0 or len(same) == 1:
            continue
        for image in same:
            groups[sha256_of(image.path.read_bytes())].append(image)
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
    """The record of an image that experts gave several types."""
    return note(patient, name, f"signed as {' and as '.join(types)}: its cell label is left empty")


def unshared(patients: Sequence[Patient]) -> tuple[list[Patient], list[Problem]]:
    """Take out images whose bytes occur in two patients.

    Where each of the patients is that one image and all have the same label, the set itself holds
    the picture twice: the first stays. Otherwise nobody knows whose it is: it is left out of each.

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
        text = f"the same bytes lie in {whose}: left out of each"
        yield Problem(owners[id(image)].id, image.name, "ManifestError", text)


def _rest(patient: Patient, dropped: set[int]) -> Iterator[Patient]:
    images = tuple(image for image in patient.images if id(image) not in dropped)
    if images:
        yield replace(patient, images=images)


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
