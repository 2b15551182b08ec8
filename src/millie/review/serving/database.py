"""The database before the first request: reached, of a known version, brought up to date."""

from __future__ import annotations

from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader

from millie.errors import ConfigError
from millie.review.roles import Role
from millie.review.users import accounts

APP = "review"


def bring_up_to_date() -> None:
    """Create or migrate the tables.

    Raises:
        ConfigError: the database does not answer, or a newer millie wrote it.
    """
    try:
        connection.ensure_connection()
        loader = MigrationLoader(connection)
        applied = {name for app, name in loader.applied_migrations if app == APP}
    except (DatabaseError, UnicodeError) as error:
        raise ConfigError(
            f"the database cannot be used ({str(error).strip()}): check that it runs, its URL, and "
            "that the file is a database of millie"
        ) from error
    known = {name for app, name in loader.disk_migrations if app == APP}
    replaced = {name for key, one in loader.disk_migrations.items() if key[0] == APP
                for _, name in one.replaces}  # fmt: skip
    if newer := sorted(applied - known - replaced):
        raise ConfigError(
            f"a newer version of millie has written this database (it has {newer[-1]}): start that "
            "version, or restore a backup from before"
        )
    try:
        call_command("migrate", verbosity=0, interactive=False)
        for role in Role:
            Group.objects.get_or_create(name=role.value)
    except DatabaseError as error:
        raise ConfigError(f"the database cannot be brought up to date ({error})") from error


def has_users() -> bool:
    """Whether anybody can log in."""
    return User.objects.filter(is_active=True).exists()


def demo_user(name: str) -> str:
    """A user with every role, where no other user is.

    Returns:
        A new password.

    Raises:
        ConfigError: the data folder has users of its own.
    """
    if User.objects.exclude(username=name).exists():
        raise ConfigError(
            "--demo is for a data folder of its own, and this one has users: name a new folder"
        )
    if User.objects.filter(username=name).exists():
        return accounts.reset(name)
    return accounts.add(name, list(Role))
