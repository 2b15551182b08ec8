"""How a command ends: its exit code, and one message instead of a traceback.

Exit codes: 0 success; 1 something could not be used (it is listed) and the rest went on; 2 the
command could not run at all; 3 an alarm (of ``monitor``, ``audit verify`` or ``restore``; ``models
compare`` did not show that a new model is as good, or ``validate`` found a criterion not met or not
tested); 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

from millie.engines.memory import is_shortage, shortage_text
from millie.errors import MillieError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from millie.types import Problem

_SOME_FAILED, _CANNOT_RUN, _ALARM = 1, 2, 3
_INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it and as typer gives it."""


@contextmanager
def explained() -> Iterator[None]:
    """Say in one message why a command could not run, and end with its code.

    Raises:
        SystemExit: always, once the command has ended.
    """
    try:
        yield
    except MillieError as error:
        short = [shortage_text()] if is_shortage(error) else []
        _fail("; ".join([str(error), *getattr(error, "__notes__", ()), *short]))
    except OSError as error:
        if is_shortage(error):
            _fail(shortage_text())
        named = f"cannot write or read {error.filename}: " if error.filename else ""
        _fail(
            f"{named}{error.strerror or error}; check the path, free space and permissions, then "
            "run the same command again: finished work is kept"
        )
    except Exception as error:
        if not is_shortage(error):
            raise
        _fail(shortage_text())
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            _complain("interrupted; run the same command again to continue where it stopped")
        raise


def finish(problems: Sequence[Problem], *, every: bool = False, lenient: bool = False) -> None:
    """List what could not be used, and notes.

    Args:
        problems: of the run.
        every: name each, sum up none.
        lenient: files that could not be used are no failure, patients without a result are.

    Raises:
        Exit: with 1, if a file or a patient could not be used.
    """
    from millie.cli.console import list_problems

    lost = list_problems(problems, every=every)
    end_with(failed=lost and not (lenient and not any(p.fatal for p in problems)))


def end_with(*, failed: bool) -> None:
    """End a command.

    Raises:
        Exit: with 1, if something failed.
    """
    if failed:
        raise typer.Exit(_SOME_FAILED)


def end_with_alarm() -> NoReturn:
    """End so that a script sees an alarm, whatever else failed; see the module for whose.

    Raises:
        Exit: with 3.
    """
    raise typer.Exit(_ALARM)


def _fail(message: str) -> None:
    _complain(message)
    sys.exit(_CANNOT_RUN)


def _complain(message: str) -> None:
    from millie.cli.console import complain

    complain(message)
