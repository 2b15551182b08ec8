"""Commands of the review app: its server, and the tokens of machines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from millie.cli.app import app
from millie.errors import ConfigError, MissingPackageError

Data = Annotated[Path, typer.Option("--data", help="Folder of all data; made if missing.")]
Database = Annotated[
    str,
    typer.Option(
        "--database",
        envvar="MILLIE_REVIEW_DATABASE",
        help="postgresql://USER:PASSWORD@HOST:PORT/NAME (default: SQLite in the data folder).",
        show_default=False,
    ),
]

tokens = typer.Typer(
    no_args_is_help=True, help="Tokens by which machines use the review app's API."
)
app.add_typer(tokens, name="tokens")


@app.command()
def serve(
    data: Data,
    database: Database = "",
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = 8000,
    watch: Annotated[
        Path | None,
        typer.Option(
            "--watch",
            help="Folder whose sub-folders and zip archives become samples; nothing in it is "
            "changed.",
            show_default=False,
        ),
    ] = None,
    bundle: Annotated[
        str, typer.Option("--bundle", help="Model: its name or its folder.")
    ] = "acute-leukaemia",
    behind_proxy: Annotated[
        str,
        typer.Option(
            "--behind-proxy",
            metavar="ADDRESS",
            help="IP address of a proxy that speaks TLS with browsers; goes with --name.",
            show_default=False,
        ),
    ] = "",
    names: Annotated[
        list[str] | None,
        typer.Option("--name", help="Host name that browsers use. Repeatable.", show_default=False),
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Fill the worklist with drawn samples.")
    ] = False,
) -> None:
    """Start the review app: worklist, cells, sign-off and API.

    For example: millie serve --data review --demo

    Listens on this machine alone unless a proxy that speaks TLS stands in
    front. The first start makes an administrator and shows the password once.
    Ctrl-C ends it; what was begun goes on at the next start.
    """
    from millie.cli import console as show

    _check_installed()
    from millie.review.serving.run import serve as run
    from millie.review.serving.start import Service

    run(
        Service(
            data, database, host, port, bundle, watch, behind_proxy, tuple(names or ()), demo
        ),
        show.say,
    )  # fmt: skip


@tokens.command("add")
def add_token(
    name: Annotated[str, typer.Argument(help="Of the machine.")],
    data: Data,
    scopes: Annotated[
        list[str], typer.Option("--scope", help="submit, read or metrics. Repeatable.")
    ],
    days: Annotated[
        int, typer.Option("--days", min=0, help="Until it ends; 0: it does not.")
    ] = 365,
    database: Database = "",
) -> None:
    """Make a token. It is shown once; the server keeps a digest.

    For example: millie tokens add scanner-2 --data review --scope submit --scope read
    """
    from millie.cli import console as show

    open_data(data, database)
    from millie.review.api.tokens import add_token as add

    show.say(add(name, scopes, days))


@tokens.command("revoke")
def revoke_token(
    name: Annotated[str, typer.Argument(help="Of the machine.")],
    data: Data,
    database: Database = "",
) -> None:
    """End a token at once."""
    from millie.cli import console as show

    open_data(data, database)
    from millie.review.api.tokens import revoke_token as revoke

    revoke(name)
    show.say(f"{name}: revoked")


@tokens.command("list")
def list_tokens(data: Data, database: Database = "") -> None:
    """List all tokens: scopes, state, end and last use."""
    from millie.cli import console as show

    open_data(data, database)
    from django.utils import timezone

    from millie.review.api.tokens import state_of
    from millie.review.models import ApiToken

    now = timezone.now()
    rows = [
        (
            one.name, one.scopes, state_of(one, now),
            f"{one.expires:%Y-%m-%d}" if one.expires else "never",
            f"{one.last_used:%Y-%m-%d %H:%M}" if one.last_used else "never",
        )
        for one in ApiToken.objects.order_by("name")
    ]  # fmt: skip
    show.table("Tokens", ("name", "scopes", "state", "ends", "last used"), rows)


def open_data(data: Path, database: str) -> None:
    """Make the tables of a data folder ready for this process.

    Raises:
        ConfigError: there is no such folder, or its database cannot be used.
    """
    if not data.is_dir():
        raise ConfigError(f"--data {data}: no such folder; `millie serve` makes it")
    prepare_data(data, database)
    from millie.review.serving.database import bring_up_to_date

    bring_up_to_date()


def prepare_data(data: Path, database: str) -> None:
    """Set this process up for a data folder, which is made if missing; no table is touched.

    Raises:
        ConfigError: another kind of database URL.
    """
    _check_installed()
    import django

    from millie.review.serving.start import Service

    os.environ.update(Service(data, database).environment())
    django.setup()


def _check_installed() -> None:
    from importlib.util import find_spec

    if missing := [name for name in ("django", "ninja", "waitress") if find_spec(name) is None]:
        raise MissingPackageError(
            f"the review app needs {missing[0]}: pip install 'millie[review]'"
        )
