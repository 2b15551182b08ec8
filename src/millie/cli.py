"""The command line: words -> configuration -> one pipeline call -> exit code.

Exit codes: 0 all well; 1 something failed (named in the table) while the rest went on; 2 the
command could not run at all. Heavy modules are imported inside the commands, so that
``millie --help`` answers at once.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from millie.errors import MillieError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.console import Console

    from millie.config import Config
    from millie.engine import Engine
    from millie.pipeline import Progress
    from millie.types import Prediction, Problem

app = typer.Typer(
    name="millie",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Leukaemia calls from images of blood films and bone marrow, with the cells behind each "
    "call.\n\nTrained on patients' diagnoses alone. [bold]For research use only.[/bold]\n\n"
    "First steps: [cyan]millie demo[/cyan] runs everything on drawn blood films; "
    "[cyan]millie predict apl-blood FOLDER --out OUT[/cyan] calls the patient whose images lie "
    "in FOLDER.",
)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file; tables are stages.", show_default=False)
]
Profile = Annotated[
    str, typer.Option("--profile", help="Named settings: default, paper, released-code.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="One setting: stage.field=value. May be repeated.", show_default=False
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", "-j", min=1, help="Processes; default: one a core."),
]
Verbose = Annotated[bool, typer.Option("--all-problems", help="List every problem, not 20.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything.")] = Path(
        "millie-demo"
    ),
    patients: Annotated[
        int, typer.Option("--patients", min=4, help="Patients of each of the four classes.")
    ] = 8,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    config: ConfigFile = None,
    settings: Settings = None,
    open_report: Annotated[bool, typer.Option("--open", help="Open the report.")] = False,
) -> None:
    """Draw a cohort (normal, ALL, AML, APL), run the whole method on it, name the report.

    The blood films are synthetic: the numbers show that the method runs, not how well it works on
    patients.
    """
    from millie import demo as drawn

    with _progress() as progress:
        result = drawn.run(out, patients, seed, _config(config, "default", settings), progress)
    _prediction_table(result.prediction.predictions, result.truth)
    console = _console()
    console.print("\nCross-validation on drawn films (shows that it runs, not how well):")
    for line in result.study.lines:
        console.print(f"  {line}")
    console.print(f"Study report     {result.study.report}")
    console.print(f"Patients' report {result.prediction.report}")
    if open_report:
        typer.launch(result.prediction.report.resolve().as_uri())
    _finish(result.prediction.problems)


@app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help="Name of a published data set: apl_aml.")],
    root: Annotated[Path, typer.Option("--root", help="Folder that holds the data set.")],
    out: Annotated[Path, typer.Option("--out", help="Manifest to write (CSV).")],
    every: Verbose = False,
) -> None:
    """Read a published data set in its own layout and write a manifest.

    The manifest (columns patient, label, path, ...) is what `millie segment` reads; write your
    own for your own images, only those three columns are needed.
    """
    from millie import pipeline

    cohort = pipeline.prepare(dataset, root, out)
    counts = dict.fromkeys(cohort.labels, 0)
    for patient in cohort.patients:
        if patient.label is not None:
            counts[patient.label] += 1
    images = sum(len(p.images) for p in cohort.patients)
    named = ", ".join(f"{n} {label}" for label, n in counts.items())
    _console().print(f"{len(cohort.patients)} patients ({named}), {images} images -> {out}")
    _finish(cohort.problems, every=every)


@app.command()
def detect(
    images: Annotated[list[Path], typer.Argument(help="Images of fields or single cells.")],
    out: Annotated[Path, typer.Option("--out", help="Table to write, one row a cell (CSV).")],
    overlay: Annotated[
        Path | None, typer.Option("--overlay", help="Folder for pictures with what was found.")
    ] = None,
    config: ConfigFile = None,
    profile: Profile = "default",
    settings: Settings = None,
    every: Verbose = False,
) -> None:
    """Find the leukocytes in images.

    Columns: source, x_px, y_px, left_px, top_px, width_px, height_px, area_px, in full-resolution
    pixels of each file as named here.
    """
    from millie import pipeline

    chosen = _config(config, profile, settings)
    with _progress() as progress:
        summary = pipeline.detect(images, out, chosen, overlay, progress)
    _console().print(f"{summary.n_cells} cells in {summary.done} images -> {out}")
    _finish(summary.problems, every=every)


@app.command()
def segment(
    manifest: Annotated[Path, typer.Argument(help="Manifest (CSV) or a patient's folder.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the bag store.")],
    config: ConfigFile = None,
    profile: Profile = "default",
    settings: Settings = None,
    workers: Workers = None,
    part: Annotated[
        str, typer.Option("--shard", help="Part i/n of the patients, i from 0, for job arrays.")
    ] = "0/1",
    every: Verbose = False,
) -> None:
    """Cut every patient's cells out of the images into a bag store.

    Interrupted? Run the same command again: finished patients are skipped.
    """
    from millie import pipeline

    chosen = _config(config, profile, settings)
    with _progress() as progress:
        summary = pipeline.segment(
            pipeline.read_cohort([manifest]), out, chosen, _engine(workers), _part(part), progress
        )
    again = f" ({summary.skipped} done before)" if summary.skipped else ""
    patients = summary.done + summary.skipped
    _console().print(f"{patients} patients{again}, {summary.n_cells} cells -> {out}")
    _finish(summary.problems, every=every)


@app.command()
def train(
    store: Annotated[Path, typer.Argument(help="Bag store made by `millie segment`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the bundle to write.")],
    name: Annotated[str, typer.Option("--name", help="Name of the model.")] = "",
    config: ConfigFile = None,
    profile: Profile = "default",
    settings: Settings = None,
) -> None:
    """Train on every labelled patient of a store and write a model bundle.

    Threshold and calibration come from a cross-validation inside the training patients. How well
    the model works on new patients is what `millie crossval` measures.
    """
    from millie import pipeline

    chosen = _config(config, profile, settings)
    with _progress() as progress:
        folder = pipeline.train(store, out, chosen, name, progress)
    _console().print(f"Bundle -> {folder}\nUse it: millie predict {folder} INPUT... --out DIR")


@app.command()
def crossval(
    store: Annotated[Path, typer.Argument(help="Bag store made by `millie segment`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for numbers and the report.")],
    folds: Annotated[int | None, typer.Option("--folds", min=2, help="Folds; default 3.")] = None,
    repeats: Annotated[
        int | None, typer.Option("--repeats", min=1, help="Repeats with new folds; default 1.")
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="Also what a confounder alone would reach.")
    ] = False,
    config: ConfigFile = None,
    profile: Profile = "default",
    settings: Settings = None,
) -> None:
    """Measure how well patients that were not trained on are called.

    Folds are split by patient and stratified by diagnosis; thresholds are fixed inside the
    training part. Interrupted? Run the same command again: finished folds are kept.
    """
    from millie import pipeline

    words = list(settings or [])
    words += [f"evaluation.folds={folds}"] if folds else []
    words += [f"evaluation.repeats={repeats}"] if repeats else []
    chosen = _config(config, profile, words)
    with _progress() as progress:
        result = pipeline.crossval(store, out, chosen, controls=controls, progress=progress)
    for line in result.lines:
        _console().print(line)
    _console().print(f"Report -> {result.report}")
    _finish(result.problems)


@app.command()
def predict(
    bundle: Annotated[str, typer.Argument(help="Folder of a bundle, or a shipped name.")],
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Patients' folders, images, one manifest, or one bag store."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for tables, pictures, report.")],
    config: ConfigFile = None,
    settings: Settings = None,
    workers: Workers = None,
    every: Verbose = False,
) -> None:
    """Call each patient and show the cells that made the call.

    Writes predictions.csv, cells.csv, predictions.json, overlays/ and report.html. A folder of
    images without any label is enough. For research use only.
    """
    from millie import pipeline

    with _progress() as progress:
        result = pipeline.predict(
            bundle, inputs, out, config, list(settings or []), _engine(workers), progress
        )
    _prediction_table(result.predictions)
    _console().print(f"Report -> {result.report}")
    _finish(result.problems, every=every)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Output of `crossval` or `predict`.")],
) -> None:
    """Write the HTML report of a finished run again, from its files."""
    from millie.outputs.report import write_report

    _console().print(f"Report -> {write_report(folder)}")


@app.command()
def models() -> None:
    """List shipped models, encoders, aggregators and settings profiles."""
    from millie import survey

    for title, columns, rows in survey.models():
        _table(title, columns, rows)


@app.command()
def doctor() -> None:
    """Check that this machine can run millie, and say what to do where it can't."""
    from millie import survey

    checks = survey.checks()
    _table(
        "millie doctor", ("check", "state", "found"), [(c.name, c.state, c.text) for c in checks]
    )
    if any(c.state == "fail" for c in checks):
        raise typer.Exit(1)


