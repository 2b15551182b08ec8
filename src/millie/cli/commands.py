"""The command line: words -> configuration -> one pipeline call -> exit code.

Heavy modules are imported inside the commands, so that ``millie --help`` answers at once. What the
words mean is ``options``, how a command ends is ``exits``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

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


@app.callback()
def before_each_command(context: typer.Context) -> None:
    """Refuse under a launcher what several processes would do several times."""
    if os.environ.get("WORLD_SIZE", "1") != "1":  # torch is imported only where it may be needed
        from millie.learning.parallel import check_alone

        check_alone(str(context.invoked_subcommand))


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
    from millie.cli import console as show

    with show.progress_bars() as progress:
        result = drawn.run(
            out, patients, seed, chosen_config(config, "default", settings), progress
        )
    show.prediction_table(result.prediction.predictions, result.truth)
    show.say("\nCross-validation on drawn films (shows that it runs, not how well):")
    for line in result.study.lines:
        show.say(f"  {line}")
    show.say(f"Study report     {result.study.report}")
    show.say(f"Patients' report {result.prediction.report}")
    if open_report:
        typer.launch(result.prediction.report.resolve().as_uri())
    finish(result.prediction.problems)


@app.command()
def prepare(
    dataset: Annotated[
        str, typer.Argument(help="Name of a published data set; `millie datasets` lists them.")
    ],
    root: Annotated[Path, typer.Option("--root", help="Folder that holds the data set.")],
    out: Annotated[Path, typer.Option("--out", help="Manifest to write (CSV).")],
    every: Verbose = False,
) -> None:
    """Read a published data set in its own layout and write a manifest.

    The manifest (columns patient, label, path, ...) is what `millie segment` reads; write your
    own for your own images, only those three columns are needed.
    """
    from millie import pipeline
    from millie.cli import console as show

    cohort = pipeline.prepare(dataset, root, out)
    counts = dict.fromkeys(cohort.labels, 0)
    for patient in cohort.patients:
        if patient.label is not None:
            counts[patient.label] += 1
    images = sum(len(p.images) for p in cohort.patients)
    named = ", ".join(f"{n} {label}" for label, n in counts.items())
    show.say(f"{len(cohort.patients)} patients ({named}), {images} images -> {out}")
    finish(cohort.problems, every=every)


@app.command()
def datasets(
    name: Annotated[str, typer.Argument(help="One set, to have it explained.")] = "",
) -> None:
    """List the published data sets that `millie prepare` reads, or explain one."""
    from millie.cli import console as show
    from millie.readers.datasets import explain, listing

    if name:
        show.say(explain(name))
    else:
        show.table("Published data sets (millie datasets NAME)", ("name", "what"), listing())


@app.command()
def detect(
    images: Annotated[
        list[Path], typer.Argument(help="Images of fields or single cells, or folders of them.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Table to write, one row a cell (CSV); otherwise OVERLAY/cells.csv."
        ),
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option("--overlay", help="Folder for pictures with what was found.")
    ] = None,
    config: ConfigFile = None,
    profile: Profile = "default",
    settings: Settings = None,
    every: Verbose = False,
) -> None:
    """Find the leukocytes in images.

    The pictures show each cell outlined in blue and its nucleus in yellow.

    Columns: source, x_px, y_px, left_px, top_px, width_px, height_px, area_px, in full-resolution
    pixels of each file as named here.
    """
    from millie import pipeline
    from millie.cli import console as show

    table = table_path(out, overlay)
    chosen = chosen_config(config, profile, settings)
    with show.progress_bars() as progress:
        summary = pipeline.detect(images, table, chosen, overlay, progress)
    show.say(f"{summary.n_cells} cells in {summary.done} images -> {table}")
    finish(summary.problems, every=every)


@app.command()
def segment(
    manifest: Annotated[Path, typer.Argument(help="Manifest (CSV) or a patient's folder.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the bag store.")],
    config: ConfigFile = None,
    profile: Profile = "default",
    settings: Settings = None,
    workers: Workers = None,
    engine: EngineName = "process",
    engine_address: EngineAddress = None,
    part: Shard = "0/1",
    every: Verbose = False,
) -> None:
    """Cut every patient's cells out of the images into a bag store.

    Interrupted? Run the same command again: finished patients are skipped.
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
    again = f" ({summary.skipped} done before)" if summary.skipped else ""
    patients = summary.done + summary.skipped
    show.say(f"{patients} patients{again}, {summary.n_cells} cells -> {out}")
    finish(summary.problems, every=every)


