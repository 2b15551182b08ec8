from __future__ import annotations

import http.client
import json
import logging
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from waitress import wasyncore

from millie.errors import BundleError, BusyError, ConfigError, MissingFileError
from millie.files import held
from millie.models.bundle_folder import locate
from millie.review.intake import limits
from millie.review.models import Sample
from millie.review.roles import Act, may
from millie.review.serving import database, demo
from millie.review.serving.beside import Beside
from millie.review.serving.logs import JsonLines
from millie.review.serving.run import _users, serve
from millie.review.serving.start import Service, check
from millie.review.serving.web import web_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from millie.review.data_folder import DataFolder


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"host": "0.0.0.0"}, "without TLS"),  # noqa: S104
        ({"host": "millie.example"}, "without TLS"),
        ({"proxy": "10.0.0.5"}, "--name"),
        ({"proxy": "proxy", "names": ("a",)}, "IP address"),
        ({"host": "10.0.0.1", "proxy": "10.0.0.5", "names": ("a",), "demo": True}, "--demo"),
        ({"database": "mysql://x/y"}, "postgresql"),
    ],
)
def test_what_is_not_in_order_is_told(tmp_path: Path, words: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        check(Service(tmp_path / "data", **words))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_this_machine_alone_is_the_rule(tmp_path: Path, host: str) -> None:
    check(Service(tmp_path / "data", host=host))
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0


def test_behind_a_proxy_it_may_be_reached(tmp_path: Path) -> None:
    check(Service(tmp_path, host="10.0.0.1", proxy="10.0.0.5", names=("millie.example",)))


def test_folders_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    a_file = tmp_path / "file"
    a_file.write_text("x")
    with pytest.raises(ConfigError, match="cannot be written"):
        check(Service(a_file / "data"))
    with pytest.raises(ConfigError, match="no such folder"):
        check(Service(tmp_path / "data", watch=tmp_path / "nothing"))
    inside = tmp_path / "data" / "images"
    with pytest.raises(ConfigError, match="lies in the data folder"):
        check(Service(tmp_path / "data", watch=inside))


def test_a_model_that_was_altered_or_is_not_there_is_told(tmp_path: Path) -> None:
    import shutil  # noqa: PLC0415

    with pytest.raises(MissingFileError, match="no-model"):
        check(Service(tmp_path / "data", bundle="no-model"))
    bundle = tmp_path / "model"
    shutil.copytree(locate("acute-leukaemia"), bundle)
    with (bundle / "weights.safetensors").open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\xff")
    with pytest.raises(BundleError, match="was altered"):
        check(Service(tmp_path / "data", bundle=f"{bundle}{os.sep}"))


def test_a_second_server_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    service = Service(tmp_path / "data")
    check(service)
    lock = service.data / "serve.lock"
    before = dict(os.environ)
    try:
        with held(lock, service.data), pytest.raises(BusyError, match="in use"):
            serve(service, print)
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.mark.django_db
def test_the_database_of_a_newer_version_is_refused() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO django_migrations (app, name, applied) VALUES ('review', '9999_new', %s)",
            ["2030-01-01 00:00:00+00:00"],
        )
    with pytest.raises(ConfigError, match="newer version of millie"):
        database.bring_up_to_date()


@pytest.mark.django_db
def test_a_database_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError  # noqa: PLC0415

    def fail(*_: object) -> None:
        raise OperationalError("file is not a database")

    monkeypatch.setattr(database, "MigrationLoader", fail)
    with pytest.raises(ConfigError, match="file is not a database"):
        database.bring_up_to_date()


@pytest.mark.django_db
def test_the_first_start_makes_one_administrator_and_shows_the_password_once(
    tmp_path: Path,
) -> None:
    database.bring_up_to_date()
    service = Service(tmp_path)
    outside = Service(tmp_path, host="10.0.0.1", proxy="10.0.0.5", names=("a",))
    with pytest.raises(ConfigError, match="nobody can log in"):
        _users(outside)
    lines = _users(service)
    user = User.objects.get()
    assert user.check_password(lines[0].rpartition(" ")[2])
    assert all(may(user, act) for act in (Act.MANAGE, Act.SIGN))
    assert not user.is_superuser
    assert _users(service) == _users(outside) == []


