"""Real Chromium against a real server, each in a process of its own."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

PASSWORD = "correct horse battery staple"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Site:
    """A running installation with a suspected and another sample, and one that waits."""

    address: str
    data: Path

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What its database says, read from beside."""
        uri = f"file:{self.data / 'millie.sqlite3'}?mode=ro"
        database = sqlite3.connect(uri, uri=True)
        try:
            return database.execute(query, values).fetchall()
        finally:
            database.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    import millie
    from millie.synthetic import write_cohort

    data = tmp_path_factory.mktemp("site")
    films = write_cohort(data / "films", 4, 5, cells_per_patient=60).parent
    words: list[str] = []
    for pseudonym, name in (("S-second", "P001"), ("S-first", "P002")):
        images = data / "work" / pseudonym
        images.mkdir(parents=True)
        paths = sorted((films / "images" / name).glob("*.jpg"))
        for position, path in enumerate(paths, start=1):
            shutil.copyfile(path, images / f"image-{position}.jpg")
        millie.predict("acute-leukaemia", images, data / "samples" / pseudonym / "1" / "calls")
        words += [pseudonym, str(images)]
    env = {**os.environ, "MILLIE_REVIEW_DATA": str(data), "MILLIE_REVIEW_DATABASE": ""}
    subprocess.run(
        [sys.executable, Path(__file__).with_name("fill.py"), *words], env=env, check=True
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "waitress", "--threads", "8", "--listen", f"127.0.0.1:{port}",
        "millie.review.wsgi:application"]  # fmt: skip
    server = subprocess.Popen(command, env=env)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(address)
        yield Site(address, data)
    finally:
        server.terminate()
        server.wait()


def _wait(address: str) -> None:
    for _ in range(300):
        try:
            urlopen(f"{address}/login").close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError("the server does not answer")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_as(site: Site, chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Logs in: ``open_as("rita")``; nothing may be asked for off-origin, and no script may fail."""
    wrong: list[str] = []
    contexts = []

    def log_in(user: str, width: int = 1366, height: int = 768, **options: Any) -> Page:
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        _watch(page, site.address, wrong)
        page.goto(f"{site.address}/login")
        page.fill("#id_username", user)
        page.fill("#id_password", PASSWORD)
        page.click("main button")
        page.wait_for_selector("#worklist")
        return page

    yield log_in
    for context in contexts:
        context.close()
    assert not wrong


def _watch(page: Page, address: str, wrong: list[str]) -> None:
    def asked(request: Any) -> None:
        if not request.url.startswith((f"{address}/", "data:")):
            wrong.append(f"off-origin: {request.url}")

    page.on("request", asked)
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    page.on(
        "console",
        lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None,
    )


@pytest.fixture
def until(site: Site) -> Callable[..., None]:
    """Waits for the database: ``until(1, "SELECT count(*) FROM ...")``."""

    def wait(wanted: Any, query: str, *values: Any) -> None:
        end = time.monotonic() + 30
        while True:
            found = site.rows(query, *values)[0][0]
            if found == wanted or time.monotonic() > end:
                break
            time.sleep(0.05)
        assert found == wanted, query

    return wait
