"""What a refused or failed request is answered with: RFC 9457 for programs, a page for people.

One table says which error is which status. Owns that table and the two forms.
"""

from __future__ import annotations

import logging
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.template.loader import render_to_string

from millie.errors import ConfigError
from millie.review.intake.limits import RefusedError, TooLargeError, is_full_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONTENT_TYPE = "application/problem+json"
API = "/api/"
INSUFFICIENT_STORAGE = 507
_UNEXPECTED_STATUS = 500

log = logging.getLogger("millie.review.problems")

_FULL = (
    "The disk of the data folder is full. Nothing of this request was kept: free some space, then "
    "send it again."
)
_UNEXPECTED = (
    "The server met an error that it did not expect. Nothing of this request was kept; try again, "
    "and if that does not help, report it with the lines of the server's log."
)


def content(status: int, detail: str, **more: Any) -> dict[str, Any]:
    """The members of RFC 9457, 3.1: the kinds of problem have no page, so ``type`` is blank."""
    title = HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}


def problem(status: int, detail: str, **more: Any) -> JsonResponse:
    """An answer for a program."""
    return JsonResponse(content(status, detail, **more), status=status, content_type=CONTENT_TYPE)


def page(status: int, detail: str, refusals: Any = ()) -> HttpResponse:
    """An answer for a person; needs no database."""
    told = {"title": HTTPStatus(status).phrase, "detail": detail, "refusals": refusals}
    return HttpResponse(render_to_string("review/problem.html", told), status=status)


def explained(error: BaseException) -> tuple[int, str, dict[str, Any]]:
    """Status, text and further members for an error of the door, or any other."""
    if isinstance(error, RefusedError):
        files = [{"name": each.name, "reason": each.reason} for each in error.refusals]
        return 422, "Nothing was kept: files that cannot be used.", {"files": files}
    if isinstance(error, TooLargeError):
        return 413, str(error), {}
    if is_full_disk(error):
        return INSUFFICIENT_STORAGE, _FULL, {}
    if isinstance(error, ConfigError):
        return 422, str(error), {}
    return _UNEXPECTED_STATUS, _UNEXPECTED, {}


def wants_json(request: HttpRequest) -> bool:
    """Whether a program asks, or a script of a page."""
    accepted: Mapping[str, str] = request.headers
    return request.path.startswith(API) or "json" in accepted.get("Accept", "")


def answer(request: HttpRequest, error: BaseException) -> HttpResponse:
    """The answer to an error, in the form that was asked for."""
    status, detail, more = explained(error)
    if status == _UNEXPECTED_STATUS:
        log.error("unexpected", exc_info=error)
    if wants_json(request):
        return problem(status, detail, **more)
    return page(status, detail, more.get("files", ()))


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's ``handler500``: an error that no view has answered."""
    return answer(request, sys.exc_info()[1] or RuntimeError())


class ApiProblems:
    """Middleware: whatever else answers a program's request with an error, does so as a problem.

    Django and the API's router answer unknown addresses, wrong methods and malformed bodies in
    forms of their own.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer a request."""
        response = self._get_response(request)
        kind = response.headers.get("Content-Type", "")
        if response.status_code < 400 or "json" in kind or not request.path.startswith(API):
            return response
        told = problem(response.status_code, _STANDARD.get(response.status_code, ""))
        for name, value in response.headers.items():
            told.headers.setdefault(name, value)
        told.headers["Content-Length"] = str(len(told.content))
        return told


_STANDARD = {
    400: "The request could not be understood: check its form, its fields and the host name.",
    403: "This is not allowed.",
    404: "There is nothing at this address.",
    405: "This method is not offered here; the header Allow lists those that are.",
}
