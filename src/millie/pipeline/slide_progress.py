"""How far whole slides are, told by the process that reads one to the one that shows it.

A unit of work is a patient, and a patient with a slide takes minutes: the worker writes into a
temporary file of the store, which whoever waits reads once a second. Owns these files; they vanish
with the work, and :func:`millie.files.remove_stale` takes those of killed workers. Nothing depends
on them: where they cannot be written, less is shown.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from millie.errors import MillieError
from millie.files import is_temporary, temporary_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Tell = Callable[[int, int], None]

WHAT = "fields of slides"
"""Name of this progress."""

_NAME = "slide"
_EVERY_S = 1.0


@contextmanager
def telling(store: Path) -> Iterator[Tell]:
    """Tell how many fields of how many are done, as often as one likes.

    Args:
        store: folder of the bags; need not exist.
    """
    path, last = temporary_path(store / _NAME), -_EVERY_S

    def tell(done: int, planned: int) -> None:
        nonlocal last
        if planned and time.monotonic() - last >= _EVERY_S:
            last = time.monotonic()
            with suppress(OSError):
                path.write_text(f"{done} {planned}\n", encoding="ascii")

    try:
        yield tell
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def showing(store: Path, progress: Callable[[str, int, int], None]) -> Iterator[None]:
    """Show what the workers of a store tell, from a thread, until the work is done.

    Args:
        store: folder of the bags.
        progress: called with :data:`WHAT` and the fields of all slides that are being read.
    """
    done = threading.Event()

    def look() -> None:
        while not done.wait(_EVERY_S):
            if sums := fields_of_slides(store):
                try:
                    progress(WHAT, *sums)
                except MillieError:  # whoever called finds out by a call of its own
                    return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def fields_of_slides(store: Path) -> tuple[int, int] | None:
    """Fields done and planned of the slides that are being read; None where none is."""
    found = []
    for path in store.glob(f"{_NAME}~*"):
        with suppress(OSError, ValueError):
            if is_temporary(path.name):
                done, planned = map(int, path.read_text(encoding="ascii").split())
                found.append((done, planned))
    if not found:
        return None
    return sum(done for done, _ in found), sum(planned for _, planned in found)
