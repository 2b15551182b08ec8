"""Commands on model bundles: list them, compare two versions, restate one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from millie.cli.app import app
from millie.cli.exits import end_with_alarm, finish
from millie.cli.options import Verbose

bundles = typer.Typer(rich_markup_mode="rich")
app.add_typer(bundles, name="models")


@bundles.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """List models, encoders, aggregators and settings profiles; or compare two models."""
    if context.invoked_subcommand:
        return
    from millie.cli import console as show
    from millie.cli.doctor import installed

    for title, columns, rows in installed():
        show.table(title, columns, rows)


@bundles.command()
def compare(
    old: Annotated[str, typer.Argument(metavar="OLD", help="Model in use: name or folder.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Model that is to replace it.")],
    store: Annotated[
        Path, typer.Option("--store", help="Bag store of patients with known diagnoses.")
    ],
    out: Annotated[Path, typer.Option("--out", help="New folder for table and figures.")],
    new_store: Annotated[
        Path | None,
        typer.Option(
            "--new-store",
            help="The same patients cut for NEW, where it expects different crops.",
            show_default=False,
        ),
    ] = None,
    auc_margin: Annotated[
        float, typer.Option("--auc-margin", help="Largest loss of AUC that counts as none.")
    ] = 0.05,
    margin: Annotated[
        float,
        typer.Option(
            "--margin", help="Largest loss of sensitivity or specificity that counts as none."
        ),
    ] = 0.1,
    every: Verbose = False,
) -> None:
    """Compare two models on the same patients: is the new one non-inferior?

    For example: millie models compare apl-blood my-model --store store --out comparison

    Figures are of the class of the threshold (APL) against all others, with
    two-sided 95 % intervals of the difference. Non-inferior: no figure's
    interval reaches the margin. Fix the margins before you look: they say what
    loss would matter to patients. Patients whose images trained either model
    are left out.

    Also lists what has changed and which part of the version that needs:
    MAJOR for labels, preparation of images or intended use, MINOR for weights
    or limits, PATCH for text.

    Writes comparison.json and patients.csv. Exit code 0: non-inferior, and the
    version is high enough. 1: so, but a patient could not be used. 2: nothing
    could be compared. 3: non-inferiority is not shown, or the version is too
    low.
    """
    from millie.cli import console as show
    from millie.pipeline.compare_models import compare_models

    with show.progress_bars() as progress:
        found = compare_models(
            old, new, store, out, new_store=new_store, auc_margin=auc_margin, rate_margin=margin,
            progress=progress,
        )  # fmt: skip
    columns = ("figure", "old", "new", "difference", "95 % interval", "margin", "n", "verdict")
    show.table(f"{found.positive} against the rest", columns, found.rows())
    for line in (*found.lines(), *(f"WARNING  {words}" for words in found.warnings)):
        show.say(line)
    show.say(f"Table -> {out / 'patients.csv'}")
    if found.verdict == "non-inferior" and found.enough:
        finish(found.problems, every=every)
    else:
        show.list_problems(found.problems, every=every)
        end_with_alarm()


@bundles.command()
def restate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name or folder.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the new version.")],
    version: Annotated[
        str, typer.Option("--model-version", help="Its version, above the model's.")
    ],
    card: Annotated[
        Path | None,
        typer.Option("--card", help="Markdown file: its model card.", show_default=False),
    ] = None,
    requires: Annotated[
        str | None,
        typer.Option(
            "--requires-millie",
            help="Versions of millie that may use it, such as '>=0.2,<0.3'.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a model under a higher version with another card; weights stay as they are.

    For example: millie models restate my-model --card card.md --model-version
    1.0.1 --out my-model-1.0.1
    """
    from millie.cli import console as show
    from millie.models.restate import restate_bundle

    new = restate_bundle(model, out, version, card=card, requires_millie=requires)
    show.say(f"{new.name} -> {out}")
