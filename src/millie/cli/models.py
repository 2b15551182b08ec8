"""Commands on models: training, measuring, calling patients."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from millie.cli.app import app
from millie.cli.exits import finish
from millie.cli.options import (
    ConfigFile,
    EngineAddress,
    EngineName,
    Lenient,
    Profile,
    Pseudonyms,
    Root,
    Settings,
    Verbose,
    Workers,
    chosen_config,
)
from millie.errors import ConfigError, MissingFileError


@app.command()
def train(
    store: Annotated[
        Path, typer.Argument(help="Bag store made by `millie segment` or `import-features`.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the model bundle.")],
    name: Annotated[str, typer.Option("--name", help="Name of the model.")] = "",
    version: Annotated[
        str, typer.Option("--model-version", help="Its version, MAJOR.MINOR.PATCH.")
    ] = "1.0.0",
    study: Annotated[
        Path | None,
        typer.Option(
            "--study", help="Output of `crossval` with these settings, for the model card."
        ),
    ] = None,
    notes: Annotated[
        Path | None,
        typer.Option("--notes", help="Markdown file on the patients and limits, for the card."),
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
        trained = pipeline.train(store, out, chosen, name, study, progress, notes, version)
    if os.environ.get("RANK", "0") == "0":  # of several training processes the first one speaks
        show.say(
            f"Model -> {trained.out}\nTo use it: millie predict {trained.out} INPUT... --out DIR"
        )
        finish(trained.problems)


@app.command()
def crossval(
    store: Annotated[
        Path, typer.Argument(help="Bag store made by `millie segment` or `import-features`.")
    ],
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
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] INPUT",
            help="Patient folders, images, one manifest, or one bag store (files of vectors for a "
            "model of vectors); before them, if another model than acute-leukaemia is wanted, its "
            "name or its folder.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for tables, images and report.")],
    root: Root = None,
    operating_point: Annotated[
        str | None,
        typer.Option(
            "--operating-point",
            metavar="sensitive|balanced|specific",
            help="Where APL is called and where it is excluded (default: as the model states).",
            show_default=False,
        ),
    ] = None,
    config: ConfigFile = None,
    settings: Settings = None,
    workers: Workers = None,
    engine: EngineName = "process",
    engine_address: EngineAddress = None,
    pseudonyms: Pseudonyms = None,
    pictures: Annotated[
        Literal["none", "winners", "all"],
        typer.Option(
            "--pictures",
            help="Fields to draw with their cells boxed: those that hold evidence (winners), all, "
            "or none.",
        ),
    ] = "winners",
    lenient: Lenient = False,
    every: Verbose = False,
) -> None:
    """Call each patient and show the cells behind the call.

    Without a model's name, acute-leukaemia answers: normal, ALL, AML or APL.
    `millie predict apl-blood ...` asks another shipped one.

    --operating-point is a clinical decision. sensitive: fewest APL excluded
    wrongly, more samples for a person to read. specific: fewest false alarms of
    APL. balanced: both errors weigh alike. The model card says what is assured.

    Writes predictions.csv, cells.csv, predictions.json, overlays/ and
    report.html. Results of an earlier run in the folder are replaced once the
    new ones are complete; your own files there stay. No labels are needed. For
    research use only.
    """
    from millie.engines.table import open_engine
    from millie.outputs.result_folder import is_store

    words = list(settings or [])
    words += [f"prediction.operating_point={operating_point}"] if operating_point else []
    bundle, named = model_and_inputs(inputs)
    ready = "" if is_store(named) else "millie.pipeline.patient"
    with open_engine(engine, engine_address, workers, out, ready=ready) as opened:
        # Only now, so that the first worker imports what it needs at the same time.
        from millie import pipeline
        from millie.cli import console as show

        with show.progress_bars() as progress:
            result = pipeline.predict(
                bundle, named, out, config, words, opened, progress, root, pseudonyms,
                pictures=pictures,
            )  # fmt: skip
    show.prediction_table(result.predictions, result.problems, remarks=result.remarks)
    show.say(f"{result.scope}\nReport -> {result.report}")
    finish(result.problems, every=every, lenient=lenient)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Output of `crossval` or `predict`.")],
) -> None:
    """Rewrite the HTML report of a finished run from its files."""
    from millie.cli import console as show
    from millie.outputs.report import rewrite_report

    show.say(f"Report -> {rewrite_report(folder)}")


def model_and_inputs(words: Sequence[str]) -> tuple[str | Path, list[Path]]:
    """The model that the first word names, else the default one, and the rest.

    A name is that of a shipped model; a word with a separator (``./apl-blood``) is a folder.

    Raises:
        ConfigError: a model and nothing else.
        BundleError: the first word is the folder of a model that lacks its manifest.
        MissingFileError: the first word names nothing.
    """
    from millie.models.bundle_folder import DEFAULT_MODEL, is_bundle_folder, shipped_bundles

    first, rest = words[0], [Path(word) for word in words[1:]]
    if first in shipped_bundles():
        model: str | Path = first
    elif is_bundle_folder(Path(first)):
        model = Path(first)
    elif Path(first).exists() or glob.has_magic(first):
        return DEFAULT_MODEL, [Path(first), *rest]
    else:
        raise MissingFileError(
            f"{first} is neither a file or folder nor a shipped model "
            f"({', '.join(shipped_bundles())})"
        )
    if not rest:
        raise ConfigError(
            f"millie predict {first}: only a model is named; name images, a manifest or a store "
            "behind it"
        )
    return model, rest
