"""The client that the docs show, against the application."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from millie.review.api.tokens import add_token
from millie.review.jobs import queue
from millie.review.models import OriginalName, Sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_django.live_server_helper import LiveServer

    from millie.review.data_folder import DataFolder


def test_it_sends_waits_and_fetches(
    live_server: LiveServer, client_module: Any, data: DataFolder, analysed: Sample,
    run_of_one: Path, picture: Callable[..., bytes], tmp_path: Path,
) -> None:  # fmt: skip
    shutil.copytree(run_of_one / "samples", data.samples, dirs_exist_ok=True)
    assert analysed.analysis is not None
    client = client_module.Client(live_server.url, add_token("test", ["submit", "read"]))
    path = tmp_path / 'a "name".png'
    path.write_bytes(picture())

    sent = client.submit([path], "key", patient="Jane Doe", specimen="blood")
    assert client.submit([path], "key", patient="Jane Doe", specimen="blood") == sent
    assert OriginalName.objects.get(sample__pseudonym=sent).patient == "Jane Doe"
    job = queue.claim("w")
    assert job is not None
    queue.fail(job, "w", "why")
    assert client.wait(sent)["error"] == "why"

    done = analysed.pseudonym
    assert client.result(done)["patient"]["state"] == analysed.analysis.state
    assert b"For research use only" in client.report(done)
    assert len(list(client.cells(done))) == analysed.analysis.n_cells
    assert [each["id"] for each in client.samples(state=analysed.analysis.state)] == [done]
    path.write_bytes(b"<html>")
    with pytest.raises(client_module.ProblemError, match="not a readable image"):
        client.submit([path])


def test_it_stays_short(client_module: Any) -> None:
    assert len(Path(client_module.__file__).read_text(encoding="utf-8").splitlines()) < 130
