"""What the command line shows: progress bars, tables, problems.

Owns everything that is printed. Nothing in a user's file is taken for markup or for a control
sequence of the terminal. Lines are wrapped at words on a terminal (or at ``COLUMNS``) and left
whole in pipes and logs.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from millie.cli.calls import call_lines
from millie.cli.lines import Line, printable, wrapped
from millie.cli.problems import failures, notes
from millie.outputs.patient.records import results_of
from millie.types import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.progress import TaskID

    from millie.cli.problems import Listing
    from millie.pipeline import Progress
    from millie.types import Prediction, Problem

_UNLIMITED = 100_000
"""Columns of a pipe or a log."""


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """A bar on a terminal; silence in pipes and logs."""
    words = TextColumn("{task.description:<14}", markup=False)
    columns = (words, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def step(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield step


def say(text: str) -> None:
    """Print words that may hold anything, as they are."""
    _print("\n".join(map(printable, text.split("\n"))))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a plain table."""
    # What a state says must not be cut where the width is small; names and reasons may wrap.
    headers = [Column(name, no_wrap=name == "state") for name in columns]
    shown = Table(*headers, title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        shown.add_row(*(Text(printable(str(cell))) for cell in row))
    Console(highlight=False, width=_width()).print(shown)
    say("")


def prediction_table(
    predictions: Sequence[Prediction],
    problems: Sequence[Problem] = (),
    truth: Mapping[str, str] | None = None,
    remarks: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Print the rows of ``predictions.csv``, beside the true diagnosis where that is known."""
    lines = call_lines(results_of(predictions, problems), truth, _width(), remarks)
    _print("\n".join([RESEARCH_USE_ONLY, "", *lines, ""]))


def list_problems(problems: Sequence[Problem], *, every: bool = False) -> bool:
    """Print what could not be used, then notes; True if there is more than notes."""
    lost, known = failures(problems, every=every), notes(problems, every=every)
    _list("Could not be used", lost)
    _list("Notes", known)
    if not (lost.complete and known.complete):
        say("\n--all-problems lists every file.")
    return bool(lost.lines)


def complain(message: str) -> None:
    """Print why the command could not run."""
    lines = wrapped(Line(f"millie: {message}", 0), _width(error=True))
    words = Text("\n".join(lines))
    words.stylize("bold red", 0, len("millie:"))
    Console(stderr=True, soft_wrap=True).print(words)


def _list(title: str, listing: Listing) -> None:
    if listing.lines:
        width = _width()
        lines = [text for line in listing.lines for text in wrapped(line, width)]
        _print("\n".join(["", title, *lines]))


def _print(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(text, markup=False)


def _width(*, error: bool = False) -> int:
    console = Console(stderr=error)
    return console.width if console.is_terminal or "COLUMNS" in os.environ else _UNLIMITED
