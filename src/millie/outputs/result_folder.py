"""The folder that a command writes to: whose it is, and how new results take the place of old ones.

A prediction run writes beside its place, in the hidden folder ``.millie``, and swaps when all is
there; so does a reproduction. ``.millie/record.json`` lists the files that the swap put in place,
with their digests: these alone are ever replaced or removed, whatever else lies in the folder is
its owner's. A cross-validation, which is resumed in its place, has the same record for its digests.

The swap: ``new/``, complete and with its record inside, is renamed to ``ready/``; from then on the
new results count, and each file is moved to its place. A process that is killed before that rename
leaves the old results as they were; one killed after it leaves moves for the next run to finish.
Owns this order and what each kind of folder is known by; what stands in the files is others'.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from millie.errors import ConfigError, DataError
from millie.files import held, is_temporary, is_visible, publish, safe_id, sync_folder, write_text

Kind = Literal[
    "calls", "study", "reproduction", "store", "model", "monitor", "validation", "other"
]  # fmt: skip

STORE = "store"
"""Folder of a run's bags: what a killed run finished of them is kept for the next one."""

_HIDDEN, _RECORD, _LOCK = ".millie", "record.json", "lock"
_SCHEMA = 2
_WITHOUT_DIGESTS = 1
WORDS: dict[Kind, str] = {
    "calls": "calls of `millie predict`",
    "study": "a cross-validation",
    "reproduction": "results of `millie reproduce`",
    "store": "a bag store",
    "model": "a model",
    "monitor": "a report of `millie monitor`",
    "validation": "a report of `millie validate`",
}
"""What each kind is called in a message."""
MARKS: dict[str, Kind] = {
    "predictions.json": "calls",
    "progress.json": "study",
    "splits.json": "study",
    "comparison.csv": "reproduction",
    "pooling.csv": "reproduction",
    "store.json": "store",
    "bundle.json": "model",
    "monitor.json": "monitor",
    "validation.json": "validation",
}
"""By which file each kind is known, in the order of trust."""

_SWAPPED = frozenset({"calls", "reproduction"})


def is_store(inputs: Sequence[Path]) -> bool:
    """Whether a bag store alone was named."""
    return len(inputs) == 1 and (inputs[0] / "store.json").is_file()


