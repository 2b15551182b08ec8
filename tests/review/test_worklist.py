from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.test import Client


def test_an_empty_worklist_says_so(reviewer: Client) -> None:
    assert "No sample is waiting." in reviewer.get("/").content.decode()


def test_who_is_not_logged_in_is_asked_to(client: Client, db: None) -> None:
    assert client.get("/").headers["Location"].startswith("/login")
