from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import User
from django.urls import URLPattern, URLResolver, get_resolver
from tests.review.conftest import PASSWORD

from millie.errors import ConfigError
from millie.review.models import AuditEvent, LoginFailure
from millie.review.roles import ALLOWED, Act, Role
from millie.review.users import accounts
from millie.review.users.logins import MAX_OF_ADDRESS, MAX_OF_USER, WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.test import Client

    from millie.review.models import Sample

pytestmark = pytest.mark.django_db

OPEN = {"login", "logout", "session", "healthz", "metrics"}
"""For everybody: they ask for a password or a token, or say nothing about a sample."""


def _pages(
    patterns: list[URLPattern | URLResolver], before: str = ""
) -> Iterator[tuple[str, URLPattern]]:
    for one in patterns:
        route = before + str(one.pattern)
        if isinstance(one, URLResolver):
            yield from _pages(one.url_patterns, route)
        elif not route.startswith(("api/", "static/")) and one.name not in OPEN:
            yield route, one


PAGES = list(_pages(get_resolver().url_patterns))
FILLED = {
    "<str:pseudonym>": "S-drawn", "<path:page>": "report.html", "<int:pk>": "1",
    "<int:position>": "1", "<str:number>": "1", "<int:number>": "1",
    "<int:index>": "0", "<int:level>": "0", "<int:column>": "0", "<int:row>": "0",
}  # fmt: skip


@pytest.mark.parametrize(("route", "page"), PAGES, ids=[route for route, _ in PAGES])
def test_each_page_is_for_its_roles_alone(
    shown: Sample, client: Client, make_user: Callable[..., User], route: str, page: URLPattern
) -> None:
    act = getattr(page.callback, "requires", None)
    assert isinstance(act, Act), f"{route} asks for no role"
    for role in (None, *Role):
        client.force_login(make_user(f"user-{role}", *([role] if role else [])))
        status = client.get(_address(route)).status_code
        assert (status != 403) == (role is not None and act in ALLOWED[role]), role
        assert status < 500


def _address(route: str) -> str:
    for variable, value in FILLED.items():
        route = route.replace(variable, value)
    assert "<" not in route, f"{route}: no value is known here for a variable"
    return "/" + route


@pytest.mark.parametrize(("route", "page"), PAGES, ids=[route for route, _ in PAGES])
def test_who_is_not_logged_in_sees_no_page(client: Client, route: str, page: URLPattern) -> None:
    address = _address(route)
    assert client.get(address).headers["Location"].startswith("/login?")
    assert client.post(address).status_code == 302


def test_a_disabled_user_is_out_at_once(client: Client, make_user: Callable[..., User]) -> None:
    make_user("ann", "administrator")
    make_user("rita", "reviewer")
    client.login(username="rita", password=PASSWORD)
    assert client.get("/").status_code == 200
    accounts.disable("rita")
    assert client.get("/").status_code == 302
    assert not client.login(username="rita", password=PASSWORD)


def test_the_only_administrator_cannot_be_lost(make_user: Callable[..., User]) -> None:
    make_user("ann", "administrator")
    with pytest.raises(ConfigError, match="only administrator"):
        accounts.disable("ann")
    with pytest.raises(ConfigError, match="only administrator"):
        accounts.set_roles("ann", [Role.VIEWER])


@pytest.mark.parametrize(
    ("name", "password", "told"),
    [("rita", "", "already"), ("RITA", "", "already"), ("no spaces", "", "valid username"),
     ("bob", "short", "at least 12"), ("bob", "password12345", "common")],
)  # fmt: skip
def test_impossible_users_are_refused(
    make_user: Callable[..., User], name: str, password: str, told: str
) -> None:
    make_user("rita")
    with pytest.raises(ConfigError, match=told):
        accounts.add(name, [Role.VIEWER], password=password)


def test_guessing_is_refused_unseen_until_the_window_has_passed(
    client: Client, make_user: Callable[..., User]
) -> None:
    make_user("rita", "reviewer")
    for i in range(MAX_OF_USER):
        answer = client.post(
            "/login", {"username": "Rita" if i % 2 else "rita", "password": str(i)}
        )
        assert answer.status_code == 200
    right = {"username": "rita", "password": PASSWORD}
    assert "Too many failed logins" in client.post("/login", right).content.decode()
    assert AuditEvent.objects.filter(action="login.failed").count() == MAX_OF_USER
    LoginFailure.objects.update(at=datetime.now(UTC) - WINDOW - timedelta(seconds=1))
    assert client.post("/login", right).status_code == 302


def test_a_new_password_lets_in_who_was_locked_out(
    client: Client, make_user: Callable[..., User]
) -> None:
    make_user("rita", "reviewer")
    for _ in range(MAX_OF_USER):
        client.post("/login", {"username": "rita", "password": "wrong"})
    right = {"username": "rita", "password": accounts.reset("rita")}
    assert client.post("/login", right).status_code == 302


def test_pages_are_not_kept_by_the_browser(reviewer: Client) -> None:
    assert reviewer.get("/").headers["Cache-Control"] == "no-store"


def test_one_address_cannot_try_many_names(client: Client, make_user: Callable[..., User]) -> None:
    make_user("rita", "reviewer")
    for i in range(MAX_OF_ADDRESS):
        client.post("/login", {"username": f"user{i}", "password": "x"})
    answer = client.post("/login", {"username": "rita", "password": PASSWORD})
    assert "Too many" in answer.content.decode()


def test_passwords_are_kept_by_argon2() -> None:
    from millie.review import settings  # noqa: PLC0415 - the tests themselves hash faster

    assert settings.PASSWORD_HASHERS == ["django.contrib.auth.hashers.Argon2PasswordHasher"]


def test_the_page_adds_changes_and_resets(client: Client, make_user: Callable[..., User]) -> None:
    client.force_login(make_user("ann", "administrator"))
    added = client.post("/users", {"act": "add", "name": "bob", "roles": ["viewer"]}, follow=True)
    password = added.content.decode().partition("shown this once: ")[2].partition("<")[0].strip()
    assert client.login(username="bob", password=password)
    client.force_login(User.objects.get(username="ann"))
    client.post("/users", {"act": "roles", "name": "bob", "roles": ["reviewer", "supervisor"]})
    assert set(User.objects.get(username="bob").groups.values_list("name", flat=True)) == {
        "reviewer", "supervisor"
    }  # fmt: skip
    client.post("/users", {"act": "disable", "name": "bob"})
    assert not User.objects.get(username="bob").is_active
    assert (
        "no user"
        in client.post("/users", {"act": "reset", "name": "x"}, follow=True).content.decode()
    )
    assert list(AuditEvent.objects.values_list("action", flat=True)) == [
        "user.added", "user.roles", "user.disabled"
    ]  # fmt: skip
