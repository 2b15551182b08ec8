"""Writing finished files, and names that are safe on every file system.

Owns atomic replacement of single files and the turning of a user's words into a file name. It
knows no format.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_NAME = 80


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path`` that takes its place when the block ends well.

    The folder is made if missing. After an error nothing is left behind and an older ``path`` is
    untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=path.suffix)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text in one atomic step and return the path."""
    with replacing(path) as stream:
        stream.write(text.encode("utf-8"))
    return path


def safe_names(names: Iterable[str], suffix: str) -> list[str]:
    """One distinct file name for each of the given names, in order, equal for equal input.

    A name keeps its readable part (letters, digits, ``-`` and ``_``); where that loses something
    or two names fall together, eight hexadecimal digits of the name's SHA-256 are added.

    Args:
        names: distinct names as the user wrote them, with ``/`` between folders.
        suffix: ending of every file name, with its dot.
    """
    given = list(names)
    stems = [_UNSAFE.sub("-", _without_ending(name)).strip("-")[:_LONGEST_NAME] for name in given]
    lowered = [stem.lower() for stem in stems]
    return [
        stem + suffix
        if stem == _without_ending(name) and lowered.count(stem.lower()) == 1
        else f"{stem}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-") + suffix
        for name, stem in zip(given, stems, strict=True)
    ]


def _without_ending(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return stem if dot and stem and len(ending) <= 5 and "/" not in ending else name


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
