"""The errors that millie raises on purpose, and silence for the warnings of other libraries.

Each is also a builtin, so that a caller who knows only Python catches the right family::

    MillieError
    ├── ConfigError (ValueError)            an argument or a configuration value is wrong
    ├── DataError (ValueError)              the data is there but cannot be used
    │   ├── ImageError                      not a usable image
    │   │   └── ImageTooLargeError          refused from its header, before decoding
    │   ├── ScaleError                      um/px unknown and not estimable, or implausible
    │   ├── ManifestError                   a manifest or a published layout breaks its rules
    │   ├── StoreError                      a bag file is damaged, unfinished or of another schema
    │   ├── BundleError                     a model bundle is damaged, altered or of another schema
    │   └── NoCellsError                    no leukocyte was found where at least one is needed
    ├── MissingError (LookupError)          a thing that should exist does not
    │   ├── MissingFileError (FileNotFoundError)
    │   ├── MissingWeightsError (FileNotFoundError)
    │   └── MissingPackageError (ImportError)
    ├── BusyError (BlockingIOError)         another run is writing there
    ├── ResourcesError (OSError)            the machine has no memory or processes left for the work
    └── TrainingError (RuntimeError)        training cannot start or has diverged

Rule of thumb: the *user's words* are wrong -> ConfigError; the *content of a file* is wrong ->
DataError; *nothing is there* -> MissingError. Messages say what, got, expected and what to do.
"""

from __future__ import annotations

import threading
import warnings
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class MillieError(Exception):
    """Base of every error raised on purpose; catch it at the edge of a program."""


class ConfigError(MillieError, ValueError):
    """An argument or configuration value is unknown, of the wrong type or out of range.

    Use it for what the user typed; for the content of a user's file see :class:`DataError`.
    """


class DataError(MillieError, ValueError):
    """Data exists but cannot be used; the message names the file and the remedy."""


class ImageError(DataError):
    """A file is not a usable image: another kind of file, truncated, empty or unsupported."""


class ImageTooLargeError(ImageError):
    """An image's header states more pixels or bytes than the limits allow; not decoded."""


class ScaleError(DataError):
    """The pixel size (um/px) is unknown and cannot be estimated, or is implausible."""


class ManifestError(DataError):
    """A manifest, a list of diagnoses or a published folder layout breaks its rules."""


class StoreError(DataError):
    """A bag file is damaged, unfinished, or written under another schema or configuration."""


class BundleError(DataError):
    """A model bundle is damaged, altered, incomplete, or of an unknown schema version."""


class NoCellsError(DataError):
    """No leukocyte was found in any image of a patient."""


class MissingError(MillieError, LookupError):
    """A named thing does not exist; use a subclass where it is a file, weights or a package."""


class MissingFileError(MissingError, FileNotFoundError):
    """A file or folder that was named does not exist."""


class MissingWeightsError(MissingError, FileNotFoundError):
    """Pretrained weights are not on this machine and could not be fetched."""


class MissingPackageError(MissingError, ImportError):
    """An optional dependency is not installed; the message names the extra to install."""


class BusyError(MillieError, BlockingIOError):
    """Another run is writing to the same folder; the message names its machine and process."""


class ResourcesError(MillieError, OSError):
    """The machine refuses memory, threads or processes; the message says how much there was."""


class TrainingError(MillieError, RuntimeError):
    """Training cannot start or has diverged (loss not finite).

    It cannot with too few patients of a class, or with one cell under two diagnoses.
    """


class _Silence:
    """Counts users; the list of warning filters is restored when the last one leaves.

    ``warnings.catch_warnings`` saves and restores one list for the whole process: two threads that
    enter and leave it crosswise leave all warnings off for good. Images are decoded in threads and
    a model is loaded in one: the first to enter saves the list, the last to leave restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved = ExitStack()

    def enter(self, category: type[Warning]) -> None:
        with self._lock:
            if self._inside == 0:
                self._saved.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", category)
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._saved.close()


_SILENCE = _Silence()  # one, because the list of filters is one


@contextmanager
def no_warnings(category: type[Warning] = Warning) -> Iterator[None]:
    """No warning of a category is shown while any thread is inside; then all are as before."""
    _SILENCE.enter(category)
    try:
        yield
    finally:
        _SILENCE.leave()
