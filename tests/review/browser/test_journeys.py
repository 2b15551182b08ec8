"""Whole journeys of a reader, in real Chromium."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page
    from tests.review.browser.conftest import Site

pytestmark = pytest.mark.review_long

_DECIDED = """SELECT count(*) FROM review_cell c JOIN review_analysis a ON a.id = c.analysis_id
    JOIN review_sample s ON s.id = a.sample_id WHERE s.pseudonym = ? AND c.decision = ?"""


def _gallery(page: Page, site: Site, sample: str) -> None:
    page.goto(f"{site.address}/samples/{sample}/cells")
    page.wait_for_selector("#gallery [role=option]")


def _now(page: Page) -> str:
    return page.get_attribute("#gallery", "aria-activedescendant") or ""


def _status(page: Page, text: str) -> None:
    page.locator("#status", has_text=text).wait_for()


def test_a_review_by_keyboard_alone(
    open_as: Callable[..., Page], site: Site, until: Callable[..., None]
) -> None:
    page = open_as("rita")
    shown = page.locator("#worklist tbody th a").all_inner_texts()
    assert shown == ["S-first", "S-second", "S-waits"]
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.wait_for_url("**/samples/S-first/")
    assert "not a diagnosis" in page.inner_text("main")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Review cells":
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/cells?show=flagged")
    page.wait_for_selector("#gallery [role=option]")
    _status(page, "Press ?")
    first = _now(page)
    page.keyboard.press("1")
    assert _now(page) != first  # on to the next
    page.keyboard.press("5")
    until(1, _DECIDED, "S-first", "blast")
    until(1, _DECIDED, "S-first", "lymphocyte")
    page.keyboard.press("z")
    until(0, _DECIDED, "S-first", "lymphocyte")
    assert page.locator(f"#{first}").get_attribute("class") == "cell confirmed"
    assert "✓ Blast" in page.locator(f"#{first}").inner_text()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("x")
    until(3, _DECIDED, "S-first", "artefact")
    page.locator("#count", has_text="Not a cell: artefact").wait_for()
    page.keyboard.press("z")
    until(0, _DECIDED, "S-first", "artefact")
    page.keyboard.press("?")
    page.locator("#help[open]").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("h")
    assert not page.locator(".cell.suggested").count()
    page.keyboard.press("h")
    page.keyboard.press("f")
    page.wait_for_url("**/fields/*?cell=*")
    _status(page, "of ")
    page.keyboard.press("n")
    page.keyboard.press("2")
    until(1, _DECIDED, "S-first", "promyelocyte")
    page.keyboard.press("z")
    until(0, _DECIDED, "S-first", "promyelocyte")
    kept = site.rows("SELECT code, version FROM review_celldecision ORDER BY id")
    assert kept[:3] == [("blast", 1), ("lymphocyte", 1), ("", 2)]


def test_a_group_is_decided_at_once(
    open_as: Callable[..., Page], site: Site, until: Callable[..., None]
) -> None:
    page = open_as("rita")
    _gallery(page, site, "S-second")
    group = page.locator("#gallery .group").first.get_attribute("aria-label") or ""
    n = int(group.rpartition(",")[2].split()[0])
    page.keyboard.press("Control+a")
    page.keyboard.press("u")
    until(n, _DECIDED, "S-second", "unidentified")
    page.keyboard.press("z")
    until(0, _DECIDED, "S-second", "unidentified")


def test_two_people_at_one_cell(
    open_as: Callable[..., Page], site: Site, until: Callable[..., None]
) -> None:
    one, other = open_as("rita"), open_as("bea")
    for page in (one, other):
        _gallery(page, site, "S-second")
        page.uncheck("#advance")
        page.focus("#gallery")
    one.keyboard.press("6")
    until(1, _DECIDED, "S-second", "monocyte")
    other.keyboard.press("7")
    told = other.locator("dialog[open]").inner_text()
    assert "rita decided “Monocyte”" in told
    other.click("[data-choice=theirs]")
    other.locator(".cell.now", has_text="Monocyte").wait_for()
    assert site.rows(_DECIDED, "S-second", "eosinophil") == [(0,)]
    other.keyboard.press("8")
    until(1, _DECIDED, "S-second", "basophil")
    one.keyboard.press("9")
    one.locator("dialog[open]").wait_for()
    one.click("[data-choice=mine]")
    until(1, _DECIDED, "S-second", "erythroblast")
    one.keyboard.press("z")
    until(0, _DECIDED, "S-second", "erythroblast")


def test_a_session_that_ends_in_the_middle_loses_nothing(
    open_as: Callable[..., Page], site: Site, until: Callable[..., None]
) -> None:
    page = open_as("rita")
    _gallery(page, site, "S-second")
    page.keyboard.press("4")
    until(1, _DECIDED, "S-second", "neutrophil")
    page.context.clear_cookies()
    page.keyboard.press("4")
    page.keyboard.press("4")
    assert "You are logged out" in page.locator("dialog[open]").inner_text()
    with page.expect_popup() as popup:
        page.click("[data-choice=login]")
    login = popup.value
    login.fill("#id_username", "rita")
    login.fill("#id_password", "correct horse battery staple")
    login.click("main button")
    login.wait_for_selector("#worklist")
    login.close()
    page.bring_to_front()
    again = page.locator("[data-choice=again]")
    page.wait_for_timeout(5000)  # by itself, once the login is there
    if again.is_visible():
        again.click()
    until(3, _DECIDED, "S-second", "neutrophil")


def test_a_server_that_cannot_be_reached_loses_nothing(
    open_as: Callable[..., Page], site: Site, until: Callable[..., None]
) -> None:
    page = open_as("rita")
    _gallery(page, site, "S-first")
    before = site.rows(_DECIDED, "S-first", "basophil")[0][0]
    page.context.set_offline(offline=True)
    page.keyboard.press("8")
    _status(page, "The server cannot be reached")
    page.context.set_offline(offline=False)
    until(before + 1, _DECIDED, "S-first", "basophil")


def test_a_refresh_keeps_the_focus(open_as: Callable[..., Page], site: Site) -> None:
    page = open_as("rita")
    page.keyboard.press("j")
    seen = page.get_attribute("#worklist", "hx-get") or ""
    page.evaluate("document.getElementById('worklist').setAttribute('data-old', 'yes')")
    page.evaluate(
        "address => { const list = document.getElementById('worklist');"
        "list.setAttribute('hx-get', address); htmx.process(list); }",
        seen.replace("seen=", "seen=stale"),
    )
    page.evaluate("htmx.ajax('GET', '/worklist/rows', {target: '#worklist', swap: 'outerHTML'})")
    page.wait_for_selector("#worklist:not([data-old])")
    assert page.evaluate("document.activeElement.id") == "open-S-second"


def test_blind_first_shows_a_suggestion_for_a_decision(
    open_as: Callable[..., Page], site: Site
) -> None:
    page = open_as("bea")
    page.goto(f"{site.address}/preferences")
    page.check("#blind_first")
    page.click("main button")
    _gallery(page, site, "S-first")
    assert page.locator(".cell.suggested").count() == 0
    assert "Suspected" not in page.inner_text("main")
    page.uncheck("#advance")
    page.focus("#gallery")
    page.keyboard.press("3")
    _status(page, "Saved")
    page.locator("#about", has_text="speaks for").wait_for()
    page.goto(f"{site.address}/preferences")
    page.uncheck("#blind_first")
    page.click("main button")


_LEFT = """SELECT count(*) FROM review_cell c JOIN review_sample s ON s.analysis_id = c.analysis_id
    WHERE s.pseudonym = ? AND c.flagged AND c.decision = ''"""


def _tab_to(page: Page, selector: str) -> None:
    for _ in range(80):
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"no way by Tab to {selector}")


def _concluded(page: Page, code: str) -> None:
    """A conclusion chosen with the space bar and the arrows, as a radio group is."""
    _tab_to(page, "input[name=diagnosis]")
    page.keyboard.press("Space")
    for _ in range(7):
        if page.evaluate("document.activeElement.value") == code:
            return
        page.keyboard.press("ArrowDown")
    pytest.fail(f"no conclusion {code}")


def test_from_the_cells_to_the_signature_the_second_review_and_the_audit_trail(
    open_as: Callable[..., Page], site: Site, until: Callable[..., None]
) -> None:
    page = open_as("bea")
    page.goto(f"{site.address}/samples/S-first/sign")
    assert page.locator("button.primary", has_text="Sign").is_disabled()
    page.goto(f"{site.address}/samples/S-first/cells?show=flagged")
    page.wait_for_selector("#gallery [role=option]")
    _status(page, "Press ?")
    page.select_option("#group", "none")
    page.focus("#gallery")
    page.keyboard.press("Control+a")
    page.keyboard.press("2")
    until(0, _LEFT, "S-first")

    page.goto(f"{site.address}/samples/S-first/escalations")
    _tab_to(page, "#id_called")
    page.keyboard.type("ward 3")
    _tab_to(page, "main button.primary")
    page.keyboard.press("Enter")
    page.locator("text=The call is logged.").wait_for()

    page.goto(f"{site.address}/samples/S-first/sign")
    while page.locator("button", has_text="Acknowledge").count():
        _tab_to(page, "form[action$=acknowledge] button")
        page.keyboard.press("Enter")
        page.wait_for_load_state("networkidle")
    _concluded(page, "APL")
    _tab_to(page, "#password")
    page.keyboard.type("correct horse battery staple")
    page.keyboard.press("Enter")
    page.locator("text=S-first is signed.").wait_for()

    other = open_as("sam")
    other.goto(f"{site.address}/second-reviews/")
    _tab_to(other, "main li a")
    other.keyboard.press("Enter")
    other.wait_for_url("**/second-reviews/S-first")
    assert "bea" not in other.inner_text("main")
    _concluded(other, "AML")
    _tab_to(other, "main button.primary")
    other.keyboard.press("Enter")
    other.locator(".badge", has_text="Disagree").wait_for()
    other.goto(f"{site.address}/quality")
    with other.expect_download() as told:
        other.click("text=Conclusions (CSV)")
    assert "S-first,1,1,APL" in told.value.path().read_text(encoding="utf-8-sig")
    other.goto(f"{site.address}/audit?verify=1")
    trail = other.inner_text("main")
    assert "Whole" in trail
    for action in ("cell.decided", "escalation.logged", "sample.signed", "second_review.given",
                   "sample.reopened"):  # fmt: skip
        assert action in trail
    page.goto(site.address)
    assert "S-first" in page.locator("#worklist tbody th a").all_inner_texts()
