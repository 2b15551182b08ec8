"""For whoever keeps the service running: is it well, and its numbers."""

from __future__ import annotations

import ipaddress
from contextlib import suppress

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from millie.review.api.tokens import token_of
from millie.review.health import OK, REGISTRY, checks_of


def healthz(_: HttpRequest) -> JsonResponse:
    """Database, worker and disk; open to everybody, and says nothing of samples."""
    found = checks_of(settings.DATA)
    working = all(text == OK for text in found.values())
    status = {"status": "ok" if working else "failing", "checks": found}
    return JsonResponse(status, status=200 if working else 503)


def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus metrics, for this machine itself or with a token of the scope ``metrics``.

    Raises:
        PermissionDenied: neither.
    """
    if not (_is_here(request) or _has_token(request)):
        raise PermissionDenied("metrics are for this machine, or need a token with that scope")
    return HttpResponse(generate_latest(REGISTRY), content_type=CONTENT_TYPE_LATEST)


def _is_here(request: HttpRequest) -> bool:
    if settings.HTTPS:  # behind a proxy, which may stand for anybody
        return False
    with suppress(ValueError):
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    return False


def _has_token(request: HttpRequest) -> bool:
    kind, _, text = request.headers.get("Authorization", "").partition(" ")
    token = token_of(text) if kind == "Bearer" else None
    return token is not None and "metrics" in token.scopes.split()
