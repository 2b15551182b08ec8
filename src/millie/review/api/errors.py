"""Each error that an operation can raise, as a problem (RFC 9457)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.core.exceptions import SuspiciousOperation, TooManyFilesSent
from django.http import Http404, HttpRequest, HttpResponse
from django.http.multipartparser import MultiPartParserError
from ninja.errors import AuthenticationError, HttpError, ValidationError

from millie.review import problems

if TYPE_CHECKING:
    from ninja import NinjaAPI


def register(api: NinjaAPI) -> None:
    """Let an API answer with problems."""
    for kind, handler in _HANDLERS.items():
        api.add_exception_handler(kind, handler)


def _wrong_fields(_: HttpRequest, error: ValidationError) -> HttpResponse:
    told = [{"where": list(each["loc"]), "what": each["msg"]} for each in error.errors]
    return problems.problem(422, "fields of the request are wrong", errors=told)


def _no_token(_: HttpRequest, _error: AuthenticationError) -> HttpResponse:
    answer = problems.problem(401, "a valid token is needed: Authorization: Bearer TOKEN")
    answer.headers["WWW-Authenticate"] = 'Bearer realm="millie"'
    return answer


def _as_raised(_: HttpRequest, error: HttpError) -> HttpResponse:
    return problems.problem(error.status_code, str(error))


def _not_found(_: HttpRequest, error: Http404) -> HttpResponse:
    return problems.problem(404, str(error))


def _malformed(_: HttpRequest, _error: Exception) -> HttpResponse:
    return problems.problem(400, "the body is not a well-formed multipart form")


def _too_many(_: HttpRequest, _error: TooManyFilesSent) -> HttpResponse:
    return problems.problem(413, "too many files in one request: send them as one zip")


_HANDLERS: dict[type[Exception], Callable[[HttpRequest, Any], HttpResponse]] = {
    ValidationError: _wrong_fields,
    AuthenticationError: _no_token,
    HttpError: _as_raised,
    Http404: _not_found,
    MultiPartParserError: _malformed,
    SuspiciousOperation: _malformed,
    TooManyFilesSent: _too_many,
    Exception: problems.answer,
}
