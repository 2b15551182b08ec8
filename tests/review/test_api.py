from __future__ import annotations

import json
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from millie.errors import ConfigError
from millie.review.api import routes
from millie.review.api.tokens import add_token, revoke_token
from millie.review.jobs import queue
from millie.review.models import ApiToken, AuditEvent, IdempotencyKey, OriginalName, Sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from django.test import Client

    from millie.review.data_folder import DataFolder

    Draw = Callable[..., bytes]

pytestmark = pytest.mark.django_db
SAMPLES = "/api/v1/samples"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def machine() -> dict[str, str]:
    """Headers of a machine that may submit and read."""
    return bearer(add_token("scanner", ["submit", "read"]))


@pytest.fixture
def stored(analysed: Sample, data: DataFolder, run_of_one: Path) -> Sample:
    shutil.copytree(run_of_one / "samples", data.samples, dirs_exist_ok=True)
    return analysed


def post(client: Client, headers: dict[str, str], *files: tuple[str, bytes], **about: Any) -> Any:
    sent = [SimpleUploadedFile(name, content) for name, content in files]
    return client.post(SAMPLES, {"files": sent, **about}, headers=headers)


def is_problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert (told["status"], told["type"]) == (status, "about:blank")
    assert told["title"]
    assert told["detail"]
    return told


def test_a_sample_is_submitted_and_polled(
    client: Client, machine: dict[str, str], data: DataFolder, picture: Draw
) -> None:
    sent = post(client, machine, ("Doe.png", picture()), patient="Jane Doe", specimen="marrow")
    assert sent.status_code == 202
    place = sent.headers["Location"]
    got = client.get(place, headers=machine).json()
    assert got == sent.json()
    assert (got["status"], got["specimen"], got["n_images"]) == ("queued", "marrow", 1)
    assert got["state"] is None
    assert OriginalName.objects.get().patient == "Jane Doe"
    assert Sample.objects.get().submitted_by == "token:scanner"
    assert "Doe" not in json.dumps(got)
    for part in ("result", "report", "cells"):
        is_problem(client.get(f"{place}/{part}", headers=machine), 409)


def test_a_failed_analysis_says_why(
    client: Client, machine: dict[str, str], data: DataFolder, picture: Draw
) -> None:
    place = post(client, machine, ("1.png", picture())).headers["Location"]
    job = queue.claim("w")
    assert job is not None
    queue.fail(job, "w", "the model was altered")
    got = client.get(place, headers=machine).json()
    assert (got["status"], got["error"]) == ("failed", "the model was altered")
    only_failed = client.get(SAMPLES, {"status": "failed"}, headers=machine).json()
    assert only_failed["total"] == 1
    assert client.get(SAMPLES, {"status": "done"}, headers=machine).json()["total"] == 0


def test_the_result_is_that_of_the_run(
    client: Client, machine: dict[str, str], stored: Sample, data: DataFolder
) -> None:
    assert stored.analysis is not None
    path = data.root / stored.analysis.folder / "predictions.json"
    run = json.loads(path.read_text())
    got = client.get(f"{SAMPLES}/{stored.pseudonym}/result", headers=machine).json()
    assert got["patient"] == run["patients"][0]
    assert got["model"] == run["model"]
    assert got["research_use_only"] is True


def test_the_report_is_the_page_of_the_run_and_runs_no_script(
    client: Client, machine: dict[str, str], stored: Sample, data: DataFolder
) -> None:
    answer = client.get(f"{SAMPLES}/{stored.pseudonym}/report", headers=machine)
    assert "For research use only" in answer.content.decode()
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    shutil.rmtree(data.samples)
    is_problem(client.get(f"{SAMPLES}/{stored.pseudonym}/report", headers=machine), 404)


def test_cells_come_page_by_page_with_what_people_named_them(
    client: Client, machine: dict[str, str], stored: Sample
) -> None:
    assert stored.analysis is not None
    cell = stored.analysis.cells.all()[1]
    cell.decision, cell.version = "blast", 1
    cell.save()
    place = f"{SAMPLES}/{stored.pseudonym}/cells"
    found: list[dict[str, Any]] = []
    page = pages = 1
    while page <= pages:
        answer = client.get(place, {"page": page, "per_page": 25}, headers=machine).json()
        found, page, pages = found + answer["items"], page + 1, answer["pages"]
    assert [each["index"] for each in found] == list(range(stored.analysis.n_cells))
    assert found[1]["decision"] == "blast"
    assert found[0]["probabilities"].keys() == set(stored.analysis.model["labels"])


