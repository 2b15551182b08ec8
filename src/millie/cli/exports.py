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

    _tell(export_qupath(run, out), "images", out)


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

    count = export_fhir(run, out)
    show.say(f"{count:,} patients -> {out}")


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

    _tell(with_extra("dicom_sr", "dicom").export_dicom(run, out), "patients", out)


def _tell(done: Exported, what: str, out: Path) -> None:
    from millie.cli import console as show

    show.say(f"{done.count:,} {what} -> {out}")
    if done.left_out:
        show.say(f"No call, so not written: {', '.join(done.left_out)}")
