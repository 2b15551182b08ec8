"""The command that compares calls with what people concluded in the review app."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from millie.cli.app import app
from millie.cli.exits import finish
from millie.cli.options import Verbose


@app.command()
def evaluate(
    runs: Annotated[
        list[Path], typer.Argument(help="Output folders of `millie predict`.", metavar="RUN...")
    ],
    decisions: Annotated[
        Path,
        typer.Option(
            "--decisions", help="conclusions.csv or decisions.json, from the page Quality."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for tables.")],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", help="Bundle of the runs, if not a shipped one.", show_default=False
        ),
    ] = None,
    every: Verbose = False,
) -> None:
    """Compare calls with the conclusions that were signed in the review app.

    For example: millie evaluate DATA/samples/*/*/calls --decisions conclusions.csv --out found

    Shares with exact intervals; patients without a call count both as
    disagreement and not at all. Nothing is trained on decisions.
    """
    from millie import pipeline
    from millie.cli import console as show

    found = pipeline.evaluate(list(runs), decisions, out, model)
    show.table(
        f"{found.n_samples} samples with a conclusion",
        ("figure", "value", "95 % interval", "n"),
        [
            (
                str(row["figure"]),
                _number(row["value"]),
                f"{_number(row['low'])} to {_number(row['high'])}",
                str(row["n"]),
            )
            for row in found.rows()
        ],
    )
    for remark in found.remarks:
        show.say(remark)
    show.say(f"Tables -> {found.out}")
    finish(found.problems, every=every)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