def test_lists_are_filtered_and_paged(
    client: Client, machine: dict[str, str], stored: Sample, data: DataFolder, picture: Draw
) -> None:
    assert stored.analysis is not None
    post(client, machine, ("1.png", picture()))
    first = client.get(SAMPLES, {"per_page": 1}, headers=machine).json()
    assert (first["total"], first["pages"], len(first["items"])) == (2, 2, 1)
    called = client.get(SAMPLES, {"state": stored.analysis.state}, headers=machine).json()
    assert [each["id"] for each in called["items"]] == [stored.pseudonym]
    later = timezone.now() + timedelta(hours=1)
    for moment in (later.isoformat(), later.replace(tzinfo=None).isoformat()):
        assert client.get(SAMPLES, {"since": moment}, headers=machine).json()["total"] == 0


def test_a_listing_takes_the_same_queries_however_long_it_is(
    client: Client, machine: dict[str, str], data: DataFolder, picture: Draw,
    django_assert_max_num_queries: Any,
) -> None:  # fmt: skip
    for seed in range(4):
        post(client, machine, ("1.png", picture(seed)))
    with django_assert_max_num_queries(7):
        client.get(SAMPLES, headers=machine)


def test_the_same_key_gives_the_same_answer_and_one_sample(
    client: Client, machine: dict[str, str], data: DataFolder, picture: Draw
) -> None:
    headers = machine | {"Idempotency-Key": "42"}
    first = post(client, headers, ("1.png", picture(1)), patient="Doe")
    again = post(client, headers, ("1.png", picture(1)), patient="Doe")
    assert first.json() == again.json()
    assert again.status_code == 202
    assert Sample.objects.count() == 1
    is_problem(post(client, headers, ("1.png", picture(2)), patient="Doe"), 422)
    other = bearer(add_token("other", ["submit"])) | {"Idempotency-Key": "42"}
    assert post(client, other, ("1.png", picture(1))).json()["id"] != first.json()["id"]