@app.command()
def train(
    store: Annotated[Path, typer.Argument(help="Bag store made by `millie segment`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the bundle to write.")],
    name: Annotated[str, typer.Option("--name", help="Name of the model.")] = "",
    study: Annotated[
        Path | None,
        typer.Option("--study", help="Output of `crossval` with these settings, for the card."),
    ] = None,
    config: ConfigFile = None,
    profile: Profile = "default",
    settings: Settings = None,
) -> None:
    """Train on every labelled patient of a store and write a model bundle.

    Threshold and calibration come from a cross-validation inside the training patients. How well
    the model works on new patients is what `millie crossval` measures.
    """
    from millie import pipeline
    from millie.cli import console as show

    chosen = chosen_config(config, profile, settings)
    with show.progress_bars() as progress:
        folder = pipeline.train(store, out, chosen, name, study, progress)
    if os.environ.get("RANK", "0") == "0":  # of several training processes the first one speaks
        show.say(f"Bundle -> {folder}\nUse it: millie predict {folder} INPUT... --out DIR")


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
    finish(result.problems)


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
    engine: EngineName = "process",
    engine_address: EngineAddress = None,
    every: Verbose = False,
) -> None:
    """Call each patient and show the cells that made the call.

    Writes predictions.csv, cells.csv, predictions.json, overlays/ and report.html. A folder of
    images without any label is enough. For research use only.
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
    show.prediction_table(result.predictions)
    show.say(f"Report -> {result.report}")
    finish(result.problems, every=every)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Output of `crossval` or `predict`.")],
) -> None:
    """Write the HTML report of a finished run again, from its files."""
    from millie.cli import console as show
    from millie.outputs.report import write_report

    show.say(f"Report -> {write_report(folder)}")


@app.command()
def reproduce(
    name: Annotated[
        str, typer.Argument(help="all-aml-normal, apl-blood, apl-aml, marrow or pooling.")
    ],
    data: Annotated[Path, typer.Option("--data", help="Folder of the published data sets.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for tables, figures, report.")],
    folds: Annotated[
        int | None, typer.Option("--folds", min=2, help="Default: the paper's.")
    ] = None,
    repeats: Annotated[int | None, typer.Option("--repeats", min=1, help="Default 1.")] = None,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Also curves over blur, JPEG, hue, scale, cells.")
    ] = False,
    config: ConfigFile = None,
    profile: Profile = "default",
    settings: Settings = None,
) -> None:
    """Repeat an experiment of the paper and set the figures beside the printed ones.

    With part of the data it runs what can be run and says what is missing.
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
    finish(result.problems)


@app.command()
def models() -> None:
    """List shipped models, encoders, aggregators and settings profiles."""
    from millie.cli import console as show
    from millie.cli.doctor import installed

    for title, columns, rows in installed():
        show.table(title, columns, rows)


@app.command()
def doctor() -> None:
    """Check that this machine can run millie, and say what to do where it can't.

    Ends with exit code 1 if a check failed.
    """
    from millie.cli import console as show
    from millie.cli.doctor import checks

    found = checks()
    show.table(
        "millie doctor", ("check", "state", "found"), [(c.name, c.state, c.text) for c in found]
    )
    end_with(failed=any(c.state == "fail" for c in found))


def main() -> None:
    """Entry point of the ``millie`` command."""
    with explained():
        app(standalone_mode=True)
