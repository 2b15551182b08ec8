"""The command on many runs: how the calls develop over time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millie.cli.app import app
from millie.cli.exits import end_with_alarm, finish
from millie.cli.options import Verbose

if TYPE_CHECKING:
    from collections.abc import Sequence


@app.command()
def monitor(
    runs: Annotated[
        list[Path], typer.Argument(help="Output folders of `millie predict`.", metavar="RUN...")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for page and tables.")],
    baseline: Annotated[
        int | None,
        typer.Option(
            "--baseline",
            min=0,
            help="The first N runs are what later ones are compared with (default: 1; with "
            "--expected 0).",
            show_default=False,
        ),
    ] = None,
    expected: Annotated[
        list[str] | None,
        typer.Option(
            "--expected",
            metavar="STATE=RATE",
            help="A rate that is known, as INDETERMINATE=0.1. Repeatable.",
            show_default=False,
        ),
    ] = None,
    level: Annotated[
        float, typer.Option("--level", help="Probability of a false alarm of each kind.")
    ] = 0.05,
    trained_on: Annotated[
        Path | None,
        typer.Option(
            "--trained-on",
            help="Bag store that the model was trained on: its patients are noted.",
            show_default=False,
        ),
    ] = None,
    every: Verbose = False,
) -> None:
    """Compare runs of `predict` over time and raise an alarm where calls have changed.

    For example: millie monitor calls/2026-* --baseline 3 --out monitor

    Runs of one model are sorted by time; each patient counts once. Rates of
    each state and reason are tested against the first runs (--baseline) or
    against known rates (--expected); scores and images against the first runs,
    and by an online test that may be looked at after every run. Runs of
    different models, or with different settings, are never mixed.

    Writes report.html, rates.csv, patients.csv and monitor.json. An alarm says
    that something has changed, not which calls are wrong. Exit code 0: no
    alarm. 1: no alarm, but a run could not be used. 2: nothing could be
    compared. 3: an alarm.
    """
    from millie import pipeline
    from millie.cli import console as show

    rates = rates_of(expected or [])
    found = pipeline.monitor(list(runs), out, baseline, rates, level, trained_on)
    for line in found.lines:
        show.say(line)
    for line in found.alarms:
        show.say(f"ALARM  {line}")
    if not found.alarms:
        show.say("No alarm.")
    show.say(f"Report -> {found.report}")
    if found.alarms:
        show.list_problems(found.problems, every=every)
        end_with_alarm()
    finish(found.problems, every=every)


def rates_of(words: Sequence[str]) -> dict[str, float]:
    """Rates by state of ``STATE=RATE``.

    Raises:
        BadParameter: one is not of that form.
    """
    found: dict[str, float] = {}
    for word in words:
        state, _, share = word.partition("=")
        try:
            found[state.strip()] = float(share)
        except ValueError as error:
            raise typer.BadParameter(
                f"--expected {word}: expected STATE=RATE, for example INDETERMINATE=0.1"
            ) from error
    return found
