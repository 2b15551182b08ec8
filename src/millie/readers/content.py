"""Which files are the same picture: digests of content, within one patient.

Owns the rule that equal bytes are one cell, counted once, the other copies named. Does not decode.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

from millie.types import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from millie.types import ImageSource


def sha256_of(data: bytes) -> str:
    """Hex digest of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def note(patient: str, source: str, message: str) -> Problem:
    """Something worth telling by which nothing was lost: no failure."""
    return Problem(patient, source, "Note", message, note=True)


def copy_note(patient: str, dropped: str, kept: str) -> Problem:
    """The record of a copy that was left out."""
    return note(patient, dropped, f"the same bytes as {kept}: counted once")


def without_copies(
    patient: str, images: Sequence[ImageSource]
) -> tuple[tuple[ImageSource, ...], tuple[Problem, ...]]:
    """Keep the first of byte-identical images of a patient, in order.

    Only files of equal size are read. Empty files are not copies of each other: each stays, to be
    named as unusable. Files that cannot be read stay too.

    Returns:
        The images that stay and a note for each that does not.
    """
    by_size: dict[int, list[ImageSource]] = defaultdict(list)
    for image in images:
        by_size[_size_bytes(image.path)].append(image)
    first: dict[str, ImageSource] = {}
    notes: dict[str, Problem] = {}
    for size, same in by_size.items():
        if size <= 0 or len(same) == 1:
            continue
        for image in same:
            digest = sha256_of(image.path.read_bytes())
            kept = first.setdefault(digest, image)
            if kept is not image:
                notes[image.name] = copy_note(patient, image.name, kept.name)
    stay = tuple(image for image in images if image.name not in notes)
    return stay, tuple(notes[image.name] for image in images if image.name in notes)


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
