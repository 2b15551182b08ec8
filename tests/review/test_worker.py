from __future__ import annotations

import hashlib
import io
import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from millie.errors import BusyError
from millie.models.bundle_folder import locate
from millie.outputs.patient.tables import read_predictions
from millie.review.jobs import calling, queue, worker
from millie.review.models import CellDecision, Job, JobStatus, Sample
from millie.review.models import Worker as Seen

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from django.contrib.auth.models import User

    from millie.review.data_folder import DataFolder

pytestmark = pytest.mark.django_db


@pytest.fixture
def sample(analysed: Sample, data: DataFolder, run_of_one: Path) -> Sample:
    """The drawn sample, with its images and its run in the data folder."""
    shutil.copytree(run_of_one / "samples", data.samples, dirs_exist_ok=True)
    for image in analysed.images.all():
        source = run_of_one / "images" / "S-drawn" / image.name
        shutil.copyfile(source, data.images / image.sha256)
    return analysed


@pytest.fixture
def empty(data: DataFolder) -> Sample:
    """A sample whose one image shows nothing."""
    noise = np.random.default_rng(0).normal(230, 3, (600, 600, 3)).clip(0, 255).astype("uint8")
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    digest = hashlib.sha256(stream.getvalue()).hexdigest()
    (data.images / digest).write_bytes(stream.getvalue())
    sample = Sample.objects.create(submitted_by="rita")
    sample.images.create(position=1, name="image-1.png", sha256=digest, n_bytes=1)
    return sample


def failed_text() -> str:
    job = Job.objects.get()
    assert job.status == JobStatus.FAILED
    return job.error


def test_cells_that_a_person_took_out_are_left_out_and_the_other_decisions_stay(
    sample: Sample, data: DataFolder, make_user: Callable[..., User]
) -> None:
    ann, old = make_user("ann", "reviewer"), sample.analysis
    assert old is not None
    first, second, last = old.cells.all()[0], old.cells.all()[1], old.cells.last()
    assert last is not None
    decided = [(first, "artefact"), (second, "blast"), (last, "monocyte")]
    for cell, code in decided:
        for version, word in enumerate(("lymphocyte", code), start=1):
            CellDecision.objects.create(
                cell=cell, version=version, code=word, suggestion="ALL", user=ann
            )
        cell.decision, cell.version = code, 2
        cell.save()
    queue.enqueue(sample, "", old, [0])

    assert worker.Worker().work_once()

    job = Job.objects.get()
    assert (job.status, job.error) == (JobStatus.DONE, "")
    sample.refresh_from_db()
    new = sample.analysis
    assert new is not None
    assert (new.number, new.based_on, new.excluded) == (2, old, [0])
    assert new.n_cells == old.n_cells - 1 == new.cells.count()
    places = [(c.image, c.left_px, c.top_px, c.decision) for c in new.cells.exclude(decision="")]
    assert places == [
        (second.image, second.left_px, second.top_px, "blast"),
        (last.image, last.left_px, last.top_px, "monocyte"),
    ]
    carried = CellDecision.objects.filter(cell__analysis=new)
    assert {c.carried_from.version for c in carried if c.carried_from} == {2}
    assert {c.at for c in carried} == {c.carried_from.at for c in carried if c.carried_from}
    run = read_predictions(data.root / new.folder)
    assert run.patients[0].n_cells == new.n_cells
    assert list((data.root / new.folder).glob("overlays/*/*.jpg"))
    assert not list((data.root / "work").iterdir())


def test_a_sample_without_cells_is_analysed_as_failed_with_the_reason(
    empty: Sample, data: DataFolder
) -> None:
    queue.enqueue(empty, "")
    assert worker.Worker().work_once()
    assert Job.objects.get().status == JobStatus.DONE
    empty.refresh_from_db()
    analysis = empty.analysis
    assert analysis is not None
    assert (analysis.state, analysis.light, analysis.n_cells) == ("FAILED", "fail", 0)
    assert "no cells in 1 image" in analysis.result["error"]
    page = data.root / analysis.folder / "report.html"
    assert "no cells in 1 image" in page.read_text(encoding="utf-8")


