"""``millie serve``: checks, then the web server with the worker and the watcher beside it."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import django

from millie.errors import ConfigError
from millie.files import held
from millie.review.data_folder import DataFolder
from millie.review.serving.start import check

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from millie.review.serving.start import Service

ADMINISTRATOR, DEMO = "admin", "demo"
"""Names of the users that are made where there is none."""


def serve(service: Service, say: Callable[[str], None]) -> None:
    """Serve until told to stop (Ctrl-C, SIGTERM).

    Args:
        service: what was asked for.
        say: tells a person at the terminal.

    Raises:
        ConfigError: something is not in order; the message says what to do.
        BusyError: another server works in the data folder.
    """
    check(service)
    data = DataFolder(service.data)
    os.environ.update(service.environment())
    with ExitStack() as stack:
        stack.enter_context(held(data.root / "serve.lock", data.root))
        django.setup()
        _serve(service, data, say, stack)


def _serve(
    service: Service, data: DataFolder, say: Callable[[str], None], stack: ExitStack
) -> None:
    # Modules with tables can be imported once Django is set up.
    from django.core.wsgi import get_wsgi_application  # noqa: PLC0415
    from django.urls import get_resolver  # noqa: PLC0415

    from millie.review.intake import door  # noqa: PLC0415
    from millie.review.jobs import calling  # noqa: PLC0415
    from millie.review.serving import database, demo  # noqa: PLC0415
    from millie.review.serving.beside import Beside  # noqa: PLC0415
    from millie.review.serving.logs import set_up_logs  # noqa: PLC0415
    from millie.review.serving.web import web_server  # noqa: PLC0415

    get_resolver().url_patterns  # noqa: B018 - every view is imported now, not at the first request
    database.bring_up_to_date()
    for line in _users(service):
        say(line)
    door.sweep(data)
    calling.sweep(data)
    server = web_server(get_wsgi_application(), service, data.incoming)
    set_up_logs()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    stack.enter_context(Beside("millie.review.jobs", [], service.environment()))
    if service.watch is not None:
        words = [str(service.watch.resolve())]
        stack.enter_context(Beside("millie.review.intake", words, service.environment()))
    if service.demo:
        threading.Thread(target=demo.fill, name="demo", daemon=True).start()
    say(f"millie review: http://{_shown(service, server)}/   (Ctrl-C ends it)")
    server.run()


def _users(service: Service) -> list[str]:
    """Make the first user where there is none; what to say of it.

    Raises:
        ConfigError: others would reach a server that nobody can log in to.
    """
    from millie.review.roles import Role  # noqa: PLC0415
    from millie.review.serving import database  # noqa: PLC0415
    from millie.review.users import accounts  # noqa: PLC0415

    if service.demo:
        password = database.demo_user(DEMO)
        return [f"Log in as '{DEMO}' with the password {password}", "All samples are drawn."]
    if database.has_users():
        return []
    if not service.is_local or service.proxy:
        raise ConfigError(
            "nobody can log in yet: start once without --host and --behind-proxy, note the "
            "administrator's password and make users (`millie users add`)"
        )
    password = accounts.add(ADMINISTRATOR, [Role.ADMINISTRATOR, Role.SUPERVISOR])
    return [
        f"First start: log in as '{ADMINISTRATOR}' with the password {password}",
        "It is shown this once. Make a user for each person with `millie users add`.",
    ]


def _shown(service: Service, server: object) -> str:
    port = getattr(server, "effective_port", service.port)
    host = f"[{service.host}]" if ":" in service.host else service.host
    return f"{host}:{port}"


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