def test_of_two_equal_requests_at_a_time_one_makes_the_sample(
    client: Client, machine: dict[str, str], data: DataFolder, picture: Draw,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    headers = machine | {"Idempotency-Key": "42"}
    first = post(client, headers, ("1.png", picture(1)))
    real, seen = routes._answer_before, []

    def late(*words: Any) -> Any:  # looks before the other request has ended
        seen.append(words)
        return None if len(seen) == 1 else real(*words)

    monkeypatch.setattr(routes, "_answer_before", late)
    assert post(client, headers, ("1.png", picture(1))).json() == first.json()
    assert (Sample.objects.count(), IdempotencyKey.objects.count()) == (1, 1)


def test_a_refused_request_leaves_no_key(
    client: Client, machine: dict[str, str], data: DataFolder, picture: Draw
) -> None:
    headers = machine | {"Idempotency-Key": "42"}
    told = is_problem(post(client, headers, ("1.png", b"<html>")), 422)
    assert "not a readable image" in told["files"][0]["reason"]
    assert post(client, headers, ("1.png", picture())).status_code == 202


@pytest.mark.parametrize(
    ("about", "where"),
    [
        ({"specimen": "urine"}, "specimen"),
        ({"um_px": "250"}, "um_px"),
        ({"um_px": "nan"}, "um_px"),
        ({"patient": "x" * 401}, "patient"),
    ],
)
def test_wrong_fields_are_named(
    client: Client, machine: dict[str, str], data: DataFolder, picture: Draw,
    about: dict[str, str], where: str,
) -> None:  # fmt: skip
    told = is_problem(post(client, machine, ("1.png", picture()), **about), 422)
    assert where in told["errors"][0]["where"]


def test_without_a_token_or_its_scope_nobody_gets_in(
    client: Client, data: DataFolder, picture: Draw, stored: Sample
) -> None:
    reader, sender = bearer(add_token("r", ["read"])), bearer(add_token("s", ["submit"]))
    ended = bearer(add_token("e", ["read"], days=1))
    ApiToken.objects.filter(name="e").update(expires=timezone.now())
    gone = bearer(add_token("g", ["read"]))
    revoke_token("g")
    for headers in ({}, bearer("millie_wrong"), {"Authorization": "Basic x"}, ended, gone):
        answer = client.get(SAMPLES, headers=headers)
        is_problem(answer, 401)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    is_problem(post(client, reader, ("1.png", picture())), 403)
    for part in ("", f"/{stored.pseudonym}", f"/{stored.pseudonym}/result"):
        is_problem(client.get(SAMPLES + part, headers=sender), 403)
    assert client.get(SAMPLES, headers=reader).status_code == 200


def test_a_person_that_is_logged_in_is_no_machine(reviewer: Client) -> None:
    is_problem(reviewer.get(SAMPLES), 401)


def test_a_token_is_kept_as_a_digest_and_told_in_the_audit_trail() -> None:
    token = add_token("scanner", ["read"])
    stored = ApiToken.objects.get()
    assert token not in str(vars(stored))
    event = AuditEvent.objects.get()
    assert (event.action, event.subject) == ("token.added", "scanner")
    for words, match in (
        (("scanner", ["read"]), "already"), (("b", ["rule"]), "scope 'rule'"), (("b", []), "scope"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=match):
            add_token(*words)
    with pytest.raises(ConfigError, match="no valid token"):
        revoke_token("nobody")


def test_use_of_a_token_is_noted(client: Client, machine: dict[str, str]) -> None:
    client.get(SAMPLES, headers=machine)
    used = ApiToken.objects.get().last_used
    assert used is not None
    client.get(SAMPLES, headers=machine)  # not a write for each request
    assert ApiToken.objects.get().last_used == used


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("get", "/api/v1/nothing", 404),
        ("get", "/api/v1/samples/S-nobody", 404),
        ("get", "/api/v1/samples/..%2f..%2fetc", 404),
        ("get", "/api/v1/samples/Jane", 422),
        ("get", "/api/v1/samples?page=0", 422),
        ("get", "/api/v1/samples?page=99999999999999999999", 422),
        ("get", "/api/v1/samples?since=yesterday", 422),
        ("get", "/api/v1/samples?since=", 422),
        ("get", "/api/v1/samples?since=0.5", 422),
        ("get", "/api/v1/samples?state=%00", 422),
        ("delete", "/api/v1/samples", 405),
    ],
)
def test_every_error_is_a_problem(
    client: Client, machine: dict[str, str], method: str, path: str, status: int
) -> None:
    answer = getattr(client, method)(path, headers=machine)
    is_problem(answer, status)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    if status == 405:
        assert set(answer.headers["Allow"].split(", ")) == {"GET", "POST"}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"no boundary"),
        ("multipart/form-data; boundary=x", b"--x\r\ngarbage"),
        ("application/json", b"{}"),
    ],
)
def test_a_body_of_another_form_is_refused(
    client: Client, machine: dict[str, str], data: DataFolder, kind: str, body: bytes
) -> None:
    answer = client.post(SAMPLES, body, content_type=kind, headers=machine)
    assert answer.status_code in {400, 422}
    is_problem(answer, answer.status_code)


@pytest.mark.parametrize(
    ("error", "status"), [(OSError(28, "full"), 507), (ZeroDivisionError("Jane Doe"), 500)]
)
def test_what_goes_wrong_inside_is_a_problem_without_its_text(
    client: Client, machine: dict[str, str], data: DataFolder, picture: Draw,
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: int,
) -> None:  # fmt: skip
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(routes, "admit", fail)
    told = is_problem(post(client, machine, ("1.png", picture())), status)
    assert "Doe" not in told["detail"]


def test_health_needs_no_token_and_tells_what_is_missing(client: Client, data: DataFolder) -> None:
    answer = client.get("/api/v1/health")
    assert answer.status_code == 503
    assert answer.json()["checks"]["database"] == "ok"
    assert "wait for it" in answer.json()["checks"]["worker"]


def test_the_document_names_every_operation_and_loads_nothing_from_elsewhere(
    client: Client,
) -> None:
    document = client.get("/api/v1/openapi.json").json()
    assert set(document["paths"]) == {
        f"/api/v1{path}"
        for path in ("/samples", "/samples/{sample_id}", "/samples/{sample_id}/result",
                     "/samples/{sample_id}/report", "/samples/{sample_id}/cells", "/health")
    }  # fmt: skip
    unknown = document["paths"]["/api/v1/samples"]["post"]["responses"]["401"]["content"]
    assert list(unknown) == ["application/problem+json"]
    assert client.get("/api/v1/docs").status_code == 404
