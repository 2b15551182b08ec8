from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.db import OperationalError
from django.utils import timezone

from millie.review import health
from millie.review.api.tokens import add_token
from millie.review.jobs import queue
from millie.review.models import Sample, Worker

if TYPE_CHECKING:
    from django.test import Client

    from millie.review.data_folder import DataFolder

pytestmark = pytest.mark.django_db


def alive(seconds_ago: float = 0) -> None:
    Worker.objects.create(name="w", seen=timezone.now() - timedelta(seconds=seconds_ago))


def test_it_is_well_while_a_worker_lives(client: Client, data: DataFolder) -> None:
    alive()
    for path in ("/healthz", "/api/v1/health"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")


def test_a_worker_that_is_silent_is_told(client: Client, data: DataFolder) -> None:
    alive(seconds_ago=60)
    answer = client.get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["worker"] != "ok"


def test_a_database_that_does_not_answer_is_told(
    client: Client, data: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dead:
        def cursor(self) -> None:
            raise OperationalError("gone")

    monkeypatch.setattr(health, "connection", Dead())
    answer = client.get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["database"] == "does not answer"


def test_a_disk_without_room_is_told(
    client: Client, data: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(health.shutil, "disk_usage", lambda _: usage)
    assert "nothing is taken" in client.get("/healthz").json()["checks"]["disk"]


def test_metrics_count_what_waits(client: Client, data: DataFolder, analysed: Sample) -> None:
    queue.enqueue(analysed, "")
    alive()
    text = client.get("/metrics").content.decode()
    assert analysed.analysis is not None
    for line in (
        'millie_jobs{status="queued"} 1.0',
        'millie_jobs{status="failed"} 0.0',
        f'millie_samples{{state="{analysed.analysis.state}"}} 1.0',
        "millie_workers 1.0",
    ):
        assert line in text
    assert analysed.pseudonym not in text
    assert (
        'millie_request_seconds_count{method="GET",status="200"}'
        in client.get("/metrics").content.decode()
    )


def test_metrics_are_for_this_machine_or_a_token_with_their_scope(
    client: Client, data: DataFolder
) -> None:
    from_afar = {"REMOTE_ADDR": "10.0.0.9"}
    reader, monitor = add_token("r", ["read"]), add_token("m", ["metrics"])
    assert client.get("/metrics", **from_afar).status_code == 403
    for token, status in ((reader, 403), (monitor, 200), ("wrong", 403)):
        headers = {"Authorization": f"Bearer {token}"}
        assert client.get("/metrics", headers=headers, **from_afar).status_code == status
