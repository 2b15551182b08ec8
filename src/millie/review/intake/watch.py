"""A watched folder: a sub-folder or zip archive that has come to rest becomes a sample.

What was taken is remembered in the database, in the transaction that makes the sample; nothing in
the folder is ever changed or deleted. What grows afterwards is another sample, which names the one
before. Owns when something is at rest, and what was dealt with.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from django.db import DatabaseError, close_old_connections

from millie.errors import MillieError
from millie.files import is_litter, is_visible, spelt_out
from millie.review.intake.archives import is_archive
from millie.review.intake.door import About, Tray, admit, tray
from millie.review.intake.limits import MAX_NAME, NoSpaceError
from millie.review.models import WatchedItem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from millie.review.data_folder import DataFolder
    from millie.review.models import Sample

QUIET_S = 10.0
"""An item whose files have not changed for so long is complete: scanners copy without a pause."""
_LOOK_EVERY_S = 2.0
SENDER = "watched folder"

log = logging.getLogger("millie.review.watch")

File = tuple[str, int, int]
"""Name from the watched folder, bytes, time of the last change in ns."""


@dataclass
class Watcher:
    """The folder as it was seen last.

    Attributes:
        data: where samples go.
        folder: that is watched.
        quiet_s: see :data:`QUIET_S`.
    """

    data: DataFolder
    folder: Path
    quiet_s: float = QUIET_S
    _since: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        """Look again and again, until the process that started this one is gone."""
        parent = os.getppid()
        while os.getppid() == parent:
            try:
                self.look()
            except (OSError, DatabaseError) as error:
                log.warning("cannot look", extra={"error": type(error).__name__})
                close_old_connections()
            time.sleep(_LOOK_EVERY_S)

    def look(self) -> list[Sample]:
        """Take what has come to rest; returns the new samples.

        Raises:
            OSError: the folder cannot be read, or the disk is full: tried again at the next look.
        """
        now, taken = time.monotonic(), []
        since: dict[str, float] = {}
        for item in _items(self.folder):
            files = list(_files(self.folder, item))
            key = hashlib.sha256(json.dumps([spelt_out(item.name), files]).encode()).hexdigest()
            since[key] = self._since.get(key, now)
            if files and now - since[key] >= self.quiet_s and not _known(key):
                sample = self._take(item, files, key)
                taken += [sample] if sample else []
        self._since = since
        return taken

    def _take(self, item: Path, files: list[File], key: str) -> Sample | None:
        def remember(sample: Sample) -> None:
            WatchedItem.objects.create(key=key, sample=sample)

        try:
            with tray(self.data) as sent:
                self._fill(sent, files)
                about = About(SENDER, patient=item.name if item.is_dir() else "")
                sample = admit(self.data, sent, about, also=remember)
        except NoSpaceError:
            raise
        except MillieError as error:
            name = spelt_out(item.name)[:MAX_NAME]
            WatchedItem.objects.create(key=key, name=name, reason=str(error))
            log.warning("refused", extra={"error": type(error).__name__})
            return None
        log.info("taken", extra={"sample": sample.pseudonym, "images": sample.images.count()})
        return sample

    def _fill(self, sent: Tray, files: list[File]) -> None:
        for name, _, _ in files:
            with (self.folder / name).open("rb") as stream:
                sent.put(name, stream)


def _known(key: str) -> bool:
    return WatchedItem.objects.filter(key=key).exists()


def _items(folder: Path) -> Iterator[Path]:
    """Sub-folders and archives; loose files are not known to be of one patient."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not is_visible(path.name):
            continue
        if path.is_dir() or (path.is_file() and path.suffix.lower() == ".zip" and _is_zip(path)):
            yield path


def _is_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        return is_archive(stream.read(4))


def _files(folder: Path, item: Path) -> Iterator[File]:
    """Visible files of an item; links are passed over."""
    places = [item] if item.is_file() else sorted(item.rglob("*"))
    for path in places:
        parts = path.relative_to(folder).parts
        if path.is_symlink() or not path.is_file():
            continue
        if all(is_visible(part) and not is_litter(part) for part in parts):
            status = path.stat()
            yield "/".join(parts), status.st_size, status.st_mtime_ns
