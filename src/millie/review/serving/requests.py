"""Each request in the log and in the metrics: what was asked, how it ended, how long it took."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from millie.review.health import REQUESTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponseBase

log = logging.getLogger("millie.review.requests")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Requests:
    """Middleware, the outermost. The route is logged, not the address: that may hold anything."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer a request."""
        started = time.perf_counter()
        response = self._get_response(request)
        seconds = time.perf_counter() - started
        method = request.method if request.method in _METHODS else "other"
        route = request.resolver_match.route if request.resolver_match else "static or unknown"
        facts = {"method": method, "route": route, "status": response.status_code}
        REQUESTS.labels(method, str(response.status_code)).observe(seconds)
        log.info("request", extra={**facts, "ms": round(seconds * 1000, 1)})
        return response
