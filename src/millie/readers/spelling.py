"""Names as people meant them: one form of accents, no invisible characters, words for "missing".

Owns what makes two cells of a table the same name, which words stand for an empty cell, and the
search for a path under the other form of its accents. Whether capitals count is not decided here.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path, PurePath
from typing import TYPE_CHECKING
from unicodedata import normalize

from millie.readers.content import note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from millie.readers.table import Row
    from millie.types import Problem

MISSING = frozenset({
    "nan", "1 ind", "1 qnan", "nat", "na", "n a", "pd na", "np nan", "nil", "null", "none", "blank",
    "empty", "undefined", "unknown", "unk", "missing", "tbd", "n d", "not available", "not known",
    "not applicable", "not reported", "not specified", "not stated", "not determined", "not done",
    "no data", "no information", "k a", "keine angabe", "unbekannt", "inconnu", "non disponible",
    "desconocido", "no disponible",
})  # fmt: skip
"""Words that stand for an empty cell, in lower case, with spaces for all that is no letter or digit
(``#N/A``, ``<NA>``, ``[Not Available]``). 'unknown' is one of them: what is not known is no
diagnosis, no site and no sex."""

_NOTHING = re.compile(r"[-\N{HYPHEN}-\N{HORIZONTAL BAR}.?_/*'\"\N{HORIZONTAL ELLIPSIS} ]+")
_FAULT = re.compile(r"#[A-Z/0]+[!?]")  # what spreadsheets show for a faulty formula: #REF!, #NAME?
_NOT_WORDS = re.compile(r"[\W_]+")
_WRITTEN_BY_PROGRAMS = frozenset({"nan", "NaN", "<NA>", "#N/A", "#NA", "NaT"})

_INVISIBLE = dict.fromkeys([
    0x00AD, 0x034F, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065),
    *range(0x2066, 0x206A), 0xFEFF,
])  # fmt: skip
_SHOWN = 3


def tidy(text: str) -> str:
    """A name in Unicode's form NFC, without invisible characters, with single plain spaces."""
    return normalize("NFC", " ".join(text.translate(_INVISIBLE).split()))


def is_missing(text: str) -> bool:
    """Whether a cell is empty, or holds dashes or dots alone, or one of :data:`MISSING`."""
    name = normalize("NFKC", tidy(text))
    if not name or _NOTHING.fullmatch(name) or _FAULT.fullmatch(name):
        return True
    return _NOT_WORDS.sub(" ", name).strip().lower() in MISSING


def is_no_name(text: str) -> bool:
    """Whether a patient's cell is empty, or holds what programs write for that.

    No patient is called so; other words for "missing" might be a name.
    """
    return not text or text in _WRITTEN_BY_PROGRAMS or _FAULT.fullmatch(text) is not None


class Spellings:
    """Reads the names in a table and remembers what it changed on the way."""

    def __init__(self, table: Path) -> None:
        self._table = table
        self._lines: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        self._empty: dict[str, dict[int, str]] = defaultdict(dict)

    def name(self, row: Row, column: str) -> str:
        """The name in a cell; empty where the table has no such column."""
        written = row.cells.get(column, "").strip(" \t\r\n")
        name = tidy(written)
        if name:
            self._lines[column, name].setdefault(written, row.line)
        return name

    def value(self, row: Row, column: str) -> str:
        """As :meth:`name`, and empty for the words that stand for "missing"."""
        text = row.cells.get(column, "")
        if text.strip() and is_missing(text):
            self._empty[column][row.line] = text.strip()
            return ""
        return self.name(row, column)

    def notes(self) -> Iterator[Problem]:
        """What was read otherwise than it is written."""
        changed: dict[str, list[str]] = defaultdict(list)
        for (column, name), spelt in self._lines.items():
            if len(spelt) > 1:
                lines = ", ".join(map(str, list(spelt.values())[:_SHOWN]))
                yield self._note(
                    f"column {column}: '{name}' is written in {len(spelt)} ways that look alike "
                    f"(lines {lines}; spaces, invisible characters or accents differ): read as one"
                )
            elif name not in spelt:
                changed[column].append(name)
        for column, names in changed.items():
            some = ", ".join(f"'{name}'" for name in names[:_SHOWN])
            yield self._note(
                f"column {column}: {len(names):,} {'name' if len(names) == 1 else 'names'} written "
                f"with invisible characters, odd spaces or accents apart: read as {some}"
                + (", ..." if len(names) > _SHOWN else "")
            )
        for column, words in self._empty.items():
            some = ", ".join(f"'{word}'" for word in list(dict.fromkeys(words.values()))[:_SHOWN])
            yield self._note(
                f"column {column}: {len(words):,} {'cell' if len(words) == 1 else 'cells'} read as "
                f"empty ({some}); if that is a value, write another word"
            )

    def _note(self, text: str) -> Problem:
        return note("", "", f"{self._table}: {text}")


def exists(path: Path) -> bool:
    """Whether there is such a file; a name that no system would allow is none."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def existing(base: Path, text: str) -> Path | None:
    """The file that a text names from a folder, however its accents are encoded; None: none.

    A name copied from one system may be in Unicode's form NFC and on the disk of another in NFD.
    """
    if exists(base / text):
        return base / text
    place = base
    for part in PurePath(text).parts:
        forms = (part, normalize("NFC", part), normalize("NFD", part), tidy(part))
        found = next((place / form for form in forms if exists(place / form)), None)
        if found is None:
            return None
        place = found
    return place


def named(text: str | os.PathLike[str]) -> Path:
    """A path as it is written, or as it exists with its accents encoded otherwise."""
    return existing(Path(), os.fspath(text)) or Path(text)
