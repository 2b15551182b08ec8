"""The command line: arguments -> configuration -> one pipeline call -> exit code.

Heavy modules are imported inside the commands, so that ``millie --help`` answers at once. What the
options mean is in ``options``, how a command ends in ``exits``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from millie import __version__
from millie.cli.exits import end_with, explained, finish
from millie.cli.options import (
    ConfigFile,
    EngineAddress,
    EngineName,
    Profile,
    Settings,
    Shard,
    Verbose,
    Workers,
    chosen_config,
    shard_of,
    table_path,
)
from millie.engines.launchers import check_alone

app = typer.Typer(
    name="millie",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Call leukaemia from images of blood films and bone marrow, with the cells behind each "
    "call.\n\nTrained on patients' diagnoses alone. [bold]For research use only.[/bold]\n\n"
    "Getting started: [cyan]millie demo[/cyan] runs everything on synthetic blood films; "
    "[cyan]millie predict apl-blood FOLDER --out OUT[/cyan] calls the patient whose images are in "
    "FOLDER.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from millie.cli import console as show

        show.say(f"millie {__version__}")
        raise typer.Exit


@app.callback()
def before_each_command(
    context: typer.Context,
    _: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Refuse under a launcher what several processes would do several times."""
    check_alone(str(context.invoked_subcommand))


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
    show.prediction_table(calls.predictions, calls.problems, result.truth)
    show.say("Cross-validation on synthetic films (shows that it runs, not how well):")
    for line in result.study.lines:
        show.say(f"  {line}")
    show.say(f"Study report   -> {result.study.report}")
    show.say(f"Patient report -> {calls.report}")
    if open_report:
        typer.launch(calls.report.resolve().as_uri())
    finish(calls.problems, every=every)


@app.command()
def prepare(
    dataset: Annotated[
        str, typer.Argument(help="Name of a published data set; see `millie datasets`.")
    ],
    root: Annotated[Path, typer.Option("--root", help="Folder of the data set.")],
    out: Annotated[Path, typer.Option("--out", help="Manifest to write (CSV).")],
    every: Verbose = False,
) -> None:
    """Write a manifest for a published data set.

    The manifest (columns patient, label, path, ...) is what `millie segment`
    reads. For your own images, write one yourself; only these three columns
    are needed.
    """
    from millie import pipeline
    from millie.cli import console as show

    cohort = pipeline.prepare(dataset, root, out)
    counts = dict.fromkeys(cohort.labels, 0)
    for patient in cohort.patients:
        if patient.label is not None:
            counts[patient.label] += 1
    images = sum(len(p.images) for p in cohort.patients)
    named = ", ".join(f"{n:,} {label}" for label, n in counts.items()) or "no diagnoses"
    show.say(f"{len(cohort.patients):,} patients ({named}), {images:,} images -> {out}")
    finish(cohort.problems, every=every)


@app.command()
def datasets(
    name: Annotated[str, typer.Argument(help="A data set to describe in full.")] = "",
) -> None:
    """List the published data sets that `millie prepare` can read, or describe one."""
    from millie.cli import console as show
    from millie.readers.datasets import explain, listing

    if name:
        show.say(explain(name))
    else:
        title = "Published data sets (details: millie datasets NAME)"
        show.table(title, ("name", "content"), listing())


@app.command()
def detect(
    images: Annotated[
        list[Path], typer.Argument(help="Images (fields or single cells), or folders of images.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Table to write, one row per cell (CSV); default: OVERLAY/cells.csv."
        ),
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option("--overlay", help="Folder for images with the cells outlined.")
    ] = None,
    config: ConfigFile = None,
    profile: Profile = "default",
    settings: Settings = None,
    every: Verbose = False,
) -> None:
    """Find the leukocytes in images.

    --overlay outlines each cell in blue and its nucleus in yellow.

    Columns of the table: source, x_px, y_px, left_px, top_px, width_px,
    height_px, area_px, in pixels of the full-resolution image.
    """
    from millie import pipeline
    from millie.cli import console as show

    table = table_path(out, overlay)
    chosen = chosen_config(config, profile, settings)
    with show.progress_bars() as progress:
        summary = pipeline.detect(images, table, chosen, overlay, progress)
    show.say(f"{summary.n_cells:,} cells in {summary.done:,} images -> {table}")
    finish(summary.problems, every=every)


