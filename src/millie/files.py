"""Files that are whole or absent, names that are safe, and tables that no spreadsheet runs.

Every result of every stage is written through here: beside its place, synced, renamed. This module
owns the manner of writing, the lock that keeps two runs apart, safe file names, the quoting of CSV
cells, and the digest of the package's own files; it knows no format beyond that.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import os
import platform
import re
import secrets
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import IO

from millie.errors import BusyError

if sys.platform != "win32":  # there the name in the lock file alone counts
    import fcntl

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_STALE_S = 24 * 3600.0
_FORMULA = re.compile(r"(^(?='*[\t\r\n])|(?:^|[;|\t\r\n])(?='*[=+\-@＝＋－＠]))('*)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPELT = re.compile(r"\\ud[89a-f][0-9a-f]{2}")
_ESCAPED = re.compile(r"\\(?:u(d[89a-f][0-9a-f]{2})|\\)")
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in range(10))]
)

LITTER = frozenset({
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin",
    "system volume information",  # Windows
    "__macosx", "icon\r",  # macOS
    "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot",  # Synology, QNAP
    "lost+found",
})  # fmt: skip
"""Names, in lower case, of what file managers and storage systems leave behind: thumbnails (which
are pictures too), deleted files, notes."""

_OFFICE_LOCK = "~$"

Value = str | int | float | bool | None


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the place of ``path`` when the block ends well.

    The folder is made if missing. After an error nothing is left behind and an older ``path`` is
    untouched; what a killed process left is removed when the same file is written again. Of several
    writers the last wins.

    Args:
        path: the file.
        mode: who may read and write it, less what the system's mask takes away.

    Raises:
        OSError: the file cannot be written (disk full, no permission).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(path.parent, path.name)
    temporary = temporary_path(path)
    try:
        with os.fdopen(os.open(temporary, _NEW_FILE, mode), "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        publish(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename in {None, str(temporary)}:
            error.filename = str(path)  # a full disk names no file itself
        raise
    finally:
        with suppress(OSError):
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
    r"""Write UTF-8 text in one atomic step and return its path; raises as :func:`replacing`.

    What UTF-8 cannot hold (bytes of a file's name) is written as ``\udcff``: in JSON that is the
    character itself.
    """
    return write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_csv(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[Value]], mode: int = 0o666
) -> Path:
    """Write a table in one atomic step, row by row in constant memory.

    It begins with a byte-order mark: without it spreadsheets take UTF-8 for another encoding, and
    umlauts break. Whatever reads such a table opens it as ``utf-8-sig``.

    Args:
        path: the file; an older one is replaced.
        header: names of the columns.
        rows: text is :func:`spelt_out` and quoted against formulas; floats are written so that
            reading gives the same number; booleans as 0 and 1, None as an empty cell.
        mode: as of :func:`replacing`.
    """
    with replacing(path, mode) as stream:
        stream.write(codecs.BOM_UTF8)
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        plain = csv.writer(text, lineterminator="\n")
        # Before Python 3.13 the writer leaves a lone CR bare, which no reader takes back.
        quoting = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        plain.writerow([_cell(name) for name in header])
        for row in rows:
            cells = [_cell(value) for value in row]
            has_return = any(isinstance(cell, str) and "\r" in cell for cell in cells)
            (quoting if has_return else plain).writerow(cells)
        text.detach()
    return path


def resolved(path: Path) -> Path:
    """A path without links; a loop of links, or a name that no system allows, stays as it is."""
    return Path(os.path.realpath(path))


def is_visible(name: str) -> bool:
    """Whether a file or folder of that name counts where a folder is searched.

    The one rule for folders, wildcards and stores: no hidden names, none of :data:`LITTER`.
    """
    return not name.startswith((".", _OFFICE_LOCK)) and name.lower() not in LITTER


def is_litter(name: str) -> bool:
    """Whether an operating system leaves files of that name: passed over even where named."""
    return name.lower() in {*LITTER, ".ds_store"} or name.startswith(("._", _OFFICE_LOCK))


def quote_formula(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet could run (= + - @, also wide; tab CR LF).

    It stands behind each ; | tab CR LF too, where a spreadsheet may begin a new cell whatever is
    quoted for commas: ``x;=cmd`` becomes ``x;'=cmd``.
    """
    return _FORMULA.sub(r"\1'\2", text)


def spelt_out(text: str) -> str:
    r"""Text that UTF-8 can hold, from any name: a byte ``ff`` that is no UTF-8 becomes ``\udcff``.

    Names that already hold such letters get their backslashes doubled, so that
    :func:`as_named` gives each name back. All others stay as they are.
    """
    if not (_SURROGATE.search(text) or _SPELT.search(text)):
        return text
    doubled = text.replace("\\", "\\\\")
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", doubled)


def as_named(text: str) -> str:
    """The inverse of :func:`spelt_out`."""
    if not _SPELT.search(text):
        return text
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else "\\", text)


