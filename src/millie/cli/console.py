"""What the command line shows: progress bars, tables, problems.

Owns everything that is printed. Nothing a user's file contains is taken for markup.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.progress import TaskID

    from millie.pipeline import Progress
    from millie.types import Prediction, Problem


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """A bar on a terminal; plain silence in pipes and logs."""
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn())
    errors = Console(stderr=True)
    with Bars(*columns, TimeRemainingColumn(), console=errors, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def step(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield step


def say(text: str) -> None:
    """Print words that may hold anything: nothing in them is taken for markup."""
    Console(highlight=False, soft_wrap=True).print(text, markup=False)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a plain table."""
    # What a state says must not be cut where the width is small; names and reasons may wrap.
    headers = [Column(name, no_wrap=name == "state") for name in columns]
    shown = Table(*headers, title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        shown.add_row(*(Text(str(cell)) for cell in row))
    Console(highlight=False).print(shown)
    say("")


def prediction_table(
    predictions: Sequence[Prediction], truth: Mapping[str, str] | None = None
) -> None:
    """Print one line a patient, with what was drawn where that is known."""
    rows = []
    for one in predictions:
        chances = "  ".join(f"{label} {p:.2f}" for label, p in one.probabilities.items())
        known = [truth.get(one.patient, "")] if truth else []
        rows.append([one.patient, *known, one.state, chances, str(one.n_cells), *one.reasons[:1]])
    columns = ["patient", *(["truth"] if truth else []), "state", "probability", "cells", "reason"]
    table("For research use only", columns, rows)


def list_problems(problems: Sequence[Problem], *, every: bool = False) -> bool:
    """Name what could not be used; True if that is more than notes."""
    failures = [p for p in problems if not p.note]
    notes = [p for p in problems if p.note]
    _list("What could not be used, and what to do:", failures, None if every else 20)
    _list("To be known:", notes, None if every else 5)
    return bool(failures)


def _list(title: str, problems: Sequence[Problem], most: int | None) -> None:
    if problems:
        say(f"\n{title}")
    for p in problems[:most]:
        where = "  ".join(filter(None, (p.patient, p.source)))
        say(f"  {where}\n      {p.error}: {p.message.removeprefix(f'{p.source}: ')}")
    if most is not None and len(problems) > most:
        say(f"... and {len(problems) - most} more (--all-problems)")


def complain(message: str) -> None:
    """Print why the command could not run."""
    words = Text("millie: ", style="bold red").append(message, style="default")
    Console(stderr=True, soft_wrap=True).print(words)
