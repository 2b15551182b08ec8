"""The program ``millie``: its help, its version, and what holds before each command."""

from __future__ import annotations

from typing import Annotated

import typer

from millie import __version__
from millie.engines.launchers import check_alone
from millie.engines.memory import check_memory

app = typer.Typer(
    name="millie",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Call leukaemia from images of blood films and bone marrow, with the cells behind each "
    "call.\n\nTrained on patients' diagnoses alone. [bold]For research use only.[/bold]\n\n"
    "Getting started: [cyan]millie demo[/cyan] runs everything on synthetic blood films; "
    "[cyan]millie predict FOLDER --out OUT[/cyan] calls the patient whose images are in "
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
    """Refuse what several processes of a launcher would repeat, or what would run out of memory."""
    command = str(context.invoked_subcommand)
    check_alone(command)
    check_memory(command)
