"""Wildcards in a table's paths: what they match, without a look outside the root.

Owns the meaning of ``*``, ``?``, ``[...]`` and ``**`` (any folders, none too, no links to folders).
Hidden names, what file managers leave behind, and pictures that ``millie predict`` drew never
match. Accents match however they are encoded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import normalize

from millie.errors import ImageError
from millie.files import resolved
from millie.readers.images import EXTENSIONS, OTHER_PICTURES, is_image, listed, unread_format

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

_ANY_FOLDERS = "**"


class LeavesRootError(Exception):
    """A folder on the way of a wildcard lies outside the root; it was not listed."""


@dataclass(slots=True)
class Matches:
    """What a wildcard met.

    Attributes:
        images: files whose ending is that of an image, sorted.
        lost: other pictures and folders that cannot be listed, each with the reason.
    """

    images: list[Path] = field(default_factory=list)
    lost: list[tuple[Path, ImageError]] = field(default_factory=list)


def matching(folder: Path, parts: Sequence[str], root: Path) -> Matches:
    """Files below a folder that match, part by part.

    Args:
        folder: where the first part is looked for.
        parts: of the path, the first with a wildcard onwards; no ``..``.
        root: folder outside of which nothing is listed, resolved.

    Raises:
        LeavesRootError: a match on the way is a link that leads out of the root.
    """
    found = Matches()
    places: Iterable[Path] = [folder]
    wanted = [*parts, "*"] if parts[-1] == _ANY_FOLDERS else list(parts)
    for part in wanted:
        step = _below if part == _ANY_FOLDERS else _named
        places = dict.fromkeys(p for place in places for p in step(place, part, root, found))
    found.lost = list(dict(found.lost).items())  # two parts may meet the same folder
    for path in sorted(places):
        ending = path.suffix.lower()
        if ending in OTHER_PICTURES and path.is_file():
            found.lost.append((path, unread_format(path)))
        elif path.is_file() and is_image(path):
            found.images.append(path)
        elif ending in EXTENSIONS and not path.is_dir():
            text = f"{path}: not a file but a device, a pipe, or a link to nothing"
            found.lost.append((path, ImageError(text)))
    return found


def _named(place: Path, part: str, root: Path, found: Matches) -> Iterator[Path]:
    wanted = normalize("NFC", part)
    for entry in _entries(place, root, found):
        if fnmatchcase(normalize("NFC", entry.name), wanted):
            yield place / entry.name


def _below(place: Path, part: str, root: Path, found: Matches) -> Iterator[Path]:  # noqa: ARG001
    waiting = [(place, 0)]
    while waiting:
        folder, level = waiting.pop()
        yield folder
        waiting += [
            (folder / entry.name, level + 1)
            for entry in _entries(folder, root, found, level)
            if entry.is_dir(follow_symlinks=False)
        ]


def _entries(place: Path, root: Path, found: Matches, level: int = 0) -> list[os.DirEntry[str]]:
    """Visible entries of a folder; none of a file."""
    if not resolved(place).is_relative_to(root):
        raise LeavesRootError(str(place))
    return listed(place, level, found.lost)
