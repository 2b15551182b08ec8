"""The queue: jobs are claimed with a lease, renewed while they run, and done exactly once.

A claim is one ``UPDATE ... RETURNING``: of several workers one gets the job, on SQLite because
there is one writer, on PostgreSQL by ``FOR UPDATE SKIP LOCKED``. A worker that dies stops renewing
its lease, and the job is claimed again; a job whose workers keep dying ends as failed, with a text
for a person. Owns these rules; what a job does is the worker's.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db import connection, transaction
from django.utils import timezone

from millie.review.models import Analysis, Job, JobStatus, Sample
from millie.review.records.audit import record

if TYPE_CHECKING:
    from collections.abc import Sequence

LEASE_S = 60.0
"""A worker that has not been heard of for so long is taken for dead."""
MOST_ATTEMPTS = 3
"""So often a job is begun; a sample that kills its worker must not do so for ever."""
WAIT_S = 20.0
"""Before a job that failed for want of space or the like is begun again; then twice as long."""

_DIED = (
    f"The worker was stopped {MOST_ATTEMPTS} times while it analysed this sample, most likely "
    "because memory ran out. Submit fewer or smaller images, or give the machine more memory, then "
    "run the analysis again."
)
_CLAIM = """
UPDATE review_job
SET status = 'running', leased_by = %s, leased_until = %s, attempts = attempts + 1,
    started = COALESCE(started, %s), step = '', done = 0, total = 0
WHERE id = (
    SELECT id FROM review_job
    WHERE status IN ('queued', 'running') AND (leased_until IS NULL OR leased_until < %s)
        AND attempts < %s
    ORDER BY created, id LIMIT 1 {lock}
)
RETURNING id
"""


class LostLeaseError(Exception):
    """The job is no longer this worker's: it took too long to be heard of, and another has it."""


def enqueue(
    sample: Sample, bundle: str, based_on: Analysis | None = None, excluded: Sequence[int] = ()
) -> Job:
    """Ask for an analysis.

    Args:
        sample: whose images.
        bundle: name or folder of the model; empty: the server's.
        based_on: an analysis to make again without some cells; None: from the images.
        excluded: indices of these cells.
    """
    return Job.objects.create(
        sample=sample, bundle=bundle, based_on=based_on, excluded=sorted(set(excluded))
    )


def claim(worker: str) -> Job | None:
    """Take the oldest job that waits, or whose worker died; None: there is none."""
    _bury()
    now = timezone.now()
    lock = "FOR UPDATE SKIP LOCKED" if connection.features.has_select_for_update_skip_locked else ""
    with transaction.atomic(), connection.cursor() as cursor:
        stored = [_stored(now + timedelta(seconds=LEASE_S)), _stored(now), _stored(now)]
        cursor.execute(_CLAIM.format(lock=lock), [worker, *stored, MOST_ATTEMPTS])
        row = cursor.fetchone()
    return Job.objects.select_related("sample", "based_on").get(pk=row[0]) if row else None


def renew(job: Job, worker: str) -> None:
    """Keep a job for another lease.

    Raises:
        LostLeaseError: it is another's by now.
    """
    until = timezone.now() + timedelta(seconds=LEASE_S)
    _change(job, worker, leased_until=until)


def tell(job: Job, worker: str, step: str, done: int, total: int) -> None:
    """Say how far a job is, for who waits for it; raises as :func:`renew`."""
    until = timezone.now() + timedelta(seconds=LEASE_S)
    _change(job, worker, step=step, done=done, total=total, leased_until=until)


def hold(job: Job, worker: str) -> None:
    """Make sure inside a transaction that a job is still one's own until the transaction ends.

    Raises:
        LostLeaseError: it is another's by now.
    """
    own = Job.objects.select_for_update().filter(pk=job.pk, leased_by=worker)
    if not own.filter(status=JobStatus.RUNNING).exists():
        raise LostLeaseError


def finish(job: Job, worker: str) -> None:
    """Mark a job as done, in the transaction that keeps its result; raises as :func:`renew`."""
    _change(job, worker, status=JobStatus.DONE, finished=timezone.now(), leased_until=None)


def give_back(job: Job, worker: str) -> None:
    """Return a job that was broken off for no fault of its own; the attempt does not count."""
    mine = Job.objects.filter(pk=job.pk, leased_by=worker, status=JobStatus.RUNNING)
    mine.update(status=JobStatus.QUEUED, attempts=job.attempts - 1, leased_by="", leased_until=None)


def fail(job: Job, worker: str, text: str) -> None:
    """End a job for good.

    Args:
        job: which.
        worker: whose it is.
        text: what went wrong and what to do, for a person.

    Raises:
        LostLeaseError: it is another's by now.
    """
    with transaction.atomic():
        _change(
            job, worker, status=JobStatus.FAILED, finished=timezone.now(), error=text,
            leased_until=None,
        )  # fmt: skip
        record("system", "job.failed", job.sample.pseudonym, attempts=job.attempts)


def retry(job: Job, worker: str, text: str) -> None:
    """Put a job back that may succeed later, or end it if it was begun often enough.

    Args:
        job: which.
        worker: whose it is.
        text: what went wrong and what to do, for a person.

    Raises:
        LostLeaseError: it is another's by now.
    """
    if job.attempts >= MOST_ATTEMPTS:
        fail(job, worker, text)
        return
    not_before = timezone.now() + timedelta(seconds=WAIT_S * job.attempts)
    _change(job, worker, status=JobStatus.QUEUED, error=text, leased_by="", leased_until=not_before)


def again(job: Job) -> Job:
    """Queue the same work anew after a failure."""
    return enqueue(job.sample, job.bundle, job.based_on, job.excluded)


def _change(job: Job, worker: str, **values: object) -> None:
    own = Job.objects.filter(pk=job.pk, leased_by=worker, status=JobStatus.RUNNING)
    if not own.update(**values):
        raise LostLeaseError


def _bury() -> None:
    """End what has killed its worker too often."""
    dead = Job.objects.filter(
        status=JobStatus.RUNNING, leased_until__lt=timezone.now(), attempts__gte=MOST_ATTEMPTS
    )
    for job in dead.select_related("sample"):
        with transaction.atomic():
            ended = dead.filter(pk=job.pk).update(
                status=JobStatus.FAILED, finished=timezone.now(), error=_DIED, leased_until=None
            )
            if ended:
                record("system", "job.failed", job.sample.pseudonym, attempts=job.attempts)


def _stored(moment: datetime) -> Any:
    return connection.ops.adapt_datetimefield_value(moment)
