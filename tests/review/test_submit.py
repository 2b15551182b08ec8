from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from millie.review.jobs import queue
from millie.review.models import Job, OriginalName, Sample, WatchedItem
from millie.review.pages import submit as page

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client

    from millie.review.data_folder import DataFolder

    Draw = Callable[..., bytes]

pytestmark = pytest.mark.django_db
JSON = {"Accept": "application/json"}


def form(*files: tuple[str, bytes], **about: object) -> dict[str, object]:
    sent = [SimpleUploadedFile(name, content) for name, content in files]
    return {"files": sent, "specimen": "blood", **about}


def test_the_form_makes_a_sample(reviewer: Client, data: DataFolder, picture: Draw) -> None:
    sent = form(("1.png", picture(1)), ("2.png", picture(2)), patient="Jane Doe", um_px="0.1")
    response = reviewer.post("/submit", sent, follow=True)
    sample = Sample.objects.get()
    assert (sample.submitted_by, sample.specimen, sample.um_px) == ("rita", "blood", 0.1)
    text = response.content.decode()
    assert f"{sample.pseudonym}: 2 images taken." in text
    assert "Doe" not in text


def test_the_script_gets_notes_and_sends_folders(
    reviewer: Client, data: DataFolder, picture: Draw
) -> None:
    sent = form(("1.png", picture()), ("notes.txt", b"hello"), paths=["Doe/1.png", "Doe/notes.txt"])
    answer = reviewer.post("/submit", sent, headers=JSON)
    assert answer.json()["notes"] == ["1 file was not an image: left aside"]
    assert OriginalName.objects.get().patient == "Doe"


def test_a_file_that_is_no_image_is_named_with_the_reason(
    reviewer: Client, data: DataFolder
) -> None:
    answer = reviewer.post("/submit", form(("cell.png", b"<html>")), headers=JSON)
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "not a readable image" in answer.json()["files"][0]["reason"]
    page = reviewer.post("/submit", form(("cell.png", b"<html>")))
    assert page.status_code == 422
    assert "cell.png: not a readable image" in page.content.decode()
    assert not Sample.objects.exists()


@pytest.mark.parametrize("headers", [{}, JSON])
def test_a_wrong_field_is_told(
    reviewer: Client, data: DataFolder, picture: Draw, headers: dict[str, str]
) -> None:
    answer = reviewer.post("/submit", form(("1.png", picture()), um_px="250"), headers=headers)
    assert answer.status_code == 422
    assert "Scale, um per pixel" in answer.content.decode()


def test_a_full_disk_is_told_and_nothing_kept(
    reviewer: Client, data: DataFolder, picture: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "admit", full)
    answer = reviewer.post("/submit", form(("1.png", picture())), headers=JSON)
    assert (answer.status_code, answer.json()["title"]) == (507, "Insufficient Storage")
    text = reviewer.post("/submit", form(("1.png", picture()))).content.decode()
    assert "disk of the data folder is full" in text
    assert not list(data.incoming.iterdir())


def test_a_viewer_may_not_submit(
    client: Client, make_user: Callable[..., User], data: DataFolder, picture: Draw
) -> None:
    client.force_login(make_user("vera", "viewer"))
    for answer in (client.get("/submit"), client.post("/submit", form(("1.png", picture())))):
        assert answer.status_code == 403
    assert not Sample.objects.exists()


def test_progress_failures_and_refusals_are_shown_and_a_failure_is_tried_again(
    reviewer: Client, data: DataFolder, picture: Draw
) -> None:
    reviewer.post("/submit", form(("1.png", picture())))
    job = queue.claim("w")
    assert job is not None
    queue.tell(job, "w", "Finding cells", 1, 4)
    assert "Finding cells 1 of 4" in reviewer.get("/submit/progress").content.decode()
    queue.fail(job, "w", "the model was altered")
    WatchedItem.objects.create(key="k", name="Roe", reason="no image")
    text = reviewer.get("/submit").content.decode()
    assert all(words in text for words in ("the model was altered", "Roe", "no image"))
    reviewer.post(f"/jobs/{job.pk}/again")
    reviewer.post(f"/jobs/{job.pk}/again")  # twice: once is enough
    assert Job.objects.filter(status="queued").count() == 1
    assert "the model was altered" not in reviewer.get("/submit/progress").content.decode()
