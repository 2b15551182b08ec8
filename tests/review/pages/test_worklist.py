from __future__ import annotations

import csv
import io
from datetime import timedelta
from typing import TYPE_CHECKING

from django.utils import timezone

from millie.review.models import Analysis, Job, Preference, Sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client

_RANKS = {"APL_SUSPECT": 0, "URGENT_INDETERMINATE": 1, "ALL": 2, "INDETERMINATE": 3, "NO_SIGNAL": 4}


def _sample(state: str = "", hours: int = 0) -> Sample:
    sample = Sample.objects.create(submitted_by="rita")
    if state:
        sample.analysis = Analysis.objects.create(
            sample=sample, number=1, state=state, rank=_RANKS[state], worry=0.5, n_cells=200,
            light="pass", model_name="m 1", model_sha256="0" * 64, model={"scope": "Tells APL."},
            result={}, folder="x",
        )  # fmt: skip
    sample.submitted_at = timezone.now() - timedelta(hours=hours)
    sample.save()
    return sample


def _order(client: Client, query: str = "") -> list[str]:
    page = client.get(f"/worklist.csv{query}").content.decode("utf-8-sig")
    return [row["sample"] for row in csv.DictReader(io.StringIO(page))]


def test_an_empty_worklist_says_so(reviewer: Client) -> None:
    assert "No sample is waiting." in reviewer.get("/").content.decode()


def test_who_is_not_logged_in_is_asked_to(client: Client, db: None) -> None:
    assert client.get("/").headers["Location"].startswith("/login")


def test_a_refresh_after_the_session_has_ended_sends_the_page_to_the_login(
    client: Client, db: None
) -> None:
    answer = client.get("/worklist/rows", headers={"HX-Request": "true"})
    assert answer.status_code == 401
    assert answer.headers["HX-Redirect"].startswith("/login")


def test_the_most_urgent_comes_first_then_who_waits_longest(reviewer: Client) -> None:
    waiting = _sample()
    quiet, early, late = _sample("NO_SIGNAL", 9), _sample("ALL", 5), _sample("ALL", 2)
    unsure, urgent = _sample("INDETERMINATE", 8), _sample("URGENT_INDETERMINATE", 1)
    suspect = _sample("APL_SUSPECT")
    wanted = [suspect, urgent, early, late, unsure, quiet, waiting]
    assert _order(reviewer) == [sample.pseudonym for sample in wanted]
    page = reviewer.get("/").content.decode()
    places = [page.index(f"open-{sample.pseudonym}") for sample in wanted]
    assert places == sorted(places)
    assert "Suspected APL" in page
    assert "Tells APL." in page


def test_filters_by_signature_state_and_pseudonym(reviewer: Client) -> None:
    done, kept = _sample("NO_SIGNAL"), _sample("ALL")
    Sample.objects.filter(pk=done.pk).update(signed_at=timezone.now())
    assert _order(reviewer) == [kept.pseudonym]
    assert _order(reviewer, "?show=signed") == [done.pseudonym]
    assert set(_order(reviewer, "?show=all")) == {done.pseudonym, kept.pseudonym}
    assert _order(reviewer, "?state=disease") == [kept.pseudonym]
    assert _order(reviewer, "?state=urgent") == []
    assert _order(reviewer, f"?q={kept.pseudonym[3:]}") == [kept.pseudonym]
    assert "No sample fits the filter." in reviewer.get("/?q=nobody").content.decode()


def test_a_refresh_sends_nothing_unless_something_has_changed(reviewer: Client) -> None:
    sample = _sample("ALL")
    digest = reviewer.get("/").context["digest"]
    assert reviewer.get(f"/worklist/rows?seen={digest}").status_code == 204
    Job.objects.create(sample=sample, status="running", step="segment", done=2, total=9)
    answer = reviewer.get(f"/worklist/rows?seen={digest}")
    assert "2 of 9" in answer.content.decode()
    assert f'id="open-{sample.pseudonym}"' in answer.content.decode()


def test_a_failed_first_analysis_is_told_as_failed(reviewer: Client) -> None:
    Job.objects.create(sample=_sample(), status="failed", error="no images")
    assert "Failed: no result" in reviewer.get("/").content.decode()


def test_a_blind_reader_learns_no_call_from_states_order_or_filters(
    make_user: Callable[..., User], client: Client
) -> None:
    user = make_user("bea", "reviewer")
    Preference.objects.create(user=user, blind_first=True)
    client.force_login(user)
    suspect, quiet = _sample("APL_SUSPECT", 1), _sample("NO_SIGNAL", 5)
    expected = [quiet.pseudonym, suspect.pseudonym]
    assert _order(client) == _order(client, "?state=suspect") == expected
    page = client.get("/").content.decode()
    assert "Suspected APL" not in page
    assert "An urgent sample is not on top here" in page
    assert "APL_SUSPECT" not in client.get("/worklist.csv").content.decode("utf-8-sig")
