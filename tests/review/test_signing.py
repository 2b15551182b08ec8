from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import User
from tests.review.conftest import PASSWORD

from millie.review.cells.decisions import Wish, decide
from millie.review.jobs.results import store_analysis
from millie.review.models import (
    Analysis,
    AuditEvent,
    Escalation,
    Sample,
    SecondReview,
    Signature,
)
from millie.review.pages.worklist import Filters, filtered
from millie.review.records import signing
from millie.review.records.second_reviews import waiting_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from django.test import Client

URL = "/samples/S-drawn/sign"


@pytest.fixture
def ready(analysed: Sample, make_user: Callable[..., User]) -> Sample:
    """Every blocker is out of the way."""
    user = make_user("una", "reviewer")
    analysis = analysed.analysis
    assert analysis is not None
    _review(analysis, user)
    for name in signing.unacknowledged(analysis):
        signing.acknowledge(analysis, name, user)
    Escalation.objects.create(
        sample=analysed, called="ward", called_at=analysed.submitted_at, user=user
    )
    assert signing.blockers(analysed) == []
    return analysed


def _review(analysis: Analysis, user: User) -> None:
    for cell in analysis.cells.filter(flagged=True):
        cell.decisions.create(version=1, code="blast", suggestion=cell.suggestion, user=user)
        cell.decision, cell.version = "blast", 1
        cell.save()


def _form(sample: Sample, **other: str) -> dict[str, str]:
    return {
        "diagnosis": "AML",
        "comment": "",
        "password": PASSWORD,
        "seen": signing.fingerprint(sample),
    } | other


def test_each_thing_left_to_do_blocks(analysed: Sample, reviewer: Client) -> None:
    analysis = analysed.analysis
    assert analysis is not None
    analysis.state = "APL_SUSPECT"
    analysis.result["quality"][0]["passed"] = False
    analysis.save()
    assert [b.code for b in signing.blockers(analysed)] == ["escalation", "cells", "quality"]
    answer = reviewer.post(URL, _form(analysed))
    assert answer.status_code == 409
    assert not Signature.objects.exists()
    reviewer.post("/samples/S-drawn/acknowledge", {"code": analysis.result["quality"][0]["name"]})
    assert [b.code for b in signing.blockers(analysed)] == ["escalation", "cells"]
    reviewer.post(
        "/samples/S-drawn/escalations", {"called": "ward 3", "called_at": "2026-01-02T03:04"}
    )
    assert [b.code for b in signing.blockers(analysed)] == ["cells"]


def test_a_call_in_the_future_is_not_logged(analysed: Sample, reviewer: Client) -> None:
    reviewer.post(
        "/samples/S-drawn/escalations", {"called": "ward 3", "called_at": "2999-01-02T03:04"}
    )
    assert not Escalation.objects.exists()


def test_what_is_signed_is_kept_with_its_digest(ready: Sample, reviewer: Client) -> None:
    assert reviewer.post(URL, _form(ready)).status_code == 302
    signature = Signature.objects.get()
    assert hashlib.sha256(signature.record.encode()).hexdigest() == signature.record_sha256
    content = json.loads(signature.record)
    assert (content["diagnosis"], content["signed_by"]) == ("AML", "rita")
    assert len(content["decisions"]) == ready.analysis.cells.filter(flagged=True).count()  # type: ignore[union-attr]
    ready.refresh_from_db()
    assert ready.signed_at == signature.at
    assert signature.record_sha256 in reviewer.get(URL).content.decode()


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"password": "wrong"}, "password is wrong"),
        ({"diagnosis": "flu"}, "choose a conclusion"),
        ({"diagnosis": "other"}, "needs a comment"),
        ({"seen": "0" * 64}, "has changed since"),
    ],
)
def test_a_form_that_is_not_right_signs_nothing(
    ready: Sample, reviewer: Client, other: dict[str, str], told: str
) -> None:
    answer = reviewer.post(URL, _form(ready, **other))
    assert answer.status_code == 409
    assert told in answer.content.decode()
    assert not Signature.objects.exists()


def test_an_amendment_needs_a_reason_and_leaves_the_first(ready: Sample, reviewer: Client) -> None:
    reviewer.post(URL, _form(ready))
    assert reviewer.post(URL, _form(ready, diagnosis="normal")).status_code == 409
    reviewer.post(URL, _form(ready, diagnosis="normal", reason="film seen again"))
    assert list(Signature.objects.values_list("version", "diagnosis")) == [
        (1, "AML"),
        (2, "normal"),
    ]


def test_a_decision_after_the_signature_is_told(ready: Sample, reviewer: Client) -> None:
    reviewer.post(URL, _form(ready))
    assert "changed since the last signature" not in reviewer.get(URL).content.decode()
    ready.analysis.cells.filter(flagged=False).update(decision="artefact", version=1)  # type: ignore[union-attr]
    assert "changed since the last signature" in reviewer.get(URL).content.decode()


@pytest.mark.parametrize(
    ("state", "diagnosis", "cause"),
    [
        ("APL_SUSPECT", "APL", "suspect"),
        ("APL_SUSPECT", "AML", "disagreement"),
        ("AML", "APL", "disagreement"),
        ("NO_SIGNAL", "APL", "disagreement"),
        ("URGENT_INDETERMINATE", "APL", "suspect"),
        ("AML", "AML", ""),
        ("INDETERMINATE", "normal", ""),
    ],
)
def test_who_gets_a_second_review(state: str, diagnosis: str, cause: str) -> None:
    assert signing.second_review_cause([state], diagnosis) == cause


