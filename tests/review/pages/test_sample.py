from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from millie.outputs.page import percent
from millie.outputs.patient.evidence import weigh
from millie.outputs.patient.states import words_for
from millie.outputs.result_folder import page_of
from millie.review.jobs.results import store_analysis
from millie.review.models import Analysis, AuditEvent, Job, Preference, Sample
from millie.review.pages.lookup import told_by
from millie.statistics.conformal import in_words

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from django.contrib.auth.models import User
    from django.test import Client


def _analysis(sample: Sample) -> Analysis:
    assert sample.analysis is not None
    return sample.analysis


def test_the_page_says_what_the_run_says_and_that_it_is_no_diagnosis(
    reviewer: Client, shown: Sample
) -> None:
    page = reviewer.get("/samples/S-drawn/").content.decode()
    model, result = told_by(_analysis(shown))
    assert words_for(result.state).title in page
    assert "ot a diagnosis" in page
    assert model.sha256 in page
    assert model.title in page
    for label, value in result.probabilities.items():
        assert in_words(value, result.supported).replace("<", "&lt;").replace(">", "&gt;") in page
        assert label in page
    for reason in result.reasons:
        assert reason.remedy in page
    assert f"at {result.not_excluded[0]} %" in page


def test_the_evidence_strip_has_the_marks_and_shares_of_the_report(
    reviewer: Client, shown: Sample
) -> None:
    model, result = told_by(_analysis(shown))
    evidence = weigh(result, model)
    context = reviewer.get("/samples/S-drawn/").context
    assert [cell.index for cell in context["cells_for"]] == [
        winner.cell for winner in evidence.cells_for[:8]
    ]
    page = reviewer.get("/samples/S-drawn/").content.decode()
    first = evidence.cells_for[0]
    assert f"/samples/S-drawn/analyses/1/cells/{first.cell}.jpg" in page
    assert f"<strong>{percent(first.contribution)}</strong> share" in page


def test_a_sample_that_waits_and_one_that_failed_say_so(reviewer: Client) -> None:
    sample = Sample.objects.create(submitted_by="rita")
    address = f"/samples/{sample.pseudonym}/"
    assert "has not been analysed" in reviewer.get(address).content.decode()
    job = Job.objects.create(sample=sample, status="running", step="segment", done=1, total=4)
    assert "1 of 4" in reviewer.get(address).content.decode()
    assert "1 of 4" in reviewer.get(f"{address}progress").content.decode()
    Job.objects.filter(pk=job.pk).update(status="failed", error="no cell was found: scan again")
    assert "scan again" in reviewer.get(address).content.decode()
    assert reviewer.get(f"{address}progress").headers["HX-Refresh"] == "true"


def test_taking_a_sample_puts_the_reviewer_down_and_is_recorded(
    reviewer: Client, shown: Sample
) -> None:
    reviewer.post("/samples/S-drawn/take")
    shown.refresh_from_db()
    assert shown.reviewer is not None
    assert shown.reviewer.username == "rita"
    assert AuditEvent.objects.filter(action="sample.taken", actor="rita").exists()


def test_call_again_asks_for_the_call_without_the_rejected_cells(
    reviewer: Client, shown: Sample
) -> None:
    reviewer.post("/samples/S-drawn/call-again")
    assert not Job.objects.exists()
    _analysis(shown).cells.filter(index__in=[0, 2]).update(decision="artefact")
    page = reviewer.get("/samples/S-drawn/").content.decode()
    assert "Call again without 2 rejected cells" in page
    reviewer.post("/samples/S-drawn/call-again")
    job = Job.objects.get()
    assert (job.based_on, job.excluded) == (shown.analysis, [0, 2])
    assert AuditEvent.objects.filter(action="sample.called_again").exists()
    reviewer.post("/samples/S-drawn/call-again")
    assert Job.objects.count() == 1


def test_a_call_made_again_stands_beside_the_first(
    reviewer: Client, shown: Sample, run_of_one: Path
) -> None:
    first = _analysis(shown)
    run = run_of_one / "samples" / "S-drawn" / "calls"
    store_analysis(shown, run, run_of_one, based_on=first, excluded=[0])
    page = reviewer.get("/samples/S-drawn/").content.decode()
    assert "Called again without 1 rejected cell<" in page
    assert "Before, analysis 1" in page
    assert "After, analysis 2" in page


def test_a_viewer_may_look_and_nothing_else(
    make_user: Callable[..., User], client: Client, shown: Sample
) -> None:
    client.force_login(make_user("vic", "viewer"))
    page = client.get("/samples/S-drawn/").content.decode()
    assert "Take this sample" not in page
    assert ">Sign<" not in page
    assert client.post("/samples/S-drawn/take").status_code == 403
    assert client.post("/samples/S-drawn/call-again").status_code == 403


@pytest.mark.parametrize("path", ["", "cells", f"analyses/1/{page_of('S-drawn')}"])
def test_a_blind_reader_sees_no_call_before_having_signed(
    make_user: Callable[..., User], client: Client, shown: Sample, path: str
) -> None:
    user = make_user("bea", "reviewer")
    client.force_login(user)
    title = words_for(_analysis(shown).state).title
    told = client.get(f"/samples/S-drawn/{path}")
    assert title in told.content.decode()
    Preference.objects.create(user=user, blind_first=True)
    assert title not in client.get(f"/samples/S-drawn/{path}").content.decode()
    shown.signatures.create(
        analysis=_analysis(shown), version=1, diagnosis="normal", user=user,
        at=_analysis(shown).created,
    )  # fmt: skip
    assert title in client.get(f"/samples/S-drawn/{path}").content.decode()


def test_no_sample_of_that_name_is_a_404(reviewer: Client) -> None:
    assert reviewer.get("/samples/S-nobody/").status_code == 404
