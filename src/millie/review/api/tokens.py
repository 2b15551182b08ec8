"""Machine tokens: made once, shown once, kept as a digest; each with scopes and an end."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.utils import timezone
from ninja.errors import AuthenticationError, HttpError
from ninja.security import HttpBearer

from millie.errors import ConfigError
from millie.review.models import ApiToken
from millie.review.records.audit import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.http import HttpRequest

SCOPES = {
    "submit": "send samples",
    "read": "list samples, fetch results, cells and reports",
    "metrics": "read /metrics from another machine",
}
DEFAULT_DAYS = 365
_PREFIX = "millie_"
_USED_EVERY = timedelta(minutes=1)


def add_token(name: str, scopes: Sequence[str], days: int = DEFAULT_DAYS) -> str:
    """Make a token.

    Args:
        name: of the machine, for lists and the audit trail.
        scopes: of :data:`SCOPES`.
        days: until it ends; 0: it does not.

    Returns:
        The token, which cannot be shown again.

    Raises:
        ConfigError: an unknown scope, or the name is taken.
    """
    if unknown := sorted(set(scopes) - SCOPES.keys()):
        raise ConfigError(f"scope '{unknown[0]}': expected of {', '.join(SCOPES)}")
    if not scopes:
        raise ConfigError(f"a token without a scope is of no use: give one of {', '.join(SCOPES)}")
    if ApiToken.objects.filter(name=name).exists():
        raise ConfigError(f"there is a token '{name}' already: choose another name")
    token = _PREFIX + secrets.token_urlsafe(32)
    ends = timezone.now() + timedelta(days=days) if days else None
    ApiToken.objects.create(
        name=name, digest=_digest(token), scopes=" ".join(sorted(set(scopes))), expires=ends
    )
    record("system", "token.added", name, scopes=sorted(set(scopes)), days=days)
    return token


def revoke_token(name: str) -> None:
    """End a token at once.

    Raises:
        ConfigError: there is none of that name, or it was revoked before.
    """
    if not ApiToken.objects.filter(name=name, revoked=None).update(revoked=timezone.now()):
        raise ConfigError(f"no valid token '{name}'; `millie tokens list` shows all")
    record("system", "token.revoked", name)


def state_of(token: ApiToken, now: datetime) -> str:
    """``valid``, ``revoked`` or ``expired``."""
    if token.revoked:
        return "revoked"
    return "expired" if token.expires and token.expires <= now else "valid"


def token_of(text: str) -> ApiToken | None:
    """The valid token that a machine showed, or None."""
    token = ApiToken.objects.filter(digest=_digest(text)).first()
    now = timezone.now()
    if token is None or state_of(token, now) != "valid":
        return None
    if token.last_used is None or now - token.last_used > _USED_EVERY:
        ApiToken.objects.filter(pk=token.pk).update(last_used=now)
    return token


class Scope(HttpBearer):
    """Guards an operation: a valid token with one scope."""

    def __init__(self, scope: str) -> None:
        super().__init__()
        self.scope = scope

    def authenticate(self, request: HttpRequest, token: str) -> Any:  # noqa: ARG002
        """The token that a machine showed.

        Raises:
            AuthenticationError: it is not valid: 401.
            HttpError: it lacks the scope: 403.
        """
        found = token_of(token)
        if found is None:
            raise AuthenticationError
        if self.scope not in found.scopes.split():
            raise HttpError(403, f"this token has no scope '{self.scope}'")
        return found


def _digest(token: str) -> str:
    """A token is drawn at random from 256 bits: a slow digest would add nothing."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