@pytest.mark.django_db
def test_the_demo_is_kept_away_from_real_users(
    tmp_path: Path, make_user: Callable[..., User]
) -> None:
    database.bring_up_to_date()
    first = _users(Service(tmp_path, demo=True))
    again = _users(Service(tmp_path, demo=True))
    assert first != again  # a new password at each start
    assert User.objects.get().check_password(again[0].rpartition(" ")[2])
    make_user("ann", "reviewer")
    with pytest.raises(ConfigError, match="data folder of its own"):
        _users(Service(tmp_path, demo=True))


@pytest.mark.django_db
def test_the_demo_submits_one_patient_of_each_diagnosis_once(
    data: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_CELLS", 4)
    monkeypatch.setattr(demo.connection, "close", lambda: None)
    demo.fill()
    demo.fill()
    assert Sample.objects.count() == 4
    assert not list(data.incoming.iterdir())


def test_a_process_that_dies_is_started_again_and_ended_with_the_server() -> None:
    with Beside("http.server", ["0", "--bind", "127.0.0.1"], {}) as beside:
        first = beside._process
        first.send_signal(signal.SIGKILL)
        until = time.monotonic() + 30
        while beside._process is first and time.monotonic() < until:
            time.sleep(0.05)
        second = beside._process
        assert second.pid != first.pid
        assert second.poll() is None
    assert second.poll() is not None


def application(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
    body = environ["wsgi.input"].read()
    start("200 OK", [("Content-Type", "text/plain"), ("X-From", environ["REMOTE_ADDR"])])
    return [b"%d" % len(body)]


@contextmanager
def running(tmp_path: Path, **words: Any) -> Iterator[int]:
    server = web_server(application, Service(tmp_path, port=0, **words), tmp_path)
    stopped = threading.Event()

    def run() -> None:
        while not stopped.is_set():
            wasyncore.loop(0.05, use_poll=False, map=server._map, count=1)
        server.task_dispatcher.shutdown()
        wasyncore.close_all(server._map)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield server.effective_port
    finally:
        stopped.set()
        thread.join(30)


def ask(port: int, path: str, length: int, **headers: str) -> tuple[int, str, bytes]:
    """Send a header that states a length, and no body unless it is short."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connected:
        lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {length}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        connected.sendall("\r\n".join([*lines, "", ""]).encode())
        if length < 100:
            connected.sendall(b"x" * length)
        answer = http.client.HTTPResponse(connected)
        answer.begin()
        kind = answer.headers["Content-Type"]
        return answer.status, kind, answer.read()


def test_ten_gigabytes_are_refused_before_a_byte_of_them(tmp_path: Path) -> None:
    with running(tmp_path) as port:
        assert ask(port, "/submit", 5)[::2] == (200, b"5")
        for more in ({}, {"Expect": "100-continue"}):
            status, kind, body = ask(port, "/api/v1/samples", 10_000_000_000, **more)
            assert (status, kind) == (413, "application/problem+json")
            assert "more than 2 GB in one request" in json.loads(body)["detail"]
        status, kind, body = ask(port, "/submit", 10_000_000_000)
        assert (status, kind) == (413, "text/html; charset=utf-8")
        assert b"more than 2 GB in one request" in body


def test_no_room_on_the_disk_is_refused_before_a_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda _: usage)
    with running(tmp_path) as port:
        status, kind, body = ask(port, "/api/v1/samples", 1_000_000)
    assert (status, kind) == (507, "application/problem+json")
    assert "free some space" in json.loads(body)["detail"]


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} .* is taken"):
            web_server(application, Service(tmp_path, port=port), tmp_path)


def test_an_address_of_another_machine_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot listen"):
        web_server(application, Service(tmp_path, host="192.0.2.1", port=0), tmp_path)


def test_logs_are_json_without_what_errors_quote() -> None:
    try:
        int("Jane Doe.png is no image")
    except ValueError as error:
        told = (type(error), error, error.__traceback__)
    ours = logging.makeLogRecord({"name": "millie.review.x", "msg": "job ended", "job": 7,
                                  "levelname": "INFO", "exc_info": told})  # fmt: skip
    line = json.loads(JsonLines().format(ours))
    assert (line["event"], line["job"], line["error"]) == ("job ended", 7, "ValueError")
    assert any("test_logs_are_json" in call for call in line["calls"])
    theirs = logging.makeLogRecord({"name": "django", "msg": "no %s", "args": ("Jane Doe",)})
    assert "Doe" not in JsonLines().format(ours) + JsonLines().format(theirs)