def check_kind(folder: Path, wanted: Kind) -> None:
    """Refuse to write to a folder that holds something else than earlier results of this kind.

    Calls and reproductions are replaced by their record, so it must be there too. What is ``other``
    may lie among somebody's own files.

    Args:
        folder: may be missing.
        wanted: what is to be written.

    Raises:
        ConfigError: it is a file, another kind of result, or full of somebody's own files.
    """
    if not folder.is_dir():
        if folder.exists():
            raise ConfigError(f"{folder} is a file: name a folder to write to")
        return
    names = {p.name for p in folder.iterdir() if is_visible(p.name) and not is_temporary(p.name)}
    recorded = _recorded_kind(folder)
    kinds = [recorded] if recorded else [kind for mark, kind in MARKS.items() if mark in names]
    if others := [kind for kind in kinds if kind != wanted]:
        raise ConfigError(
            f"{folder} holds {WORDS[others[0]]}: name another folder for the new results"
        )
    if wanted in _SWAPPED and kinds and not recorded:
        raise ConfigError(
            f"{folder} holds {WORDS[wanted]}, but not the list of their files "
            f"({_HIDDEN}/{_RECORD}), so they cannot be replaced safely: name another folder, or "
            "move them away"
        )
    if names and not kinds and wanted != "other":
        raise ConfigError(
            f"{folder} holds files that millie did not write ({min(names)}): name a new or an "
            "empty folder for the results"
        )


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder; what is not needed of it afterwards is removed.

    Raises:
        BusyError: another run is writing there.
    """
    is_new = not folder.exists()
    try:
        with held(folder / _HIDDEN / _LOCK, folder):
            yield
    finally:
        with suppress(OSError):  # not empty: it is needed
            (folder / _HIDDEN).rmdir()
            if is_new:
                folder.rmdir()


@dataclass(frozen=True, slots=True)
class Results:
    """Results in the making, beside those of the last run.

    Attributes:
        folder: where they are to lie.
        kind: what they are.
        files: of the last run, relative to the folder.
    """

    folder: Path
    kind: Kind
    files: frozenset[str]

    @property
    def new(self) -> Path:
        """Where they are written until they are complete."""
        return self.folder / _HIDDEN / "new"

    def claim(self) -> None:
        """Record that the folder is this kind's before anything is written in its place.

        A reproduction keeps its store, study and model there, to be resumed after a kill.
        """
        if _recorded_kind(self.folder) is None:
            _write_record(_record_of(self.folder), Record(self.kind))

    def carry(self, name: str) -> None:
        """Take a file of the last run over, unless it is there already."""
        source, target = self.folder / name, self.new / name
        if name not in self.files or target.exists() or not source.is_file():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)  # every writer replaces whole files, so both may share one
        except OSError:
            shutil.copyfile(source, target)

    def check_free(self, names: Iterable[str]) -> None:
        """Refuse if something of the user's own stands where one of these files is to lie.

        Raises:
            ConfigError: and what it is.
        """
        for name in names:
            found = _in_the_way(self.folder, name, known=name in self.files)
            if found is not None:
                raise ConfigError(
                    f"{found} is in the way of the results. It is not millie's and is left as it "
                    "is: move or rename it and run again, or name another folder"
                )

    def publish(self) -> None:
        """Put everything below ``new`` in the place of the last run's files.

        Raises:
            ConfigError: as :meth:`check_free`.
            OSError: a file cannot be moved; the next run tries again.
        """
        found = (path for path in self.new.rglob("*") if path.is_file())
        names = sorted(
            path.relative_to(self.new).as_posix() for path in found if not is_temporary(path.name)
        )
        self.check_free(names)
        digests = {name: _sha256(self.new / name) for name in names}
        _write_record(self.new / _RECORD, Record(self.kind, digests))
        publish(self.new, _ready(self.folder))
        settle(self.folder)

    def clear(self) -> None:
        """Remove what an unfinished run left; finished bags are kept, an empty store is not."""
        for path in self.new.glob("*"):
            if path.name != STORE:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        store = self.new / STORE
        if store.is_dir() and not any(store.glob("*.h5")):
            shutil.rmtree(store)
        with suppress(OSError):
            self.new.rmdir()


def files_of(patients: Iterable[str]) -> list[str]:
    """Names that a prediction run will write, as far as they are known before the images are."""
    pages = [page_of(patient) for patient in patients]
    return ["report.html", "predictions.json", "predictions.csv", "cells.csv", *pages]


@dataclass(frozen=True, slots=True)
class Record:
    """What the last run left in its folder.

    Attributes:
        kind: of the run.
        files: SHA-256 (hex) of each file by its name relative to the folder; empty: not known.
    """

    kind: Kind = "calls"
    files: Mapping[str, str] = field(default_factory=dict)

    def changed(self, folder: Path) -> Iterator[tuple[str, str]]:
        """Names of files that are not what was written, each with ``missing`` or ``changed``."""
        for name, digest in sorted(self.files.items()):
            if not (folder / name).is_file():
                yield name, "missing"
            elif digest and _sha256(folder / name) != digest:
                yield name, "changed"


def read_record(folder: Path) -> Record:
    """The record of the last run in a folder; without files: there is none.

    Raises:
        DataError: it is damaged.
    """
    return _read_record(_record_of(folder))


def record_files(folder: Path, kind: Kind, written: Iterable[str]) -> None:
    """Put what was written in its place into the record, with its digests; other files keep theirs.

    Args:
        folder: of the results.
        kind: of the results.
        written: names, or patterns of names, relative to the folder; where no such file exists any
            more, the record forgets it.
    """
    found = {
        path.relative_to(folder).as_posix(): _sha256(path)
        for pattern in written
        for path in folder.glob(pattern)
        if path.is_file() and is_visible(path.name) and not is_temporary(path.name)
    }
    known = read_record(folder).files
    kept = {n: d for n, d in known.items() if (folder / n).is_file() and n not in found}
    _write_record(_record_of(folder), Record(kind, kept | found))


def page_of(patient: str) -> str:
    """Where a patient's page lies in the folder of a run."""
    return f"patients/{safe_id(patient)}.html"