def test_a_missing_image_ends_the_job_with_a_text(empty: Sample, data: DataFolder) -> None:
    (data.images / empty.images.get().sha256).unlink()
    queue.enqueue(empty, "")
    worker.Worker().work_once()
    assert "image-1.png" in failed_text()
    assert str(data.root) not in failed_text()


def test_a_damaged_model_ends_the_job_with_a_text(
    empty: Sample, data: DataFolder, tmp_path: Path
) -> None:
    bundle = tmp_path / "model"
    shutil.copytree(locate("acute-leukaemia"), bundle)
    with (bundle / "config.toml").open("a") as stream:
        stream.write("# changed\n")
    queue.enqueue(empty, str(bundle))
    worker.Worker().work_once()
    assert "was altered" in failed_text()


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (OSError(28, "No space left on device"), JobStatus.QUEUED, "No space left"),
        (ZeroDivisionError("Jane Doe"), JobStatus.QUEUED, "ZeroDivisionError"),
        (BusyError("in use"), JobStatus.QUEUED, ""),
    ],
)
def test_what_may_pass_is_tried_again(
    empty: Sample, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str, text: str
) -> None:
    def call(*_: object) -> None:
        raise error

    monkeypatch.setattr(worker, "call", call)
    queue.enqueue(empty, "")
    assert worker.Worker().work_once()
    job = Job.objects.get()
    assert job.status == status
    assert text in job.error
    assert "Doe" not in job.error


def test_stopped_in_the_middle_the_job_waits_again(
    empty: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*_: object) -> None:
        raise SystemExit(0)

    monkeypatch.setattr(worker, "call", call)
    queue.enqueue(empty, "")
    with pytest.raises(SystemExit):
        worker.Worker().work_once()
    assert (Job.objects.get().status, Job.objects.get().attempts) == (JobStatus.QUEUED, 0)


def test_a_result_that_comes_after_the_lease_was_lost_is_not_kept(
    sample: Sample, monkeypatch: pytest.MonkeyPatch, data: DataFolder
) -> None:
    assert sample.analysis is not None
    folder = data.root / sample.analysis.folder

    def call(*_: object) -> Path:
        Job.objects.update(leased_by="another")
        return folder

    monkeypatch.setattr(worker, "call", call)
    queue.enqueue(sample, "")
    worker.Worker().work_once()
    assert sample.analyses.count() == 1
    assert Job.objects.get().leased_by == "another"


def test_at_a_start_only_the_folders_of_jobs_that_nobody_is_at_are_removed(
    empty: Sample, data: DataFolder
) -> None:
    jobs = [queue.enqueue(empty, "") for _ in range(3)]
    for job in jobs:
        (data.root / "work" / str(job.pk)).mkdir(parents=True)
    queue.claim("of a server that was killed")
    calling.sweep(data)
    assert [path.name for path in (data.root / "work").iterdir()] == [str(jobs[0].pk)]


def test_progress_is_told_in_words(empty: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(_: object, progress: Callable[[str, int, int], None]) -> None:
        progress("segment", 1, 4)
        job = Job.objects.get()
        assert (job.step, job.done, job.total) == ("Finding cells", 1, 4)
        raise SystemExit(0)

    monkeypatch.setattr(worker, "call", call)
    queue.enqueue(empty, "")
    with pytest.raises(SystemExit):
        worker.Worker().work_once()


def test_a_worker_without_work_says_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    one = worker.Worker(name="here~1")
    monkeypatch.setattr(one, "_parent", -1)  # as if who started it was gone: it ends at once
    monkeypatch.setattr(
        worker.Worker,
        "_sign_off",
        lambda _: seen.extend(Seen.objects.values_list("name", flat=True)),
    )
    one.run()
    assert seen == ["here~1"]


def test_the_predictions_entry_is_stored_unchanged(sample: Sample, data: DataFolder) -> None:
    assert sample.analysis is not None
    sample.analysis.refresh_from_db()
    path = data.root / sample.analysis.folder / "predictions.json"
    assert sample.analysis.result == json.loads(path.read_text())["patients"][0]
