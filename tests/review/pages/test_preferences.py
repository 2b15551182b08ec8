from __future__ import annotations

from typing import TYPE_CHECKING

from millie.review.models import AuditEvent, Preference

if TYPE_CHECKING:
    from django.test import Client


def test_blind_first_is_turned_on_and_off_and_recorded(reviewer: Client) -> None:
    reviewer.post("/preferences", {"blind_first": "on"})
    assert Preference.objects.get().blind_first
    assert " checked" in reviewer.get("/preferences").content.decode()
    reviewer.post("/preferences", {})
    assert not Preference.objects.get().blind_first
    assert AuditEvent.objects.filter(action="preference.blind_first").count() == 2
