"""Checking a password, slowed down for who guesses.

After :data:`MAX_OF_USER` failures within :data:`WINDOW` on one name, or :data:`MAX_OF_ADDRESS` from
one address, further tries are refused unseen, right or wrong, until the window has passed (OWASP
ASVS 4.0, 2.2.1).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.contrib.auth import authenticate
from django.contrib.auth.forms import AuthenticationForm
from django.core.exceptions import ValidationError
from django.db.models import Q

from millie.review.models import LoginFailure
from millie.review.records.audit import record

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.http import HttpRequest

MAX_OF_USER = 5
MAX_OF_ADDRESS = 30
WINDOW = timedelta(minutes=15)
TOO_MANY = "Too many failed logins. Wait 15 minutes, or ask an administrator for a new password."


def is_blocked(username: str, address: str | None) -> bool:
    """Whether further tries are refused for now."""
    recent = LoginFailure.objects.filter(at__gt=datetime.now(UTC) - WINDOW)
    if recent.filter(username=username.casefold()).count() >= MAX_OF_USER:
        return True
    return address is not None and recent.filter(address=address).count() >= MAX_OF_ADDRESS


def failed(username: str, address: str | None) -> None:
    """Remember a failure, in log and audit trail too; old ones are forgotten."""
    LoginFailure.objects.filter(at__lt=datetime.now(UTC) - WINDOW).delete()
    LoginFailure.objects.create(username=username.casefold()[:150], address=address)
    record("system", "login.failed", username[:150])


def succeeded(username: str, address: str | None) -> None:
    """Forget the failures of a user at an address."""
    own = Q(username=username.casefold()) & (Q(address=address) if address else Q())
    LoginFailure.objects.filter(own).delete()


def confirms(request: HttpRequest, user: User, password: str) -> bool:
    """Whether a user who is logged in knows the password, asked before signing.

    Raises:
        ValidationError: too many failures.
    """
    address = address_of(request)
    if is_blocked(user.username, address):
        raise ValidationError(TOO_MANY)
    if authenticate(request, username=user.username, password=password) == user:
        succeeded(user.username, address)
        return True
    failed(user.username, address)
    return False


def address_of(request: HttpRequest) -> str | None:
    """Where a request comes from, as the server saw it."""
    return request.META.get("REMOTE_ADDR") or None


class LoginForm(AuthenticationForm):
    """Name and password, slowed down."""

    def clean(self) -> dict[str, Any]:
        """Check the password unless too many have failed.

        Raises:
            ValidationError: name or password is wrong, or too many tries have failed.
        """
        username = str(self.cleaned_data.get("username", ""))
        address = address_of(self.request) if self.request else None
        if is_blocked(username, address):
            raise ValidationError(TOO_MANY)
        try:
            cleaned = super().clean()
        except ValidationError:
            if username:
                failed(username, address)
            raise
        succeeded(username, address)
        record(username, "login.succeeded")
        return dict(cleaned)
