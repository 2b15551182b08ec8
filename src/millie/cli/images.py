"""Commands on images and data sets: from a published layout to a bag store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    Shard,
    Verbose,
    Workers,
    chosen_config,
    shard_of,
    table_path,
)


@app.command()
def prepare(
    dataset: Annotated[
        str, typer.Argument(help="Name of a published data set; see `millie datasets`.")
    ],
    root: Annotated[Path, typer.Option("--root", help="Folder of the data set.")],
    out: Annotated[Path, typer.Option("--out", help="Manifest to write (CSV).")],
    lenient: Lenient = False,
    every: Verbose = False,
) -> None:
    """Write a manifest for a published data set.

    The manifest (columns patient, label, path, ...) is what `millie segment`
    reads; with --root as here if it does not lie beside the images. For your
    own images, write one yourself; only these three columns are needed.

    Exit code 1: some files could not be used and are left out (they are listed);
    the manifest of all others is written. --lenient makes that 0.
    """
    from millie import pipeline
    from millie.cli import console as show
    from millie.outputs.page import count

    cohort = pipeline.prepare(dataset, root, out)
    counts = dict.fromkeys(cohort.labels, 0)
    for patient in cohort.patients:
        if patient.label is not None:
            counts[patient.label] += 1
    images = sum(len(p.images) for p in cohort.patients)
    named = ", ".join(f"{n:,} {label}" for label, n in counts.items()) or "no diagnoses"
    show.say(
        f"{count(len(cohort.patients), 'patient')} ({named}), {count(images, 'image')} -> {out}"
    )
    if not root.resolve().is_relative_to(out.parent.resolve()):
        show.say(f"The images lie elsewhere: millie segment {out} --root {root} --out STORE")
    finish(cohort.problems, every=every, lenient=lenient)


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
        list[Path],
        typer.Argument(help="Images (fields, single cells or whole slides), or folders."),
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
    pseudonyms: Pseudonyms = None,
    lenient: Lenient = False,
    every: Verbose = False,
) -> None:
    """Find the leukocytes in images.

    --overlay outlines each cell in blue and its nucleus in yellow.

    Columns of the table: source, x_px, y_px, left_px, top_px, width_px,
    height_px, area_px, in pixels of the full-resolution image.

    Of a whole slide (pip install 'millie[slides]') fields from all over its
    monolayer are searched, until 500 cells are found; for more:
    --set reading.slide_cells=2000.
    """
    from millie import pipeline
    from millie.cli import console as show
    from millie.outputs.page import count

    table = table_path(out, overlay)
    chosen = chosen_config(config, profile, settings)
    with show.progress_bars() as progress:
        summary = pipeline.detect(images, table, chosen, overlay, progress, pseudonyms)
    show.say(f"{count(summary.n_cells, 'cell')} in {count(summary.done, 'image')} -> {table}")
    finish(summary.problems, every=every, lenient=lenient)


@app.command(name="import-features")
def import_features(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="MANIFEST|TABLE",
            help="Manifest (CSV) whose paths are files of vectors, or one table of all cells "
            "(.h5ad, .parquet).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="New folder for the store of vectors.")],
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder", help="Name of what computed the vectors (default: as the files say)."
        ),
    ] = "",
    patient_column: Annotated[
        str,
        typer.Option("--patient-column", help="Of a table: the column that names the patient."),
    ] = "patient",
    label_column: Annotated[
        str,
        typer.Option(
            "--label-column", help="Of a table: that of the diagnosis (default: label, if there)."
        ),
    ] = "",
    root: Root = None,
    lenient: Lenient = False,
    every: Verbose = False,
) -> None:
    """Make a store of vectors that another encoder computed, for crossval, train and predict.

    For example: millie import-features cohort.csv --encoder dinobloom-b --out
    store; millie crossval store --set model.aggregator=mean --out study

    The manifest has the columns patient, label, path as usual; each path is an
    HDF5 file of TRIDENT, CLAM, STAMP or the like: dataset features or feats
    (N, D), one row per cell or patch, and coords if known. In place of a manifest
    one table may hold all patients: AnnData (.h5ad; vectors in X, columns in obs)
    or Parquet (a list column features, or numbered columns; millie[parquet]).

    Such a store has no pictures: a model trained on it takes vectors of the same
    encoder, not images.
    """
    from millie import pipeline
    from millie.cli import console as show
    from millie.outputs.page import count
    from millie.pipeline.import_features import import_vectors, load_file, rows_of
    from millie.readers.cell_tables import Columns, is_table

    if is_table(source):
        cohort, load = rows_of(source, Columns(patient_column, label_column))
    else:
        cohort, load = pipeline.read_cohort([source], root), load_file
    with show.progress_bars() as progress:
        done = import_vectors(cohort, out, encoder, progress, load)
    show.say(f"{count(done.done, 'patient')}, {count(done.n_cells, 'vector')} -> {out}")
    finish(done.problems, every=every, lenient=lenient)


@app.command()
def segment(
    manifest: Annotated[Path, typer.Argument(help="Manifest (CSV), or one patient's folder.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the bag store.")],
    root: Root = None,
    outlines: Annotated[
        Path | None,
        typer.Option(
            "--outlines",
            help="Outlines of cells drawn or corrected elsewhere, as in QuPath: a GeoJSON file "
            "called after its image (field.jpg.geojson), or a folder of such files. They become "
            "the cells of these images.",
            show_default=False,
        ),
    ] = None,
    config: ConfigFile = None,
    profile: Profile = "default",
    settings: Settings = None,
    workers: Workers = None,
    engine: EngineName = "process",
    engine_address: EngineAddress = None,
    part: Shard = "0/1",
    pseudonyms: Pseudonyms = None,
    lenient: Lenient = False,
    every: Verbose = False,
) -> None:
    """Find every patient's leukocytes and store their crops as bags.

    If interrupted, run the same command again: finished patients are skipped.
    """
    from millie import pipeline
    from millie.cli import console as show
    from millie.engines.table import open_engine
    from millie.outputs.page import count

    chosen = chosen_config(config, profile, settings)
    cohort = pipeline.read_cohort([manifest], root)
    with (
        open_engine(engine, engine_address, workers, out) as opened,
        show.progress_bars() as progress,
    ):
        summary = pipeline.segment(
            cohort,
            out,
            chosen,
            opened,
            shard_of(part),
            progress,
            outlines,
            pseudonyms=pseudonyms,
        )
    again = f" ({summary.skipped:,} already done)" if summary.skipped else ""
    patients = count(summary.done + summary.skipped, "patient")
    show.say(f"{patients}{again}, {count(summary.n_cells, 'cell')} -> {out}")
    finish(summary.problems, every=every, lenient=lenient)