@app.command()
def segment(
    manifest: Annotated[Path, typer.Argument(help="Manifest (CSV), or one patient's folder.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the bag store.")],
    config: ConfigFile = None,
    profile: Profile = "default",
    settings: Settings = None,
    workers: Workers = None,
    engine: EngineName = "process",
    engine_address: EngineAddress = None,
    part: Shard = "0/1",
    every: Verbose = False,
) -> None:
    """Find every patient's leukocytes and store their crops as bags.

    If interrupted, run the same command again: finished patients are skipped.
    """
    from millie import pipeline
    from millie.cli import console as show
    from millie.engines.table import open_engine

    chosen = chosen_config(config, profile, settings)
    cohort = pipeline.read_cohort([manifest])
    with (
        open_engine(engine, engine_address, workers, out) as opened,
        show.progress_bars() as progress,
    ):
        summary = pipeline.segment(cohort, out, chosen, opened, shard_of(part), progress)
    again = f" ({summary.skipped:,} already done)" if summary.skipped else ""
    patients = summary.done + summary.skipped
    show.say(f"{patients:,} patients{again}, {summary.n_cells:,} cells -> {out}")
    finish(summary.problems, every=every)


@app.command()
def train(
    store: Annotated[Path, typer.Argument(help="Bag store made by `millie segment`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the model bundle.")],
    name: Annotated[str, typer.Option("--name", help="Name of the model.")] = "",
    study: Annotated[
        Path | None,
        typer.Option(
            "--study", help="Output of `crossval` with these settings, for the model card."
        ),
    ] = None,
    config: ConfigFile = None,
    profile: Profile = "default",
    settings: Settings = None,
) -> None:
    """Train a model on every labelled patient of a store.

    Threshold and calibration come from a cross-validation within the training
    patients. To measure how well new patients are called, use `millie crossval`.
    """
    from millie import pipeline
    from millie.cli import console as show

    chosen = chosen_config(config, profile, settings)
    with show.progress_bars() as progress:
        trained = pipeline.train(store, out, chosen, name, study, progress)
    if os.environ.get("RANK", "0") == "0":  # of several training processes the first one speaks
        show.say(
            f"Model -> {trained.out}\nTo use it: millie predict {trained.out} INPUT... --out DIR"
        )
        finish(trained.problems)


@app.command()
def crossval(
    store: Annotated[Path, typer.Argument(help="Bag store made by `millie segment`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for figures, tables and report.")],
    folds: Annotated[
        int | None, typer.Option("--folds", min=2, help="Number of folds (default 3).")
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option("--repeats", min=1, help="Repeats, each with new folds (default 1)."),
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="Also measure what confounders alone achieve.")
    ] = False,
    config: ConfigFile = None,
    profile: Profile = "default",
    settings: Settings = None,
    every: Verbose = False,
) -> None:
    """Cross-validate: measure performance on patients not used for training.

    Folds are split by patient and stratified by diagnosis; thresholds are set
    within the training part. If interrupted, run the same command again:
    finished folds are kept.
    """
    from millie import pipeline
    from millie.cli import console as show

    words = list(settings or [])
    words += [f"evaluation.folds={folds}"] if folds else []
    words += [f"evaluation.repeats={repeats}"] if repeats else []
    chosen = chosen_config(config, profile, words)
    with show.progress_bars() as progress:
        result = pipeline.crossval(store, out, chosen, controls=controls, progress=progress)
    for line in result.lines:
        show.say(line)
    show.say(f"Report -> {result.report}")
    finish(result.problems, every=every)


@app.command()
def predict(
    bundle: Annotated[
        str, typer.Argument(help="Model: folder of a bundle, or the name of a shipped one.")
    ],
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Patient folders, images, one manifest, or one bag store."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for tables, images and report.")],
    config: ConfigFile = None,
    settings: Settings = None,
    workers: Workers = None,
    engine: EngineName = "process",
    engine_address: EngineAddress = None,
    every: Verbose = False,
) -> None:
    """Call each patient and show the cells behind the call.

    Writes predictions.csv, cells.csv, predictions.json, overlays/ and
    report.html. No labels are needed. For research use only.
    """
    from millie import pipeline
    from millie.cli import console as show
    from millie.engines.table import open_engine

    words = list(settings or [])
    with (
        open_engine(engine, engine_address, workers, out) as opened,
        show.progress_bars() as progress,
    ):
        result = pipeline.predict(bundle, inputs, out, config, words, opened, progress)
    show.prediction_table(result.predictions, result.problems)
    show.say(f"Report -> {result.report}")
    finish(result.problems, every=every)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Output of `crossval` or `predict`.")],
) -> None:
    """Rewrite the HTML report of a finished run from its files."""
    from millie.cli import console as show
    from millie.outputs.report import write_report

    show.say(f"Report -> {write_report(folder)}")


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
def models() -> None:
    """List models, encoders, aggregators and settings profiles."""
    from millie.cli import console as show
    from millie.cli.doctor import installed

    for title, columns, rows in installed():
        show.table(title, columns, rows)


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


def main() -> None:
    """Entry point of the ``millie`` command."""
    with explained():
        app(standalone_mode=True)
