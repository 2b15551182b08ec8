"""Whether there is memory for the work, asked before it begins, and what to say when it runs out.

Under a limit on address space (``ulimit -v``, batch systems) libraries crash or hang while they are
loaded, where nothing can be caught; so the limit is read first. Owns the least that each command
needs, how much there is, and by what words other libraries tell that there was no more.
"""

from __future__ import annotations

import errno
import re
import sys

from millie.errors import ResourcesError

if sys.platform != "win32":
    import resource

LEAST_MB = {
    "detect": 1000, "segment": 1000,
    "predict": 2200, "train": 2200, "crossval": 2200, "demo": 2200, "reproduce": 2200,
    "serve": 2200,
}  # fmt: skip
"""Address space of the largest process of a command, 1e6 bytes: `segment` was seen to take 850 MB,
`predict` 2,020 MB (two cores), most of it reserved by libraries and never used."""

_SHORTAGE = re.compile(
    r"cannot allocate memory|can't allocate memory|can't start new thread|failed to map segment|"
    r"unable to allocate|not enough memory|bad allocation|std::bad_alloc",
    re.IGNORECASE,
)


def check_memory(command: str) -> None:
    """Refuse a command that the limit on address space would crash.

    Raises:
        ResourcesError: the limit is below what the command needs.
    """
    allowed, least = address_space_mb(), LEAST_MB.get(command, 0)
    if allowed is not None and allowed < least:
        raise ResourcesError(
            f"only {allowed:,} MB of address space are allowed here (ulimit -v), and millie "
            f"{command} needs about {least:,} MB in each process: raise the limit, or ask the "
            "batch system for more memory; -j 1 needs the least in all"
        )


def address_space_mb() -> int | None:
    """What this process may use, 1e6 bytes; None: no limit is set, or the system has none."""
    if sys.platform == "win32":
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else int(soft / 1e6)


def is_shortage(error: BaseException | None) -> bool:
    """Whether an error, or one that it came of, says that memory or threads ran out."""
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, MemoryError) or _SHORTAGE.search(str(error)):
            return True
        if isinstance(error, OSError) and error.errno in {errno.ENOMEM, errno.EAGAIN}:
            return not isinstance(error, BlockingIOError)
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def shortage_text() -> str:
    """What to tell the user when memory has run out."""
    allowed = address_space_mb()
    limit = f" ({allowed:,} MB of address space are allowed here, ulimit -v)" if allowed else ""
    return (
        f"the memory of this machine was not enough{limit}: run again with -j 1, close other "
        "programs, or ask the batch system for more memory; finished work is kept"
    )