def main() -> None:
    """Entry point of the ``millie`` command."""
    try:
        app(standalone_mode=True)
    except MillieError as error:
        _fail(f"{type(error).__name__}: {error}")
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename or ''} (disk full, or no permission?)")
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to go on where it stopped")


def _fail(message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text("millie: ", style="bold red").append(message, style="default"))
    sys.exit(2)


def _config(file: Path | None, profile: str, words: Sequence[str] | None) -> Config:
    from millie.config import load

    return load(file, profile).with_settings(list(words or []))


def _engine(workers: int | None) -> Engine:
    from millie.engine import ProcessEngine

    return ProcessEngine(workers)


def _part(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit()):
        raise typer.BadParameter(f"--shard {text}: expected i/n, for example 0/4")
    return int(index), int(count)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal; plain silence in pipes and logs."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def step(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield step


def _say(text: str) -> None:
    """Print words that may hold anything: nothing in them is taken for markup."""
    _console().print(text, markup=False)


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    _console().print(table)


def _prediction_table(
    predictions: Sequence[Prediction], truth: Mapping[str, str] | None = None
) -> None:
    rows = []
    for one in predictions:
        chances = "  ".join(f"{label} {p:.2f}" for label, p in one.probabilities.items())
        known = [truth.get(one.patient, "")] if truth else []
        rows.append([one.patient, *known, one.state, chances, str(one.n_cells), *one.reasons[:1]])
    columns = ["patient", *(["truth"] if truth else []), "state", "probability", "cells", "reason"]
    _table("For research use only", columns, rows)


def _finish(problems: Sequence[Problem], *, every: bool = False) -> None:
    """Name what could not be used; exit code 1 if that is more than notes."""
    failures = [p for p in problems if not p.note]
    notes = len(problems) - len(failures)
    shown = problems if every else failures[:20]
    if shown:
        _console().print("\nWhat could not be used, and what to do:")
    for p in shown:
        where = "  ".join(filter(None, (p.patient, p.source)))
        _say(f"  {where}\n      {p.error}: {p.message.removeprefix(f'{p.source}: ')}")
    if len(failures) > len(shown):
        _console().print(f"... and {len(failures) - len(shown)} more (--all-problems)")
    if notes and not every:
        _console().print(f"{notes} notes on the data (--all-problems lists them)")
    if failures:
        raise typer.Exit(1)
