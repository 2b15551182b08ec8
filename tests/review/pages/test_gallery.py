from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from millie.review.jobs.results import store_analysis
from millie.review.models import AuditEvent, CellDecision, Preference

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.http import HttpResponse
    from django.test import Client

    from millie.review.models import Sample

_CELLS = "/samples/S-drawn/cells.json"


def _rows(client: Client, query: str = "") -> list[dict[str, Any]]:
    content = client.get(_CELLS + query).json()
    return [dict(zip(content["columns"], row, strict=True)) for row in content["rows"]]


def _decide(client: Client, *wishes: tuple[int, int, str], analysis: int = 1) -> HttpResponse:
    body = {
        "analysis": analysis,
        "decisions": [{"cell": c, "seen": seen, "code": code} for c, seen, code in wishes],
    }
    return client.post(
        "/samples/S-drawn/decisions", json.dumps(body), content_type="application/json"
    )


def test_the_listing_has_every_cell_with_its_suggestion_place_and_mark(
    reviewer: Client, shown: Sample
) -> None:
    analysis = shown.analysis
    assert analysis is not None
    rows = _rows(reviewer)
    assert len(rows) == analysis.n_cells
    for row, cell in zip(rows, analysis.cells.all(), strict=True):
        assert (row["index"], row["suggestion"]) == (cell.index, cell.suggestion)
        assert row["certainty"] == pytest.approx(max(cell.probabilities), abs=1e-4)
        assert 0 <= row["uncertainty"] <= 1
        assert bool(row["mark"]) == row["flagged"]
    only = _rows(reviewer, "?image=1")
    assert 0 < len(only) < len(rows)
    assert {row["image"] for row in only} == {1}


def test_the_page_lists_the_kinds_and_their_keys(reviewer: Client, shown: Sample) -> None:
    page = reviewer.get("/samples/S-drawn/cells").content.decode()
    assert '{"code": "artefact", "title": "Not a cell: artefact", "key": "x"}' in page
    assert "µm" in page


def test_a_decision_is_kept_with_its_version_and_told_to_the_audit_trail(
    reviewer: Client, shown: Sample
) -> None:
    answer = _decide(reviewer, (3, 0, "blast"), (4, 0, "lymphocyte"))
    assert [cell["version"] for cell in answer.json()["cells"]] == [1, 1]
    assert [(d.cell.index, d.version, d.code) for d in CellDecision.objects.order_by("id")] == [
        (3, 1, "blast"),
        (4, 1, "lymphocyte"),
    ]
    event = AuditEvent.objects.get(action="cell.decided")
    assert json.loads(event.details)["cells"] == [[3, 1, "blast"], [4, 1, "lymphocyte"]]
    assert _rows(reviewer)[3]["decision"] == "blast"
    page = reviewer.get("/samples/S-drawn/differential").content.decode()
    assert "Confirmed cells: 2 of" in page
    assert "not a differential count of the film" in page
    shown.refresh_from_db()
    assert shown.reviewer is not None


def test_undo_is_a_further_version(reviewer: Client, shown: Sample) -> None:
    _decide(reviewer, (3, 0, "blast"))
    assert _decide(reviewer, (3, 1, "")).json()["cells"][0]["version"] == 2
    assert _rows(reviewer)[3]["decision"] == ""
    assert CellDecision.objects.count() == 2


def test_nothing_is_written_over_another_persons_decision(
    make_user: Callable[..., User], reviewer: Client, client: Client, shown: Sample
) -> None:
    other = type(reviewer)()
    other.force_login(make_user("bea", "reviewer"))
    assert _decide(other, (3, 0, "monocyte")).status_code == 200
    answer = _decide(reviewer, (2, 0, "blast"), (3, 0, "blast"))
    assert answer.status_code == 409
    (conflict,) = answer.json()["conflicts"]
    assert (conflict["cell"], conflict["user"], conflict["title"]) == (3, "bea", "Monocyte")
    assert "suggestion" not in conflict
    assert [row["decision"] for row in _rows(reviewer)[2:4]] == ["", "monocyte"]
    assert _decide(reviewer, (2, 0, "blast"), (3, 1, "blast")).status_code == 200


def test_a_decision_sent_twice_is_kept_once(reviewer: Client, shown: Sample) -> None:
    _decide(reviewer, (3, 0, "blast"))
    assert _decide(reviewer, (3, 0, "blast")).json()["cells"][0]["version"] == 1
    assert CellDecision.objects.count() == 1


@pytest.mark.parametrize(
    "body",
    [
        "no json", "[]", "{}", '{"analysis": 1, "decisions": []}',
        '{"analysis": 1, "decisions": [{"cell": 1, "seen": 0, "code": "dragon"}]}',
        '{"analysis": 1, "decisions": [{"cell": 99999, "seen": 0, "code": "blast"}]}',
        '{"analysis": 1, "decisions": [{"cell": 1, "seen": 0}]}',
        """{"analysis": 1, "decisions": [{"cell": 1, "seen": 0, "code": "blast"},
        {"cell": 1, "seen": 0, "code": "blast"}]}""",
    ],
)  # fmt: skip
def test_what_is_no_decision_is_refused(reviewer: Client, shown: Sample, body: str) -> None:
    answer = reviewer.post("/samples/S-drawn/decisions", body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert not CellDecision.objects.exists()


def test_decisions_belong_to_the_latest_analysis(
    reviewer: Client, shown: Sample, run_of_one: Any
) -> None:
    store_analysis(shown, run_of_one / "samples" / "S-drawn" / "calls", run_of_one)
    answer = _decide(reviewer, (3, 0, "blast"))
    assert (answer.status_code, answer.json()) == (409, {"replaced": True})
    assert _decide(reviewer, (3, 0, "blast"), analysis=2).status_code == 200


def test_who_may_only_look_decides_nothing(
    make_user: Callable[..., User], client: Client, shown: Sample
) -> None:
    client.force_login(make_user("vic", "viewer"))
    assert len(_rows(client)) > 0
    assert _decide(client, (3, 0, "blast")).status_code == 403


def test_a_blind_reader_gets_a_suggestion_for_a_decision(
    make_user: Callable[..., User], client: Client, shown: Sample
) -> None:
    user = make_user("bea", "reviewer")
    Preference.objects.create(user=user, blind_first=True)
    client.force_login(user)
    told = ("suggestion", "certainty", "uncertainty", "strength", "flagged", "mark")
    assert {row[name] for row in _rows(client) for name in told} == {None}
    answer = _decide(client, (3, 0, "blast"))
    assert answer.json()["cells"][0]["suggestion"]
    shown_now = [row["index"] for row in _rows(client) if row["suggestion"] is not None]
    assert shown_now == [3]
    assert CellDecision.objects.get().blind
    _decide(client, (3, 1, "monocyte"))
    assert [d.blind for d in CellDecision.objects.all()] == [True, False]


def test_the_session_gives_a_token_to_who_is_logged_in(reviewer: Client, client: Client) -> None:
    answer = reviewer.get("/session").json()
    assert answer["user"] == "rita"
    assert len(answer["csrf"]) > 30
    client.logout()
    assert client.get("/session").status_code == 403
