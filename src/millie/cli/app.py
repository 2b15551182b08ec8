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
    "Try it on synthetic blood films: [cyan]millie demo[/cyan]\n\n"
    "Call patients, a folder of images each: [cyan]millie predict FOLDER... --out calls[/cyan]\n\n"
    "Train on your own, with a table (patient, label, path) of their images: "
    "[cyan]millie segment cohort.csv --out store[/cyan], then [cyan]millie crossval store --out "
    "study[/cyan] for its performance on new patients, [cyan]millie train store --out "
    "my-model[/cyan] for the model, [cyan]millie predict my-model FOLDER... --out calls[/cyan].",
    epilog="Exit codes: 0 all done. 1 some files or patients could not be used (they are listed), "
    "the rest is done. 2 the command could not run. 3 an alarm of monitor, models compare, "
    "validate, audit verify or restore.",
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
