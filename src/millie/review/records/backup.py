"""All data in one file, and back.

A backup is a tar archive: first the database (a consistent copy, taken while the server runs), then
the images and results, and last ``digests.json`` with the SHA-256 of each. The database comes first
because files are written before the rows that name them and are never changed or removed: whatever
the copy names is there. The key that signs sessions is left out; everybody logs in again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from millie import __version__
from millie.errors import ConfigError, DataError, MissingPackageError
from millie.files import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from millie.review.data_folder import DataFolder

SCHEMA = 1
DIGESTS = "digests.json"
_SQLITE, _POSTGRES = "database.sqlite3", "database.pg_dump"
_OWNER_ONLY = 0o600


@dataclass(slots=True)
class _Writer:
    """Adds files to an archive and remembers their digests."""

    archive: tarfile.TarFile
    digests: dict[str, str] = field(default_factory=dict)

    def add(self, path: Path, name: str) -> None:
        with path.open("rb") as stream:
            self.digests[name] = _digest(stream)
            stream.seek(0)
            entry = self.archive.gettarinfo(arcname=name, fileobj=stream)
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            self.archive.addfile(entry, stream)


def back_up(
    data: DataFolder, database: dict[str, Any], out: Path, progress: Callable[[int, int], None]
) -> int:
    """Write a backup; the server may go on.

    Args:
        data: the folder of all data.
        database: Django's entry for the database.
        out: the archive; must not exist.
        progress: called with files done and in all.

    Returns:
        number of files in the archive.

    Raises:
        ConfigError: ``out`` exists or lies inside the data folder.
        MissingPackageError: ``pg_dump`` is not on the PATH.
        OSError: the disk is full; nothing is left at ``out``.
    """
    if out.exists():
        raise ConfigError(f"{out} exists: name a new file for each backup")
    if out.resolve().is_relative_to(data.root.resolve()):
        raise ConfigError(f"{out} lies inside the data folder: keep backups elsewhere")
    partial = out.with_name(f".{out.name}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY)
        with os.fdopen(descriptor, "wb") as stream:
            n_files = _write(data, database, stream, progress)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(out)
        sync_folder(out.parent)
    finally:
        partial.unlink(missing_ok=True)
    return n_files


def _write(
    data: DataFolder, database: dict[str, Any], stream: Any, progress: Callable[[int, int], None]
) -> int:
    with (
        tempfile.TemporaryDirectory(dir=data.incoming) as scratch,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        writer = _Writer(archive)
        copy = _copy_of(database, Path(scratch))
        writer.add(copy, copy.name)
        files = [p for folder in (data.images, data.samples) for p in _files(folder)]
        for done, path in enumerate(files):
            progress(done, len(files))
            writer.add(path, path.relative_to(data.root).as_posix())
        progress(len(files), len(files))
        head = {
            "schema": SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "millie": __version__,
            "sha256": writer.digests,
        }
        text = json.dumps(head, indent=1).encode()
        entry = tarfile.TarInfo(DIGESTS)
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    return len(files) + 1


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def _copy_of(database: dict[str, Any], scratch: Path) -> Path:
    """A consistent copy of the database, as a file."""
    if database["ENGINE"].endswith("sqlite3"):
        copy = scratch / _SQLITE
        with (
            closing(sqlite3.connect(database["NAME"])) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        return copy
    copy = scratch / _POSTGRES
    _postgres("pg_dump", database, "--format=custom", f"--file={copy}")
    return copy


def restore(archive: Path, data: DataFolder, database: dict[str, Any]) -> int:
    """Bring a backup back, into a data folder without samples and an empty database.

    Args:
        archive: from :func:`back_up`.
        data: its folder has no database, image or result yet.
        database: Django's entry for the database.

    Returns:
        number of files.

    Raises:
        ConfigError: the folder has data already, or the kinds of database differ.
        DataError: the archive is cut short, damaged or no backup; the folder is left as it was.
        MissingPackageError: ``pg_restore`` is not on the PATH.
    """
    if data.database.exists() or _files(data.images) or _files(data.samples):
        raise ConfigError(f"{data.root} has data: restore into a new folder")
    with tempfile.TemporaryDirectory(dir=data.incoming) as folder:
        scratch = Path(folder)
        n_files = _unpack(archive, scratch)
        is_sqlite = database["ENGINE"].endswith("sqlite3")
        copy = scratch / (_SQLITE if is_sqlite else _POSTGRES)
        if not copy.is_file():
            other = "PostgreSQL" if is_sqlite else "SQLite"
            raise ConfigError(
                f"{archive} is the backup of a {other} database: "
                + ("name one with --database" if is_sqlite else "leave --database out")
            )
        if not is_sqlite:
            _postgres("pg_restore", database, "--no-owner", "--exit-on-error",
                "--single-transaction", f"--dbname={database['NAME']}", str(copy))  # fmt: skip
        for name in ("images", "samples"):
            if (scratch / name).is_dir():
                shutil.rmtree(data.root / name)
                (scratch / name).replace(data.root / name)
        if is_sqlite:  # last: until then the folder has no data
            copy.replace(data.database)
        sync_folder(data.root)
    return n_files


def _unpack(archive: Path, scratch: Path) -> int:
    try:
        with tarfile.open(archive, "r:") as stream:
            stream.extractall(scratch, filter="data")
        head = json.loads((scratch / DIGESTS).read_text(encoding="utf-8"))
        digests = head["sha256"]
    except (tarfile.TarError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{archive} is no whole backup of millie ({error}): take another copy of it"
        ) from error
    if head.get("schema") != SCHEMA:
        raise DataError(f"{archive}: written by millie {head.get('millie')}; restore with that one")
    found = {p.relative_to(scratch).as_posix() for p in _files(scratch)} - {DIGESTS}
    if found != set(digests):
        raise DataError(f"{archive} is damaged: files are missing or were added")
    for name, digest in digests.items():
        with (scratch / PurePosixPath(name)).open("rb") as stream:
            if _digest(stream) != digest:
                raise DataError(f"{archive} is damaged: {name} differs from its digest")
    return len(digests)


def _digest(stream: Any) -> str:
    return hashlib.file_digest(stream, "sha256").hexdigest()


def _postgres(program: str, database: dict[str, Any], *words: str) -> None:
    """Run a program of PostgreSQL; the password goes by the environment, unseen by others."""
    found = shutil.which(program)
    if found is None:
        raise MissingPackageError(
            f"{program} is not on the PATH: install PostgreSQL's client programs, of the server's "
            "version or newer"
        )
    names = {"HOST": "PGHOST", "PORT": "PGPORT", "USER": "PGUSER", "PASSWORD": "PGPASSWORD"}
    own = {env: str(database[key]) for key, env in names.items() if database.get(key)}
    own["PGDATABASE"] = str(database["NAME"])
    done = subprocess.run(  # noqa: S603 - a program of PostgreSQL, no shell
        [found, *words], env={**os.environ, **own}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DataError(f"{program} failed: {done.stderr.strip()[:500]}")
