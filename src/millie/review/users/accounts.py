"""Adding, changing and disabling users; every act leaves a line in the audit trail.

Users are never deleted: their name stands on what they signed.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from django.contrib.auth.models import Group, User
from django.contrib.auth.password_validation import validate_password
from django.contrib.sessions.models import Session
from django.core.exceptions import ValidationError
from django.db import transaction

from millie.errors import ConfigError
from millie.review.models import LoginFailure
from millie.review.records.audit import record
from millie.review.roles import Role

if TYPE_CHECKING:
    from collections.abc import Iterable

COMMAND_LINE = "command line"
"""Actor of what is done on the server itself."""


def add(name: str, roles: Iterable[Role], *, password: str = "", actor: str = COMMAND_LINE) -> str:
    """Add a user.

    Args:
        name: letters, digits and @ . + - _, not in use; upper and lower case are the same.
        roles: what the user may do.
        password: empty: one is drawn.
        actor: for the audit trail.

    Returns:
        the password.

    Raises:
        ConfigError: the name is in use or impossible, or the password too weak.
    """
    if User.objects.filter(username__iexact=name).exists():
        raise ConfigError(f"there is a user '{name}' already: give another name, or reset it")
    user = User(username=name)
    password = _set_password(user, password)
    with transaction.atomic():
        user.save()
        _set_roles(user, roles)
        record(actor, "user.added", name, roles=sorted(map(str, roles)))
    return password


def disable(name: str, *, actor: str = COMMAND_LINE) -> None:
    """Keep a user from logging in, at once; what was signed stays.

    Raises:
        ConfigError: no such user, or nobody could manage users afterwards.
    """
    with transaction.atomic():
        user = _user(name)
        _check_not_last(user)
        user.is_active = False
        user.save(update_fields=["is_active"])
        end_sessions(user)
        record(actor, "user.disabled", user.username)


def reset(name: str, *, password: str = "", actor: str = COMMAND_LINE) -> str:
    """Give a user a new password and, where disabled, the login back; old sessions end.

    Returns:
        the password.

    Raises:
        ConfigError: no such user, or the password is too weak.
    """
    with transaction.atomic():
        user = _user(name)
        password = _set_password(user, password)
        user.is_active = True
        user.save()
        LoginFailure.objects.filter(username=user.username.casefold()).delete()
        end_sessions(user)
        record(actor, "user.reset", user.username)
    return password


def set_roles(name: str, roles: Iterable[Role], *, actor: str = COMMAND_LINE) -> None:
    """Replace a user's roles.

    Raises:
        ConfigError: no such user, or nobody could manage users afterwards.
    """
    wanted = frozenset(roles)
    with transaction.atomic():
        user = _user(name)
        if Role.ADMINISTRATOR not in wanted:
            _check_not_last(user)
        _set_roles(user, wanted)
        record(actor, "user.roles", user.username, roles=sorted(map(str, wanted)))


def end_sessions(user: User) -> None:
    """Log a user out everywhere."""
    for session in Session.objects.iterator():
        if session.get_decoded().get("_auth_user_id") == str(user.pk):
            session.delete()


def _user(name: str) -> User:
    try:
        return User.objects.select_for_update().get(username__iexact=name)
    except User.DoesNotExist as error:
        raise ConfigError(f"no user '{name}': `millie users list` shows all") from error


def _set_password(user: User, password: str) -> str:
    chosen = password or secrets.token_urlsafe(15)
    try:
        user.clean_fields(exclude=["password"])
        validate_password(chosen, user)
    except ValidationError as error:
        raise ConfigError(" ".join(error.messages)) from error
    user.set_password(chosen)
    return chosen


def _set_roles(user: User, roles: Iterable[Role]) -> None:
    user.groups.set([Group.objects.get_or_create(name=str(role))[0] for role in roles])


def _check_not_last(user: User) -> None:
    others = User.objects.filter(is_active=True, groups__name=Role.ADMINISTRATOR).exclude(
        pk=user.pk
    )
    if user.groups.filter(name=Role.ADMINISTRATOR).exists() and not others.exists():
        raise ConfigError(
            f"'{user.username}' is the only administrator: make another user one first"
        )
