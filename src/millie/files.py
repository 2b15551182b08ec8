"""Files that are whole or absent, names that are safe, and tables that no spreadsheet runs.

Every result of every stage is written through here: beside its place, synced, renamed. This module
owns the manner of writing, safe file names and the quoting of CSV cells; it knows no format beyond
that.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in range(10))]
)

Value = str | int | float | bool | None


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a hidden temporary file that takes the place of ``path`` when the block ends well.

    The folder is made if missing. After an error nothing is left behind and an older ``path`` is
    untouched. Of several writers the last wins.

    Raises:
        OSError: the file cannot be written (disk full, no permission).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file its name, durably."""
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, where the system allows it."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> Path:
    """Write a file in one atomic step and return its path; raises as :func:`replacing`."""
    with replacing(path) as stream:
        stream.write(data)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text in one atomic step and return its path; raises as :func:`replacing`."""
    return write_bytes(path, text.encode("utf-8"))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Value]]) -> Path:
    """Write a table in one atomic step, row by row in constant memory.

    Args:
        path: the file; an older one is replaced.
        header: names of the columns.
        rows: text is quoted against formulas; floats are written so that reading gives the same
            number; booleans as 0 and 1, None as an empty cell.
    """
    with replacing(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([quote_formula(name) for name in header])
        for row in rows:
            writer.writerow([_cell(value) for value in row])
        text.detach()
    return path


def quote_formula(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet could run (= + - @ tab CR LF)."""
    return f"'{text}" if _FORMULA.match(text) else text


def unquote_formula(text: str) -> str:
    """The inverse of :func:`quote_formula`."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def safe_id(name: str) -> str:
    """A file name (without suffix) for any name: readable, safe, and its own.

    Names of lower-case letters, digits, ``-`` and ``_`` stay as they are. In all others unsafe
    characters become ``_`` and 48 bits of the name's SHA-256 follow after a dot, so that two names
    never share a file, not even where capitals do not count.
    """
    if re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name) and name not in _RESERVED:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")[:48]
    return f"{readable or 'patient'}.{digest[:12]}"


def _cell(value: Value) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, str):
        return quote_formula(value)
    if isinstance(value, bool):
        return int(value)
    return repr(float(value)) if isinstance(value, float) else value
