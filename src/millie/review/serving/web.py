"""The web server: waitress, whose refusals before the application are problems too.

A body that is too large, or that the disk has no room for, is refused by its stated length, before
a byte of it is taken.
"""

from __future__ import annotations

import errno
import json
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import create_server
from waitress.task import ErrorTask
from waitress.utilities import Error

from millie.errors import ConfigError
from millie.review import problems
from millie.review.intake.limits import MAX_UPLOAD_BYTES, NoSpaceError, TooLargeError, check_length

if TYPE_CHECKING:
    from collections.abc import Callable

    from millie.review.serving.start import Service

_THREADS = 8
_SLOW_CLIENT_S = 120

_TEXTS = {
    400: "the request is not well-formed HTTP",
    413: f"more than {MAX_UPLOAD_BYTES / 1e9:g} GB in one request: send fewer images",
}


class _RefusedError(Error):
    """A request that the limits refuse."""

    def __init__(self, status: int, detail: str) -> None:
        self.code = status
        self.reason = problems.content(status, detail)["title"]
        super().__init__(detail)


class _Parser(HTTPRequestParser):
    """Checks the length as soon as the header is there."""

    def parse_header(self, header_plus: bytes) -> None:
        """As waitress does; then the limits."""
        super().parse_header(header_plus)
        if self.content_length:
            try:
                check_length(self.content_length, Path(tempfile.gettempdir()))
            except (TooLargeError, NoSpaceError) as error:
                self.error = _RefusedError(problems.explained(error)[0], str(error))
                self.completed = True
                self.expect_continue = False  # else waitress would ask for the body all the same


class _ErrorTask(ErrorTask):
    """What waitress itself refuses, as a problem or a page."""

    def execute(self) -> None:
        """Write the answer and close."""
        error = self.request.error
        path = getattr(self.request, "path", "")
        detail = (
            error.body if isinstance(error, _RefusedError) else _TEXTS.get(error.code, error.body)
        )
        if path.startswith(problems.API):
            told = problems.content(error.code, detail)
            kind, body = problems.CONTENT_TYPE, json.dumps(told).encode()
        else:
            answer = problems.page(error.code, detail)
            kind, body = answer.headers["Content-Type"], answer.content
        self.status = f"{error.code} {error.reason}"
        self.response_headers.extend([("Content-Type", kind), ("Connection", "close")])
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):
    parser_class = _Parser
    error_task_class = _ErrorTask


def web_server(application: Callable[..., Any], service: Service, incoming: Path) -> Any:
    """A server that listens; ``run()`` serves until SystemExit or Ctrl-C.

    Args:
        application: of the WSGI standard.
        service: address and proxy.
        incoming: where bodies are kept while they arrive.

    Raises:
        ConfigError: the port is taken, or the address is not this machine's.
    """
    tempfile.tempdir = str(incoming)  # waitress asks for nothing else
    trust: dict[str, Any] = {}
    if service.proxy:
        trust = {
            "trusted_proxy": service.proxy, "trusted_proxy_count": 1,
            "trusted_proxy_headers": {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"},
        }  # fmt: skip
    server = create_server(
        application, sockets=[_socket(service)], threads=_THREADS, ident="millie",
        clear_untrusted_proxy_headers=True, channel_timeout=_SLOW_CLIENT_S,
        max_request_body_size=MAX_UPLOAD_BYTES, **trust,
    )  # fmt: skip
    server.channel_class = _Channel
    return server


def _socket(service: Service) -> socket.socket:
    """A socket that is bound; waitress leaves its own open where that fails."""
    host = "127.0.0.1" if service.host == "localhost" else service.host
    try:
        family, *_, address = socket.getaddrinfo(host, service.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise ConfigError(_why(error, service)) from error


def _why(error: OSError, service: Service) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {service.port} of {service.host} is taken by another program: end that one, or "
            "choose another with --port"
        )
    return f"cannot listen at {service.host} port {service.port}: {error.strerror or error}"
