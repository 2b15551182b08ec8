"""The built site: small, whole, and silent towards other servers. `make docs` runs this."""

from __future__ import annotations

import os
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

_MOST_BYTES = 20_000_000
_LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
_BY_EYE = (
    "index", "start/first-analysis", "tutorials/1-call-a-patient", "reference/files",
    "reference/commands",
)  # fmt: skip
_NEEDED = "needs Chromium and the extra review-test"
_OTHER_LINKS = {"canonical", "license"}


@pytest.fixture(scope="module")
def site() -> Path:
    """Folder of the pages."""
    place = os.environ.get("MILLIE_SITE")
    if not place:
        pytest.skip("no site was built; run: make docs")
    return Path(place)


class _Loaded(HTMLParser):
    """What a page makes a browser fetch, and its pictures without a text."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        address = found.get(_LOADS.get(tag, ""))
        if address and found.get("rel") not in _OTHER_LINKS:
            self.addresses.append(address)
        if tag == "img" and not found.get("alt"):
            self.silent.append(address or "")


def _pages(site: Path) -> dict[str, _Loaded]:
    found = {}
    for path in sorted(site.rglob("*.html")):
        parser = _Loaded()
        parser.feed(path.read_text(encoding="utf-8"))
        found[path.relative_to(site).as_posix()] = parser
    return found


def test_no_page_asks_another_server(site: Path) -> None:
    pages = _pages(site)
    assert len(pages) > 30
    for name, page in pages.items():
        assert not [a for a in page.addresses if "//" in a], name
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert "url(http" not in text
        assert "url(//" not in text
        assert "@import" not in text


def test_every_picture_has_a_text(site: Path) -> None:
    assert not {name: page.silent for name, page in _pages(site).items() if page.silent}


def test_what_a_page_loads_is_there(site: Path) -> None:
    for name, page in _pages(site).items():
        for address in page.addresses:
            if not address.startswith(("data:", "#")):
                assert ((site / name).parent / address.partition("?")[0].partition("#")[0]).exists()


def test_it_is_small(site: Path) -> None:
    assert sum(p.stat().st_size for p in site.rglob("*") if p.is_file()) < _MOST_BYTES


def test_tutorials_were_executed(site: Path) -> None:
    tutorials = sorted((site / "tutorials").glob("*.html"))
    assert len(tutorials) == 6
    for path in tutorials:
        assert "cell_output" in path.read_text(encoding="utf-8"), path.name


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width_px", [1280, 390])
def test_pages_are_accessible_and_fit_a_phone(site: Path, width_px: int, scheme: str) -> None:
    """axe finds nothing, nothing hangs over the edge, and the browser asks no other server."""
    play = pytest.importorskip("playwright.sync_api", reason=_NEEDED)
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason=_NEEDED)
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not program:
        pytest.skip(_NEEDED)
    asked: list[str] = []
    with play.sync_playwright() as browsers:
        browser = browsers.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        shape = {"width": width_px, "height": 900}
        page = browser.new_page(viewport=shape, color_scheme=scheme)
        page.on("request", lambda request: asked.append(request.url))
        for name in _BY_EYE:
            page.goto((site / f"{name}.html").resolve().as_uri())
            found = axe.Axe().run(page).response["violations"]
            assert not found, (name, [(v["id"], v["nodes"][0]["html"]) for v in found])
            assert page.evaluate("document.documentElement.scrollWidth") <= width_px, name
        browser.close()
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]
