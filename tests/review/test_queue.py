from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.utils import timezone

from millie.review.jobs import queue
from millie.review.models import AuditEvent, Job, JobStatus, Sample

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.django_db


@pytest.fixture
def sample() -> Sample:
    return Sample.objects.create(submitted_by="rita")


def expire(job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(leased_until=timezone.now() - timedelta(seconds=1))


def claimed(worker: str) -> Job:
    job = queue.claim(worker)
    assert job is not None
    return job


def test_the_oldest_is_claimed_first_and_by_one_alone(sample: Sample) -> None:
    first, second = queue.enqueue(sample, ""), queue.enqueue(sample, "")
    assert [claimed("a").pk, claimed("b").pk] == [first.pk, second.pk]
    assert queue.claim("c") is None


def test_a_job_of_a_dead_worker_is_claimed_again_and_the_dead_one_may_not_finish(
    sample: Sample,
) -> None:
    queue.enqueue(sample, "")
    old = claimed("dead")
    assert queue.claim("living") is None
    expire(old)
    new = claimed("living")
    assert (new.pk, new.attempts) == (old.pk, 2)
    for act in (queue.hold, queue.renew, queue.finish):
        with pytest.raises(queue.LostLeaseError):
            act(old, "dead")
    queue.finish(new, "living")
    assert Job.objects.get().status == JobStatus.DONE


def test_a_renewed_lease_keeps_others_off(sample: Sample) -> None:
    queue.enqueue(sample, "")
    job = claimed("a")
    expire(job)
    queue.renew(job, "a")
    assert queue.claim("b") is None


def test_a_job_that_kills_its_workers_ends_with_a_text_and_is_in_the_audit_trail(
    sample: Sample,
) -> None:
    queue.enqueue(sample, "")
    for _ in range(queue.MOST_ATTEMPTS):
        expire(claimed("a"))
    assert queue.claim("a") is None
    job = Job.objects.get()
    assert job.status == JobStatus.FAILED
    assert "memory" in job.error
    assert AuditEvent.objects.filter(action="job.failed", subject=sample.pseudonym).count() == 1


def test_given_back_it_waits_again_and_the_attempt_does_not_count(sample: Sample) -> None:
    queue.enqueue(sample, "")
    queue.give_back(claimed("a"), "a")
    assert claimed("b").attempts == 1


def test_what_may_succeed_later_waits_before_it_is_tried_again(sample: Sample) -> None:
    queue.enqueue(sample, "")
    queue.retry(claimed("a"), "a", "disk full")
    assert queue.claim("a") is None
    expire(Job.objects.get())
    for _ in range(queue.MOST_ATTEMPTS - 1):
        queue.retry(claimed("a"), "a", "disk full")
        expire(Job.objects.get())
    job = Job.objects.get()
    assert (job.status, job.error) == (JobStatus.FAILED, "disk full")


@pytest.mark.parametrize("end", [queue.finish, lambda job, who: queue.fail(job, who, "why")])
def test_an_ended_job_is_not_claimed(sample: Sample, end: Callable[[Job, str], None]) -> None:
    queue.enqueue(sample, "")
    job = claimed("a")
    end(job, "a")
    expire(job)
    assert queue.claim("a") is None


def test_a_failed_job_can_be_queued_anew(sample: Sample) -> None:
    queue.enqueue(sample, "my-model", excluded=[3, 1, 3])
    job = claimed("a")
    queue.fail(job, "a", "why")
    new = queue.again(job)
    assert (new.bundle, new.excluded, new.status) == ("my-model", [1, 3], JobStatus.QUEUED)
