"""How much the door takes, checked before anything is parsed, and what a full disk looks like."""

from __future__ import annotations

import errno
import shutil
from dataclasses import dataclass
from pathlib import Path

from millie.errors import MillieError

MAX_UPLOAD_BYTES = 2_000_000_000
"""Of one request; whole slides beyond it come by the watched folder."""
MAX_SAMPLE_BYTES = 20_000_000_000
"""Of all images of a sample."""
MAX_FILES = 1000
"""Of one sample: a film of 500 cells, each an image of its own, twice."""
RESERVE_BYTES = 500_000_000
"""Left free on the disk for the database and the results of what was taken."""
MAX_NAME = 400
"""Characters of a name that is kept."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FULL_TEXTS = ("database or disk is full", "No space left on device")


class TooLargeError(MillieError, ValueError):
    """More bytes or files than the door takes; the message says the limit."""


class NoSpaceError(MillieError, OSError):
    """The disk has no room for what was sent."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one file is not taken.

    Attributes:
        name: as the sender named it.
        reason: what is wrong with it, and what to do.
    """

    name: str
    reason: str


class RefusedError(MillieError, ValueError):
    """Files of a submission cannot be used; nothing of it was kept."""

    def __init__(self, refusals: list[Refusal]) -> None:
        self.refusals = refusals
        super().__init__("; ".join(refusal.reason for refusal in refusals[:3]))


def check_length(n_bytes: int, folder: Path) -> None:
    """Check a request's stated length.

    Args:
        n_bytes: of the body.
        folder: where it will be written.

    Raises:
        TooLargeError: it is beyond the limit.
        NoSpaceError: the disk has no room for it.
    """
    if n_bytes > MAX_UPLOAD_BYTES:
        raise TooLargeError(
            f"{n_bytes / 1e9:.1f} GB in one request; the limit is {MAX_UPLOAD_BYTES / 1e9:g} GB. "
            "Send fewer images, or put large slides into the watched folder"
        )
    check_space(n_bytes, folder)


def check_space(n_bytes: int, folder: Path) -> None:
    """Check that there is room.

    Raises:
        NoSpaceError: there is not.
    """
    free = shutil.disk_usage(folder).free
    if free < n_bytes + RESERVE_BYTES:
        raise NoSpaceError(
            f"the disk of the data folder has {free / 1e6:,.0f} MB free, and {n_bytes / 1e6:,.0f} "
            f"MB more than {RESERVE_BYTES / 1e6:g} MB are needed: free some space and send it again"
        )


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one that it came of, says that the disk is full."""
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, NoSpaceError) or getattr(error, "errno", None) in _FULL:
            return True
        if any(text in str(error) for text in _FULL_TEXTS):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False