@contextmanager
def new_results(folder: Path, kind: Kind = "calls") -> Iterator[Results]:
    """The folder of a run that is swapped, for one run at a time.

    Nothing of the last run is touched before :meth:`Results.publish`.

    Raises:
        ConfigError: it holds something else, or results without the list of their files.
        BusyError: another run is writing there.
        DataError: the list of the last run's files is damaged.
    """
    check_kind(folder, kind)
    with one_at_a_time(folder):
        settle(folder)
        check_kind(folder, kind)  # another run may have ended since
        results = Results(folder, kind, frozenset(read_record(folder).files))
        results.clear()
        try:
            yield results
        except Exception as error:
            if results.files and not _ready(folder).exists():
                error.add_note(f"{folder} still holds the results of the run before")
            raise
        finally:
            results.clear()


def settle(folder: Path) -> None:
    """Finish the swap of a run that was killed meanwhile, if there is one to finish.

    Raises:
        DataError: a record is damaged.
        OSError: a file cannot be moved or removed.
    """
    ready, record = _ready(folder), _record_of(folder)
    listing = ready / _RECORD
    if listing.is_file():
        names = _read_record(listing).files.keys()
        gone = _read_record(record).files.keys() - names
        for name in sorted(names):
            if (ready / name).is_file():  # else it was moved before the kill
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (ready / name).replace(folder / name)
        for name in sorted(gone):
            _remove(folder, name)
        for place in {(folder / name).parent for name in names}:
            sync_folder(place)
        publish(listing, record)
    if ready.exists():
        shutil.rmtree(ready)


def _ready(folder: Path) -> Path:
    return folder / _HIDDEN / "ready"


def _record_of(folder: Path) -> Path:
    return folder / _HIDDEN / _RECORD


def _recorded_kind(folder: Path) -> Kind | None:
    """The kind of results that a folder's record tells; None: it has none."""
    for path in (_ready(folder) / _RECORD, _record_of(folder)):
        if path.is_file():
            return _read_record(path).kind
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_record(path: Path, record: Record) -> None:
    content = {"schema": _SCHEMA, "kind": record.kind, "files": dict(sorted(record.files.items()))}
    write_text(path, json.dumps(content, indent=1) + "\n")


def _read_record(path: Path) -> Record:
    """A record; an empty one where there is none.

    Raises:
        DataError: it is damaged, or names a file outside its folder.
    """
    if not path.is_file():
        return Record()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] == _WITHOUT_DIGESTS:
            record = Record("calls", dict.fromkeys(map(str, content["files"]), ""))
        else:
            files = {str(name): str(digest) for name, digest in content["files"].items()}
            record = Record(content["kind"], files)
        sound = content["schema"] in {_SCHEMA, _WITHOUT_DIGESTS} and record.kind in WORDS
    except (ValueError, KeyError, TypeError, AttributeError):
        sound, record = False, Record()
    if not (sound and all(map(_is_inside, record.files))):
        raise DataError(
            f"{path} is damaged or of another version of millie: write the results into another "
            "folder"
        )
    return record


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path.parts[:1] != (_HIDDEN,)


def _in_the_way(folder: Path, name: str, *, known: bool) -> Path | None:
    """What stands in the way of a file: itself unless known, or a file or link for a folder."""
    path = folder / name
    if path.is_dir() or ((path.exists() or path.is_symlink()) and not known):
        return path
    for above in path.relative_to(folder).parents:
        place = folder / above
        if above.name and (place.is_symlink() or (place.exists() and not place.is_dir())):
            return place
    return None


def _remove(folder: Path, name: str) -> None:
    """Remove a file of the last run, and folders that are empty then."""
    if _in_the_way(folder, name, known=True):
        return
    path = folder / name
    path.unlink(missing_ok=True)
    for place in path.relative_to(folder).parents:
        with suppress(OSError):  # not empty
            if place.name:
                (folder / place).rmdir()
