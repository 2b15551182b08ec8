"""Commands for what the review app keeps: users, the audit trail, decisions, backups."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millie.cli.app import app
from millie.cli.exits import end_with_alarm
from millie.cli.review import Data, Database, open_data, prepare_data
from millie.errors import ConfigError

if TYPE_CHECKING:
    from millie.review.roles import Role

users = typer.Typer(no_args_is_help=True, help="Users of the review app and their roles.")
app.add_typer(users, name="users")
audit = typer.Typer(no_args_is_help=True, help="The audit trail of the review app.")
app.add_typer(audit, name="audit")

Name = Annotated[str, typer.Argument(help="Name for the login.")]
Roles = Annotated[
    list[str],
    typer.Option(
        "--role",
        help="viewer (looks), reviewer (also decides and signs), supervisor (also second reviews "
        "and audit), administrator (users and audit alone). Repeatable.",
    ),
]


@users.command("add")
def add_user(name: Name, data: Data, roles: Roles, database: Database = "") -> None:
    """Add a user; the password is drawn and shown once.

    For example: millie users add rita --data review --role reviewer
    """
    from millie.cli import console as show

    open_data(data, database)
    from millie.review.users import accounts

    show.say(f"Password of {name}, shown this once: {accounts.add(name, _roles(roles))}")


@users.command("disable")
def disable_user(name: Name, data: Data, database: Database = "") -> None:
    """Keep a user from logging in, at once. What was signed stays."""
    from millie.cli import console as show

    open_data(data, database)
    from millie.review.users import accounts

    accounts.disable(name)
    show.say(f"{name} can no longer log in.")


@users.command("reset")
def reset_user(name: Name, data: Data, database: Database = "") -> None:
    """Give a user a new password, and the login back where it was disabled."""
    from millie.cli import console as show

    open_data(data, database)
    from millie.review.users import accounts

    show.say(f"New password of {name}, shown this once: {accounts.reset(name)}")


@users.command("roles")
def change_roles(name: Name, data: Data, roles: Roles, database: Database = "") -> None:
    """Replace a user's roles."""
    from millie.cli import console as show

    open_data(data, database)
    from millie.review.users import accounts

    accounts.set_roles(name, _roles(roles))
    show.say(f"{name}: {', '.join(roles)}")


@users.command("list")
def list_users(data: Data, database: Database = "") -> None:
    """List all users: roles, whether they can log in, and when they last did."""
    from millie.cli import console as show

    open_data(data, database)
    from django.contrib.auth.models import User

    rows = [
        (
            user.username,
            ", ".join(sorted(user.groups.values_list("name", flat=True))),
            "yes" if user.is_active else "disabled",
            f"{user.last_login:%Y-%m-%d %H:%M}" if user.last_login else "never",
        )
        for user in User.objects.order_by("username")
    ]
    show.table("Users", ("user", "roles", "login", "last login (UTC)"), rows)


@audit.command("verify")
def verify_audit(
    data: Data,
    database: Database = "",
    noted: Annotated[
        str,
        typer.Option(
            "--noted",
            help="Last digest of an earlier check: proves that no event since then was removed.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Check every event of the audit trail against its digest and the one before.

    For example: millie audit verify --data review

    Note the last digest elsewhere. Exit code 0: the trail is whole. 3: it is not.
    """
    from millie.cli import console as show

    open_data(data, database)
    from millie.review.records.audit import verify

    verdict = verify(noted)
    for fault in verdict.faults:
        show.say(f"FAULT  {fault}")
    state = "not whole" if verdict.faults else "whole"
    show.say(f"{verdict.n_events:,} events, the trail is {state}; last digest {verdict.last}")
    if verdict.faults:
        end_with_alarm()


@app.command()
def backup(
    out: Annotated[Path, typer.Argument(help="Archive (.tar) to write.")],
    data: Data,
    database: Database = "",
) -> None:
    """Write all data of the review app to one file; the server may go on.

    For example: millie backup review-2026-01-31.tar --data review

    The archive holds the names of patients: keep it as safe as the server.
    """
    from millie.cli import console as show

    open_data(data, database)
    from django.conf import settings

    from millie.review.records.backup import back_up

    with show.progress_bars() as progress:
        n_files = back_up(
            settings.DATA,
            settings.DATABASES["default"],
            out,
            lambda done, total: progress("backup", done, total),
        )
    show.say(f"{n_files:,} files -> {out}")


@app.command()
def restore(
    archive: Annotated[Path, typer.Argument(help="Archive that `millie backup` wrote.")],
    data: Data,
    database: Database = "",
) -> None:
    """Bring a backup back, into a new folder and, with --database, an empty database.

    For example: millie restore review-2026-01-31.tar --data restored

    Every file is checked against its digest first. Users log in again. Exit
    code 3: the audit trail in it is not whole.
    """
    from millie.cli import console as show

    if not archive.is_file():
        raise ConfigError(f"no backup at {archive}")
    prepare_data(data, database)
    from django.conf import settings

    from millie.review.records.backup import restore as bring_back

    n_files = bring_back(archive, settings.DATA, settings.DATABASES["default"])
    open_data(data, database)
    from millie.review.records.audit import verify

    verdict = verify()
    for fault in verdict.faults:
        show.say(f"FAULT  {fault}")
    show.say(f"{n_files:,} files, {verdict.n_events:,} events of the audit trail -> {data}")
    if verdict.faults:
        end_with_alarm()


def _roles(words: list[str]) -> list[Role]:
    from millie.review.roles import Role

    try:
        return [Role(word) for word in words]
    except ValueError as error:
        raise ConfigError(f"{error}: expected {', '.join(Role)}") from error
