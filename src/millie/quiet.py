"""Warnings of other libraries kept silent, by as many threads at once as like.

``warnings.catch_warnings`` saves and restores one list for the whole process: two threads that
enter and leave it crosswise leave all warnings off for good. Images are decoded in threads and a
model is loaded in one, so the first to enter saves the list here and the last to leave restores it.
"""

from __future__ import annotations

import threading
import warnings
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Silence:
    """Who is inside; the list that is restored when nobody is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved = ExitStack()

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._saved.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._saved.close()


_SILENCE = _Silence()  # one, because the list of filters is one


@contextmanager
def no_warnings() -> Iterator[None]:
    """No warning is shown while any thread is inside; afterwards all are as before."""
    _SILENCE.enter()
    try:
        yield
    finally:
        _SILENCE.leave()
