from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from millie.review.models import Preference

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client

    from millie.review.models import Sample


def test_the_chart_and_the_table_have_the_same_numbers(reviewer: Client, shown: Sample) -> None:
    answer = reviewer.get("/quality")
    week, blocks = answer.context["columns"][-1]
    assert week.total == 1
    assert sum(block.height for block in blocks) == pytest.approx(120)
    assert "<rect" in answer.content.decode()


def test_without_samples_there_is_no_share(reviewer: Client) -> None:
    assert "0 of 0" in reviewer.get("/quality").content.decode()


def test_a_blind_reader_is_told_nothing(
    make_user: Callable[..., User], client: Client, shown: Sample
) -> None:
    user = make_user("bea", "reviewer")
    Preference.objects.create(user=user, blind_first=True)
    client.force_login(user)
    assert "<rect" not in client.get("/quality").content.decode()
