from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db import DatabaseError, connection, transaction

from millie.review.models import AuditEvent, CellDecision
from millie.review.records.audit import FIRST, record, verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client

    from millie.review.models import Sample

pytestmark = pytest.mark.django_db


def _trail(n: int = 4) -> list[AuditEvent]:
    return [record("rita", "cell.decided", f"S-{i}", code="blast") for i in range(n)]


def _behind_the_back(sql: str) -> None:
    """What somebody with the database in hand can do: triggers off, then SQL."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("ALTER TABLE review_auditevent DISABLE TRIGGER USER")
        else:
            cursor.execute("DROP TRIGGER review_auditevent_refuses_update")
            cursor.execute("DROP TRIGGER review_auditevent_refuses_delete")
        cursor.execute(sql)


def test_an_untouched_trail_is_whole() -> None:
    events = _trail()
    verdict = verify()
    assert verdict.faults == ()
    assert (verdict.n_events, verdict.last) == (4, events[-1].digest)
    assert events[0].previous == FIRST


def test_an_empty_trail_is_whole() -> None:
    assert verify().n_events == 0
    assert verify().faults == ()


@pytest.mark.parametrize("act", ["update", "delete"])
@pytest.mark.parametrize("kept", [AuditEvent, CellDecision])
def test_the_database_refuses_to_change_what_is_kept(
    analysed: Sample,
    make_user: Callable[..., User],
    kept: type[AuditEvent | CellDecision],
    act: str,
) -> None:
    _trail()
    assert analysed.analysis is not None
    cell = analysed.analysis.cells.all()[0]
    cell.decisions.create(version=1, code="blast", suggestion="AML", user=make_user("rita"))
    row = kept.objects.all()[0]
    with pytest.raises(DatabaseError, match="kept for good"), transaction.atomic():
        row.save() if act == "update" else row.delete()


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("UPDATE review_auditevent SET details = '{}' WHERE number = 2", "event 2"),
        ("UPDATE review_auditevent SET actor = 'ann' WHERE number = 3", "event 3"),
        ("DELETE FROM review_auditevent WHERE number = 2", "event 2 is missing"),
        (
            "UPDATE review_auditevent SET previous = '" + "0" * 64 + "' WHERE number = 4",
            "event 4 does not follow",
        ),
    ],
)
def test_what_is_changed_behind_its_back_is_found(sql: str, told: str) -> None:
    _trail()
    _behind_the_back(sql)
    assert any(told in fault for fault in verify().faults)


def test_events_cut_off_the_end_are_found_by_a_digest_noted_before() -> None:
    noted = _trail()[-1].digest
    _behind_the_back("DELETE FROM review_auditevent WHERE number = 4")
    assert verify().faults == ()  # nothing inside the trail can tell
    assert "were removed" in verify(noted).faults[0]


def test_the_page_shows_checks_and_gives_the_trail(
    client: Client, make_user: Callable[..., User]
) -> None:
    _trail()
    client.force_login(make_user("sue", "supervisor"))
    assert "cell.decided" in client.get("/audit").content.decode()
    assert "Whole" in client.get("/audit", {"verify": "1"}).content.decode()
    lines = client.get("/audit.csv").content.decode().splitlines()
    assert len(lines) == 5
    one = client.get("/audit", {"q": "S-2"}).content.decode()
    assert "S-2" in one
    assert "S-3" not in one
