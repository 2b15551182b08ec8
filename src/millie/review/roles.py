"""Who may do what. Asked by every view itself, never guessed from a path.

Four roles, each a Django group: a viewer looks; a reviewer also decides and signs; a supervisor
also gives second reviews and reads the audit trail; an administrator also manages users and
tokens, and decides nothing about samples unless given another role too.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from typing import Any, cast
from urllib.parse import urlsplit

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase


class Role(StrEnum):
    """A group's name."""

    VIEWER = "viewer"
    REVIEWER = "reviewer"
    SUPERVISOR = "supervisor"
    ADMINISTRATOR = "administrator"


class Act(StrEnum):
    """What may be allowed."""

    LOOK = "look"
    SUBMIT = "submit"
    DECIDE = "decide"
    SIGN = "sign"
    SECOND_REVIEW = "second_review"
    AUDIT = "audit"
    MANAGE = "manage"


_CLINICAL = frozenset({Act.LOOK, Act.SUBMIT, Act.DECIDE, Act.SIGN})
ALLOWED: dict[Role, frozenset[Act]] = {
    Role.VIEWER: frozenset({Act.LOOK}),
    Role.REVIEWER: _CLINICAL,
    Role.SUPERVISOR: _CLINICAL | {Act.SECOND_REVIEW, Act.AUDIT},
    Role.ADMINISTRATOR: frozenset({Act.MANAGE, Act.AUDIT}),
}

View = Callable[..., HttpResponseBase]


def acts_of(user: AbstractBaseUser | AnonymousUser) -> frozenset[Act]:
    """All that a user's roles allow; a disabled user may nothing."""
    if not user.is_active or not user.is_authenticated:
        return frozenset()
    names = set(cast("User", user).groups.values_list("name", flat=True))
    return frozenset().union(*(ALLOWED[role] for role in Role if role in names))


def may(user: AbstractBaseUser | AnonymousUser, act: Act) -> bool:
    """Whether a user's roles allow an act."""
    return act in acts_of(user)


def requires(act: Act) -> Callable[[View], View]:
    """Guard a view: to the login page who is not logged in, 403 who may not.

    A part of a page that htmx asks for sends the whole page to the login.

    The guarded view carries the act as ``requires``, for the test that walks all routes and roles.
    """

    def guard(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return _to_login(request)
            if not may(request.user, act):
                raise PermissionDenied(f"your roles do not allow: {act}")
            response = view(request, *args, **kwargs)
            # The next person at a shared computer gets nothing by going back.
            response.headers.setdefault("Cache-Control", "no-store")
            return response

        guarded.requires = act  # type: ignore[attr-defined]
        return guarded

    return guard


def _to_login(request: HttpRequest) -> HttpResponseBase:
    if "HX-Request" in request.headers:
        page = urlsplit(request.headers.get("HX-Current-URL", "")).path or "/"
        return HttpResponse(status=401, headers={"HX-Redirect": redirect_to_login(page).url})
    return redirect_to_login(request.get_full_path())