def unquote_formula(text: str) -> str:
    """The inverse of :func:`quote_formula`."""
    return _FORMULA.sub(lambda found: found[1] + found[2][1:], text)


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


def remove_stale(folder: Path, name: str = "") -> list[Path]:
    """Remove temporary files of dead processes.

    A file is stale if its process on this machine is gone, or if it was last written a day ago.

    Args:
        folder: where to look.
        name: final name of the file concerned; empty: any.

    Returns:
        the files that were removed.
    """
    removed = []
    for path in sorted(folder.glob("*.tmp")):
        final, _, owner = path.name.removesuffix(".tmp").rpartition("~")[0].partition("~")
        if (name and final != name) or not _is_stale(path, owner):
            continue
        with suppress(OSError):
            path.unlink()
            removed.append(path)
    return removed


def temporary_path(path: Path) -> Path:
    """A new name beside ``path`` that tells who is writing: host and process."""
    return path.with_name(f"{path.name}~{_host()}~{os.getpid()}~{secrets.token_hex(4)}.tmp")


def is_temporary(name: str) -> bool:
    """Whether a file of that name is one of :func:`temporary_path`, finished by nobody."""
    return name.endswith(".tmp") and name.count("~") >= 3


@contextmanager
def held(path: Path, what: Path) -> Iterator[None]:
    """Hold a lock file, which names its holder: host, process, and by its date since when.

    The system lets go of the lock when its process ends, however that ends, so a file that a killed
    process left is taken over. What another machine left, or any process where the file system has
    no locks, is taken over by the rule for temporary files: its process is gone, or a day is over.

    Args:
        path: the lock file.
        what: that it guards, for the message.

    Raises:
        BusyError: another process holds it, or another part of this one.
        OSError: the file cannot be written.
    """
    descriptor = _claim(path, what)
    try:
        yield
    finally:
        try:
            with suppress(OSError):
                path.unlink()
        finally:
            os.close(descriptor)


def _claim(path: Path, what: Path) -> int:
    """The open lock file, locked and with our name in it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # whoever held it has just removed the folder
            continue
        try:
            _check_holder(descriptor, path, what)
            # Its last holder may have removed the file before we locked it: then it locks nothing.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                os.ftruncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
                os.write(descriptor, f"{_host()}~{os.getpid()}".encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _check_holder(descriptor: int, path: Path, what: Path) -> None:
    """Lock the open file; raise BusyError if somebody else holds it."""
    try:
        locked, taken = _lock(descriptor), False
    except BlockingIOError:
        locked, taken = False, True
    owner = os.read(descriptor, 100).decode("utf-8", "replace")
    host, _, process = owner.partition("~")
    if not taken and (not owner or (locked and host == _host()) or _is_stale(path, owner)):
        return
    since = datetime.fromtimestamp(os.fstat(descriptor).st_mtime, UTC).astimezone()
    raise BusyError(
        f"{what} is in use: millie (process {process or '?'} on {host or '?'}) has "
        f"been writing there since {since:%Y-%m-%d %H:%M}. Wait until it ends, or name another "
        f"folder; if you are sure that it no longer runs, delete {path}"
    )


def _lock(descriptor: int) -> bool:
    """Lock an open file for as long as it is open; False: the file system has no locks."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:40]


def _is_stale(path: Path, owner: str) -> bool:
    host, _, process = owner.partition("~")
    if host == _host() and process.isdigit():
        return not _is_alive(int(process))
    try:
        return time.time() - path.stat().st_mtime > _STALE_S
    except OSError:
        return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _cell(value: Value) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, str):
        return quote_formula(spelt_out(value))
    if isinstance(value, bool):
        return int(value)
    return repr(float(value)) if isinstance(value, float) else value


@cache
def code_digest(*parts: str) -> str:
    """SHA-256 (hex) over files of the package, weights included: which code made a file.

    What is kept between runs (bags, embeddings) names it, so that an upgrade that changes the
    result is not mixed with what an older release left. A version number kept by hand would be
    forgotten.

    Args:
        parts: files, or folders (their files, not folders below), relative to the package.

    Raises:
        FileNotFoundError: the package has no such part.
    """
    found = []
    for part in parts:
        place = resources.files("millie") / part
        for file in [place] if place.is_file() else place.iterdir():
            if file.is_file():
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                found.append((part, file.name, digest))
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()