def test_a_twentieth_of_the_samples_without_a_signal_gets_one() -> None:
    drawn = [signing.second_review_cause(["NO_SIGNAL"], "normal") for _ in range(4000)]
    assert 120 < drawn.count("random") < 290  # 200 expected, +- 6.5 standard deviations
    assert set(drawn) == {"random", ""}


def test_the_second_review_is_blinded_and_by_somebody_else(
    ready: Sample, client: Client, make_user: Callable[..., User]
) -> None:
    rita, sue = make_user("rita", "supervisor"), make_user("sue", "supervisor")
    client.force_login(rita)
    client.post(URL, _form(ready, diagnosis="APL"))
    review = SecondReview.objects.get()
    assert not waiting_for(rita).exists()
    assert client.get("/second-reviews/S-drawn").status_code == 404
    client.force_login(sue)
    assert 'class="state' not in client.get("/samples/S-drawn/sign").content.decode()
    page = client.get("/second-reviews/S-drawn").content.decode()
    assert "cells" in page
    for told in ("rita", "suggests", "AML</span>", "checked"):  # by whom, the call, the choice
        assert told not in page
    client.post("/second-reviews/S-drawn", {"diagnosis": "AML", "comment": "no faggots"})
    review.refresh_from_db()
    assert (review.diagnosis, review.user) == ("AML", sue)
    assert "Disagree" in client.get("/second-reviews/").content.decode()
    ready.refresh_from_db()
    assert ready.signed_at is None  # a disagreement about APL is nobody's closed case
    assert "S-drawn" in client.get("/").content.decode()
    assert client.get("/second-reviews/S-drawn").status_code == 404  # given once


def test_who_gives_the_second_review_does_not_read_the_call_in_the_list(
    ready: Sample, shown: Sample, client: Client, make_user: Callable[..., User]
) -> None:
    client.force_login(make_user("rita", "reviewer"))
    client.post(URL, _form(ready, diagnosis="APL"))
    listed = "/?show=signed"
    call = 'class="state'
    assert call in client.get(listed).content.decode()
    client.force_login(make_user("sue", "supervisor"))
    assert call not in client.get(listed).content.decode().partition("<tbody")[2]
    assert "S-drawn" not in client.get(f"{listed}&state=disease").content.decode()
    cells = client.get("/samples/S-drawn/cells.json").json()
    label = cells["columns"].index("label")
    assert {row[label] for row in cells["rows"]} == {None}


def test_a_sample_that_is_analysed_again_after_it_was_signed_is_open_again(
    ready: Sample, reviewer: Client, run_of_one: Path
) -> None:
    reviewer.post(URL, _form(ready))
    assert "S-drawn" not in reviewer.get("/worklist/rows").content.decode()
    store_analysis(ready, run_of_one / "samples" / "S-drawn" / "calls", run_of_one)
    assert "S-drawn" in reviewer.get("/").content.decode()
    assert AuditEvent.objects.get(action="sample.reopened").details == '{"why":"analysed"}'


def test_a_cell_that_is_decided_after_the_signature_opens_the_sample_again(
    ready: Sample, reviewer: Client, make_user: Callable[..., User]
) -> None:
    reviewer.post(URL, _form(ready))
    analysis = ready.analysis
    assert analysis is not None
    cell = analysis.cells.filter(flagged=False)[0]
    decide(analysis, [Wish(cell.index, cell.version, "artefact")], make_user("ann", "reviewer"))
    ready.refresh_from_db()
    assert ready.signed_at is None


def test_a_suspicion_is_not_taken_away_by_calling_again(
    ready: Sample, reviewer: Client, run_of_one: Path
) -> None:
    first, una = ready.analysis, User.objects.get(username="una")
    assert first is not None
    Analysis.objects.filter(pk=first.pk).update(state="APL_SUSPECT", rank=0)
    Escalation.objects.all().delete()
    store_analysis(ready, run_of_one / "samples" / "S-drawn" / "calls", run_of_one)
    ready.refresh_from_db()
    assert ready.analysis is not None
    assert ready.analysis.state != "APL_SUSPECT"
    assert "escalation" in [blocker.code for blocker in signing.blockers(ready)]
    assert signing.second_review_cause(signing.states_of(ready), "normal") == "disagreement"
    Sample.objects.create(pseudonym="S-urgent", submitted_by="rita")
    other = Analysis.objects.create(
        sample=Sample.objects.get(pseudonym="S-urgent"), number=1, state="URGENT_INDETERMINATE",
        rank=1, worry=0.2, n_cells=60, light="pass", model={"labels": []}, result={"quality": []},
    )  # fmt: skip
    Sample.objects.filter(pseudonym="S-urgent").update(analysis=other)
    listed = [sample.pseudonym for sample in filtered(Filters("open", "", ""), una, blind=False)]
    assert listed == ["S-drawn", "S-urgent"]


def test_an_amendment_before_the_second_review_leaves_one_to_be_given(
    ready: Sample, client: Client, make_user: Callable[..., User]
) -> None:
    client.force_login(make_user("rita", "reviewer"))
    client.post(URL, _form(ready, diagnosis="APL"))
    client.post(URL, _form(ready, diagnosis="APL", reason="comment added"))
    assert SecondReview.objects.get().signature.version == 2
    client.force_login(make_user("sue", "supervisor"))
    assert client.get("/second-reviews/S-drawn").status_code == 200
