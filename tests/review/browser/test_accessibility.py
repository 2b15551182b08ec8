"""axe-core on every page, WCAG 2.2 AA and best practice; and no page wider than its window."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page
    from tests.review.browser.conftest import Site

pytestmark = pytest.mark.review_long

PAGES = (
    "", "?show=all&q=none", "samples/S-first/", "samples/S-second/", "samples/S-waits/",
    "samples/S-first/cells", "samples/S-first/fields/1", "quality", "preferences", "nowhere",
)  # fmt: skip
RECORDS = (
    "submit", "samples/S-first/sign", "samples/S-first/escalations", "second-reviews/",
    "audit?verify=1", "users",
)  # fmt: skip
"""For other roles than a reviewer's."""
SIZES = {"1366": (1366, 768), "200 %": (683, 384), "390": (390, 844)}
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def _settle(page: Page) -> None:
    page.wait_for_load_state("networkidle")
    if page.locator("#status").count():
        page.locator("#status:not(:has-text('Loading'))").wait_for()


@pytest.mark.parametrize("size", SIZES)
def test_no_violation_and_no_sideways_scrolling(
    open_as: Callable[..., Page], site: Site, size: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    reader, keeper = (open_as(name, *SIZES[size]) for name in ("rita", "sam"))
    wrong = {}
    for page, path in [*((reader, p) for p in PAGES), *((keeper, p) for p in RECORDS)]:
        page.goto(f"{site.address}/{path}")
        _settle(page)
        found = axe.run(page, options=RULES).response["violations"]
        told = [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in found]
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if told or wide > 0:
            wrong[path] = told, wide
    assert not wrong


def test_dialogs_have_no_violation_either(open_as: Callable[..., Page], site: Site) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_as("rita")
    for path in ("", "samples/S-first/cells", "samples/S-first/fields/1"):
        page.goto(f"{site.address}/{path}")
        _settle(page)
        page.click("#help-open")
        assert not axe.run(page, options=RULES).response["violations"], path


def test_the_login_page(open_as: Callable[..., Page], site: Site) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_as("rita")
    page.click(".top button")
    page.wait_for_selector("#id_username")
    assert not axe.run(page, options=RULES).response["violations"]


def test_a_sample_prints_its_call_and_evidence(
    open_as: Callable[..., Page], site: Site, tmp_path: Path
) -> None:
    page = open_as("rita")
    page.goto(f"{site.address}/samples/S-first/")
    _settle(page)
    page.emulate_media(media="print")
    assert page.locator("#call").is_visible()
    assert page.locator(".strip img").first.is_visible()
    assert not page.locator(".top").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
