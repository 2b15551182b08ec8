"""Zip archives that strangers send: every entry is checked before one is unpacked.

Owns which archives are refused. The unpacked files get names of our own, so no name in an archive
is ever a path.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from millie.errors import DataError
from millie.files import is_litter, is_visible
from millie.review.intake.limits import (
    MAX_FILES,
    MAX_SAMPLE_BYTES,
    TooLargeError,
    check_space,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_ENTRIES = 4 * MAX_FILES
"""Folders and what operating systems add included."""
_MOST_EXPANSION, _HARMLESS_BYTES = 200.0, 1_000_000
"""Unpacked bytes a packed byte, as the readers allow of one image, and where that begins."""
_STEP_BYTES = 1 << 20
_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")
_OTHER_ARCHIVES = (b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c", b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00")
_ENCRYPTED = 0x1


class ArchiveError(DataError):
    """An archive cannot be used; the message says why and what to do."""


def is_archive(head: bytes) -> bool:
    """Whether a file is a zip archive by its first bytes."""
    return head.startswith(_SIGNATURES)


def is_other_archive(head: bytes) -> bool:
    """Whether a file is packed in another way (RAR, 7z, gzip, bzip2, xz)."""
    return head.startswith(_OTHER_ARCHIVES)


def unpack(path: Path, name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Unpack an archive's files one after another under names of our own.

    Args:
        path: the archive.
        name: of it, for messages.
        folder: where to write.

    Yields:
        The name in the archive, and the file.

    Raises:
        ArchiveError: damaged, encrypted, with an archive inside, or with names that lead out of
            it; nothing is unpacked unless all entries are in order.
        TooLargeError: it has too many entries, or would become too large.
        NoSpaceError: the disk has no room for what is in it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _checked(archive, name)
            check_space(sum(entry.file_size for entry in entries), folder)
            for number, entry in enumerate(entries):
                target = folder / f"{path.name}-{number}"
                with archive.open(entry) as source, target.open("xb") as out:
                    _copy(source, out, entry, name)
                yield entry.filename, target
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeError) as error:
        raise ArchiveError(
            f"{name}: the archive cannot be read ({error}): pack it again as an ordinary zip"
        ) from error


def _checked(archive: zipfile.ZipFile, name: str) -> list[zipfile.ZipInfo]:
    entries = archive.infolist()
    if len(entries) > _MAX_ENTRIES:
        raise TooLargeError(f"{name}: {len(entries):,} entries; the limit is {_MAX_ENTRIES:,}")
    files = [e for e in entries if not e.is_dir()]
    for entry in files:
        _check_entry(entry, name)
    files = [e for e in files if _is_visible(e.filename)]
    if len(files) > MAX_FILES:
        raise TooLargeError(
            f"{name}: {len(files):,} files; the limit is {MAX_FILES:,} in one sample"
        )
    total = sum(entry.file_size for entry in files)
    if total > MAX_SAMPLE_BYTES:
        raise TooLargeError(
            f"{name}: {total / 1e9:.1f} GB unpacked; the limit is {MAX_SAMPLE_BYTES / 1e9:g} GB"
        )
    return files


def _check_entry(entry: zipfile.ZipInfo, name: str) -> None:
    where = entry.filename.replace("\\", "/")
    if ".." in PurePosixPath(where).parts or where.startswith("/") or where[1:2] == ":":
        raise ArchiveError(
            f"{name}: an entry leads out of the archive's folder ({where[:80]}): nothing of it was "
            "unpacked; pack the images again"
        )
    if entry.flag_bits & _ENCRYPTED:
        raise ArchiveError(f"{name}: the archive is encrypted: pack it without a password")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise ArchiveError(f"{name}: {where[:80]} is a link: pack the file itself")
    if where.lower().endswith((".zip", ".rar", ".7z", ".gz", ".tar")):
        raise ArchiveError(f"{name}: {where[:80]} is an archive inside it: unpack that one first")
    expansion = entry.file_size / max(entry.compress_size, 1)
    if entry.file_size > _HARMLESS_BYTES and expansion > _MOST_EXPANSION:
        raise TooLargeError(
            f"{name}: {where[:80]} unpacks to {entry.file_size / 1e6:,.0f} MB, {expansion:,.0f} "
            f"times its packed size; the limit is {_MOST_EXPANSION:g} times. Nothing was unpacked"
        )


def _copy(source: IO[bytes], out: IO[bytes], entry: zipfile.ZipInfo, name: str) -> None:
    """Copy no more than the entry states, and refuse archives inside the archive."""
    left = entry.file_size
    head = source.read(_STEP_BYTES)
    if is_archive(head) or is_other_archive(head):
        where = entry.filename[:80]
        raise ArchiveError(f"{name}: {where} is an archive inside it: unpack that one first")
    while head:
        left -= len(head)
        if left < 0:
            raise ArchiveError(f"{name}: an entry is larger than it states: pack it again")
        out.write(head)
        head = source.read(_STEP_BYTES)


def _is_visible(where: str) -> bool:
    parts = PurePosixPath(where.replace("\\", "/")).parts
    return all(is_visible(part) and not is_litter(part) for part in parts)
