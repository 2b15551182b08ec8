"""HDF5 files that are whole or not there, with a seal that shows any changed bit.

An HDF5 file of millie begins with a user block, which the HDF5 library skips: a line with the kind
of file and the SHA-256 of everything behind the block. One file, so file and digest cannot part.
This module owns the seal and the errors of reading and writing; it knows no bags.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from millie import files
from millie.errors import MillieError, MissingFileError, StoreError
from millie.files import publish, remove_stale, temporary_path

_BLOCK_BYTES = 512
_MAGIC = b"millie sealed HDF5 1 "


class _Disk(io.FileIO):
    """A file that keeps its first failed write and lets the later ones go.

    HDF5 cannot close a file that it cannot write: the descriptor, and with it the space on a full
    disk, would stay taken. So HDF5 sees every write succeed, and the failure is checked afterwards.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of ``data``, or remember why not."""
        view = memoryview(data).cast("B")
        done = 0
        while self.failure is None and done < len(view):
            try:
                done += super().write(view[done:]) or 0
            except OSError as error:
                self.failure = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the length, or remember why not."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0


@dataclass(frozen=True, slots=True)
class NewFile:
    """A sealed file that is being written.

    Attributes:
        hdf: where to write.
    """

    hdf: h5py.File
    _disk: _Disk

    def check(self) -> None:
        """Stop early.

        Raises:
            OSError: something could not be written; :func:`new_file` turns it into StoreError.
        """
        if self._disk.failure is not None:
            raise self._disk.failure


@contextmanager
def new_file(path: Path) -> Iterator[NewFile]:
    """Write a sealed HDF5 file: nothing, or all of it, appears under ``path``.

    The file is written beside its place, sealed, synced and renamed. Of several writers the last
    wins. If the body raises, nothing is left; what a killed process left is removed when the same
    file is written again.

    Raises:
        StoreError: the file cannot be written, for example because the disk is full.
    """
    with _write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path.parent, path.name)
        temporary = temporary_path(path)
        try:
            with _Disk(temporary, "x+") as disk:
                # v110: metadata carry checksums.
                with h5py.File(
                    disk, "w", userblock_size=_BLOCK_BYTES, libver=("v110", "v110")
                ) as hdf:
                    new = NewFile(hdf, disk)
                    yield new
                    hdf.attrs["complete"] = True
                new.check()
            _seal(temporary)
            publish(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically.

    Raises:
        StoreError: the file cannot be written.
    """
    with _write_errors(path):
        files.write_text(path, text)


def read_seal(path: Path) -> str:
    """The SHA-256 (hex) that the file says it has; 512 bytes are read, nothing is checked.

    Raises:
        MissingFileError: there is no such file.
        StoreError: the file carries no seal.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist")
    with read_errors(path), path.open("rb") as stream:
        block = stream.read(_BLOCK_BYTES)
    digest = block[len(_MAGIC) :][:64].decode("ascii", "replace")
    if block != _block(digest):
        raise StoreError(
            f"{path} is not a finished millie file (no valid seal in its first {_BLOCK_BYTES} "
            "bytes): delete it and run the step that writes it again"
        )
    return digest


def check_seal(path: Path) -> str:
    """Read the whole file and compare it with its seal.

    Returns:
        the file's SHA-256 (hex).

    Raises:
        MissingFileError: there is no such file.
        StoreError: any bit of it has changed, or it is cut short or unfinished.
    """
    sealed = read_seal(path)
    with read_errors(path), path.open("rb") as stream:
        stream.seek(_BLOCK_BYTES)
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sealed:
        raise StoreError(
            f"{path} has changed since it was written (SHA-256 {found[:12]}..., expected "
            f"{sealed[:12]}...): delete it and run the step that writes it again"
        )
    return sealed


def open_file(path: Path, *, verify: bool = True) -> h5py.File:
    """Open a sealed file for reading.

    Args:
        path: the file.
        verify: compare the whole file with its seal first (reads it once, about 1 GB/s).

    Raises:
        MissingFileError: there is no such file.
        StoreError: it is damaged or unfinished.
    """
    if verify:
        check_seal(path)
    else:
        read_seal(path)
    with read_errors(path):
        file = h5py.File(path, "r", locking=False)
        try:
            finished = bool(file.attrs.get("complete", False))
        except BaseException:
            file.close()
            raise
    if not finished:
        file.close()
        raise StoreError(f"{path} is unfinished: delete it and run the step that writes it again")
    return file


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes h5py or a decoder raise into one error.

    Raises:
        StoreError: the file cannot be read; delete it and write it again.
    """
    try:
        yield
    except MillieError:
        raise
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path} cannot be read ({error}): it is damaged or not the right kind of file; delete "
            "it and run the step that writes it again"
        ) from error


def _block(digest: str) -> bytes:
    return (_MAGIC + digest.encode("ascii", "replace") + b"\n").ljust(_BLOCK_BYTES, b"\0")


def _seal(path: Path) -> None:
    with path.open("rb+") as stream:
        stream.seek(_BLOCK_BYTES)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        stream.write(_block(digest))
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except MillieError:
        raise
    except (OSError, RuntimeError) as error:
        raise StoreError(
            f"cannot write {path} ({error}): check free space and permissions, then run again; "
            "finished work is kept"
        ) from error
