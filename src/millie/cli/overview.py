"""Commands that show: the demonstration, the paper's experiments, what is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millie.cli.app import app
from millie.cli.exits import end_with, finish
from millie.cli.options import (
    ConfigFile,
    Profile,
    Settings,
    Verbose,
    chosen_config,
)

if TYPE_CHECKING:
    from millie.types import Problem


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Output folder.")] = Path("millie-demo"),
    patients: Annotated[
        int, typer.Option("--patients", min=4, help="Patients per class (four classes).")
    ] = 8,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed; the same seed gives the same films.")
    ] = 0,
    config: ConfigFile = None,
    settings: Settings = None,
    open_report: Annotated[bool, typer.Option("--open", help="Open the report.")] = False,
    every: Verbose = False,
) -> None:
    """Run the whole method on synthetic blood films (normal, ALL, AML, APL).

    The figures show that the method runs, not how well it works on patients.
    """
    from millie import demo as drawn
    from millie.cli import console as show

    with show.progress_bars() as progress:
        result = drawn.run(
            out, patients, seed, chosen_config(config, "default", settings), progress
        )
    calls = result.prediction
    show.prediction_table(calls.predictions, calls.problems, result.truth, calls.remarks)
    show.say("Cross-validation on synthetic films (shows that it runs, not how well):")
    for line in result.study.lines:
        show.say(f"  {line}")
    show.say(f"Study report   -> {result.study.report}")
    show.say(f"Patient report -> {calls.report}")
    if open_report:
        typer.launch(calls.report.resolve().as_uri())
    finish(calls.problems, every=every)


@app.command()
def reproduce(
    name: Annotated[
        str, typer.Argument(help="all-aml-normal, apl-blood, apl-aml, marrow or pooling.")
    ],
    data: Annotated[
        Path, typer.Option("--data", help="Folder that holds the published data sets.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for tables, figures and report.")],
    folds: Annotated[
        int | None, typer.Option("--folds", min=2, help="Number of folds (default: the paper's).")
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option("--repeats", min=1, help="Repeats, each with new folds (default 1)."),
    ] = None,
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness", help="Also vary blur, JPEG quality, hue, scale and number of cells."
        ),
    ] = False,
    config: ConfigFile = None,
    profile: Profile = "default",
    settings: Settings = None,
    every: Verbose = False,
) -> None:
    """Repeat an experiment of the paper and compare with its results.

    If data sets are missing, it runs what it can and says what is missing.
    """
    from millie.cli import console as show
    from millie.engines.seam import ProcessEngine
    from millie.reproduce.command import run_experiment
    from millie.reproduce.run import Task

    chosen = chosen_config(config, profile, settings)
    task = Task(data, out, chosen, profile, robustness=robustness, engine=ProcessEngine())
    with show.progress_bars() as progress:
        result = run_experiment(name, task, folds, repeats, progress)
    for line in (*result.lines(), *result.missing):
        show.say(line)
    show.say(f"Report -> {result.report}")
    finish(result.problems, every=every)


@app.command()
def verify(
    things: Annotated[
        list[str],
        typer.Argument(
            help="Bag stores, models (folder or name), results of predict, crossval or reproduce.",
            metavar="STORE|BUNDLE|RUN...",
        ),
    ],
    every: Verbose = False,
) -> None:
    """Check that stores, models and results are still what was written.

    For example: millie verify store my-model calls

    Store: the checksum of every bag, with its label and settings. Model: the
    checksum of every file, and its golden sample (a small input whose
    probabilities are known). Results: the checksum of every file, and that the
    tables agree.

    Prints one line each. Exit code 0: all whole. 1: something is damaged; it is
    named, with what to do. 2: a name is none of these, and nothing was checked.
    """
    from millie.cli import console as show
    from millie.pipeline import verify as checks

    problems: list[Problem] = []
    for found in checks.verify(things):
        show.say(found.line())
        problems += found.problems
    finish(problems, every=every)


@app.command()
def doctor() -> None:
    """Check this installation and say how to fix what is wrong.

    Exit code 1 if a check failed.
    """
    from millie.cli import console as show
    from millie.cli.doctor import checks

    found = checks()
    show.table(
        "millie doctor", ("check", "state", "details"), [(c.name, c.state, c.text) for c in found]
    )
    end_with(failed=any(c.state == "fail" for c in found))
