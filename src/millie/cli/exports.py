"""Commands that write results in the formats of other programs: ``millie export FORMAT``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millie.cli.app import app

exports = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Write calls, cells or models in the formats of other programs.\n\n"
    "An export says what the run says, never more: calls are marked preliminary and for research "
    "use only, and INDETERMINATE stays so. It goes to a new place and replaces nothing.",
)
app.add_typer(exports, name="export")

if TYPE_CHECKING:
    from millie.outputs.exports.samples import Exported

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Output of `millie predict`.")]


@exports.command()
def qupath(
    run: Run,
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="New folder; or, for a run with one image, a new file NAME.geojson."
        ),
    ],
) -> None:
    """Cells with outlines, classes and scores for QuPath (GeoJSON, one file per image).

    For example: millie export qupath calls --out outlines

    In QuPath open the image and drag its file onto it. A cell's class, such as
    "APL-like", is what the cell looks like when scored alone; the call for the
    patient is the locked annotation around the image. Correct outlines there,
    export them under the same name, and read them back with
    `millie segment --outlines`.
    """
    from millie.outputs.exports.qupath import export_qupath

    _tell(export_qupath(run, out), "image", out)


@exports.command()
def fhir(
    run: Run,
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="New folder; or, for a run with one patient, a new file NAME.json."
        ),
    ],
) -> None:
    """Calls as FHIR R4 bundles for a laboratory system (one JSON file per patient).

    For example: millie export fhir calls --out reports

    Each holds a DiagnosticReport and an Observation, both "preliminary", the
    Device (model, version, checksum) and the Specimen. Patients are named by
    their pseudonym. Nothing is sent anywhere.
    """
    from millie.cli import console as show
    from millie.outputs.exports.fhir import export_fhir
    from millie.outputs.page import count

    show.say(f"{count(export_fhir(run, out), 'patient')} -> {out}")


@exports.command(name="dicom-sr")
def dicom_sr(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="New folder; a folder per patient in it.")],
) -> None:
    """Calls and cells as DICOM objects, with the images they refer to.

    For example: millie export dicom-sr calls --out dicom

    For each patient: report.dcm (Comprehensive SR, TID 1500, preliminary and
    unverified), and for each image image-NNNN.dcm and annotations-NNNN.dcm
    (Microscopy Bulk Simple Annotations with the outline and scores of each
    cell). Nothing is sent anywhere. Needs: pip install "millie[dicom]".
    """
    from millie.outputs.exports.extras import with_extra

    _tell(with_extra("dicom_sr", "dicom").export_dicom(run, out), "patient", out)


Model = Annotated[
    Path | None,
    typer.Option(
        "--model",
        help="Folder of the model that made these calls (default: the shipped one of its name).",
        show_default=False,
    ),
]


@exports.command()
def trident(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="New folder, the job of TRIDENT.")],
    model: Model = None,
) -> None:
    """Vectors of cells in TRIDENT's layout (one HDF5 file per image).

    For example: millie export trident calls --out job

    A cell stands for a patch. slides.csv lists case_id and slide_id.
    """
    _features("trident", run, out, model)


@exports.command()
def clam(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="New folder: h5_files and pt_files.")],
    model: Model = None,
) -> None:
    """Vectors of cells in CLAM's layout (one bag per patient).

    For example: millie export clam calls --out features

    slides.csv lists case_id and slide_id; add a column label for CLAM.
    """
    _features("clam", run, out, model)


@exports.command()
def stamp(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="New folder: features and the slide table.")],
    model: Model = None,
) -> None:
    """Vectors of cells in STAMP's layout (one HDF5 file per image).

    For example: millie export stamp calls --out features

    slides.csv is STAMP's slide table (PATIENT, FILENAME).
    """
    _features("stamp", run, out, model)


@exports.command()
def anndata(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="New file, NAME.h5ad.")],
    model: Model = None,
) -> None:
    """All cells with their vectors as one AnnData file for scverse and R.

    For example: millie export anndata calls --out cells.h5ad
    """
    _features("anndata", run, out, model)


@exports.command()
def parquet(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="New file, NAME.parquet.")],
    model: Model = None,
) -> None:
    """All cells with their vectors as one Parquet table.

    For example: millie export parquet calls --out cells.parquet

    Needs: pip install "millie[parquet]".
    """
    _features("parquet", run, out, model)


@exports.command()
def model(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="Name of a shipped model, or a model's folder.")
    ],
    out: Annotated[Path, typer.Option("--out", help="New folder for the graphs.")],
) -> None:
    """A model as ONNX: encoder, fusion and heads, compared with the model itself.

    For example: millie export model acute-leukaemia --out onnx

    encoder.onnx turns crops into vectors, patient.onnx all vectors of a patient
    into probabilities; model.json says what they expect. Finding cells, quality
    gates and the rules of a call are not in them, so what they give is no call.
    Needs: pip install "millie[onnx]".
    """
    from millie.cli import console as show
    from millie.models.bundle_folder import shipped_bundles
    from millie.pipeline.exports import export_model

    named = bundle if bundle in shipped_bundles() else Path(bundle)
    show.say(f"ONNX -> {export_model(named, out)}")


def _features(layout: str, run: Path, out: Path, model: Path | None) -> None:
    from millie.cli import console as show
    from millie.pipeline.exports import export_features

    with show.progress_bars() as progress:
        done = export_features(layout, run, out, model, progress)
    _tell(done, "patient", out)


def _tell(done: Exported, what: str, out: Path) -> None:
    from millie.cli import console as show
    from millie.outputs.page import count

    show.say(f"{count(done.count, what)} -> {out}")
    if done.left_out:
        show.say(f"No call, so not written: {', '.join(done.left_out)}")
