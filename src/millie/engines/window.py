"""Ordered outcomes from a cluster that may lose workers, in constant memory.

Owns the window of submitted units, the order of outcomes and what happens to a unit whose worker
died. It knows no cluster software: an adapter gives it the few operations of :class:`Cluster`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Generic, Protocol, TypeVar

from millie import __version__
from millie.engines.seam import Outcome, Unit, Work, run_unit

Job = TypeVar("Job")

WINDOW_PER_SLOT = 4
"""Units submitted for each that can run at once: enough that no worker waits for the driver."""


class WorkerLostError(Exception):
    """A worker died while it had the unit; never leaves :func:`map_on`."""


class Cluster(Protocol[Job]):
    """What an adapter gives: places to run, and jobs that end.

    Attributes:
        resubmissions: how often a unit whose worker died is submitted again beside the others,
            on top of what the cluster does itself, before it must prove itself alone.
    """

    resubmissions: int

    def slots(self) -> int:
        """Units that can run at the same time now; it may change while work goes on."""
        ...

    def submit(self, work: Work, unit: Unit) -> Job:
        """Start :func:`run_here` on a worker."""
        ...

    def result(self, unit: Unit, job: Job) -> Outcome:
        """Wait for the outcome.

        Raises:
            WorkerLostError: the worker died.
            MissingError: the cluster is gone, or has had no worker for too long.
        """
        ...

    def cancel(self, job: Job) -> None:
        """Forget a job whose outcome is no longer wanted."""
        ...


def map_on(cluster: Cluster[Job], work: Work, units: Sequence[Unit]) -> Iterator[Outcome]:
    """Run units on a cluster and yield their outcomes in the order of the units.

    At most ``WINDOW_PER_SLOT`` units a slot are submitted at a time. A worker that dies may take
    units down that did nothing wrong; so a unit that was lost too often is run once more when
    nothing else runs, and only if its worker dies then too is it the unit's own fault.

    Yields:
        one outcome a unit. A unit whose worker died after the result was written is found done
        by the next try and may be reported as skipped.

    Raises:
        MissingError: the cluster is gone, or has had no worker for too long.
    """
    waiting = iter(units)
    window: deque[_Submitted[Job]] = deque()
    try:
        while True:
            room = max(1, WINDOW_PER_SLOT * cluster.slots()) - len(window)
            for unit in islice(waiting, max(0, room)):
                window.append(_Submitted(cluster, work, unit))
            if not window:
                return
            outcome = _first_outcome(window, cluster.resubmissions)
            window.popleft()
            yield outcome
    finally:
        for submitted in window:
            submitted.cancel()


class _Submitted(Generic[Job]):
    """A unit on the cluster, and what became of it once that is known."""

    def __init__(self, cluster: Cluster[Job], work: Work, unit: Unit) -> None:
        self.unit = unit
        self._cluster, self._work = cluster, work
        self.submit()

    def submit(self) -> None:
        """Start the unit, again if it was lost."""
        self._end: Outcome | WorkerLostError | None = None
        self._job: Job | None = self._cluster.submit(self._work, self.unit)

    def outcome(self) -> Outcome:
        """Wait for the outcome.

        Raises:
            WorkerLostError: the unit's workers died.
            MissingError: the cluster is gone, or has no workers.
        """
        if self._job is not None:
            try:
                self._end = self._cluster.result(self.unit, self._job)
            except WorkerLostError as error:
                self._end = error
            # The cluster keeps what is referred to, and would do it again if that was lost.
            self._job = None
        if isinstance(self._end, Outcome):
            return self._end
        raise self._end or WorkerLostError

    def cancel(self) -> None:
        """Forget the unit."""
        if self._job is not None:
            self._cluster.cancel(self._job)


def _first_outcome(window: Sequence[_Submitted[Job]], resubmissions: int) -> Outcome:
    """Outcome of the window's first unit, tried again in the crowd and then alone."""
    first, *others = window
    for left in range(resubmissions, -1, -1):
        try:
            return first.outcome()
        except WorkerLostError:
            if left:
                first.submit()
    for other in others:
        with suppress(WorkerLostError):
            other.outcome()
    first.submit()
    try:
        return first.outcome()
    except WorkerLostError as error:
        return Outcome(
            first.unit.id, "failed", error="WorkerDied",
            message="the worker was killed every time, at last with nothing else running (out of "
            f"memory, or a crash in an image decoder): {error}",
        )  # fmt: skip


def run_here(version: str, work: Work, unit: Unit) -> Outcome:
    """Run one unit on a worker, unless the worker has another millie than the driver.

    Workers that were there at the start have been checked; this is for those that come later.
    """
    if version != __version__:
        return Outcome(
            unit.id, "failed", error="ConfigError",
            message=f"a worker that joined later has millie {__version__}, expected {version}: "
            "install the same version on every worker and run again",
        )  # fmt: skip
    return run_unit(work, unit)


def failed(unit: Unit, error: BaseException) -> Outcome:
    """Outcome of a unit that the cluster could not even start or whose answer it lost."""
    return Outcome(unit.id, "failed", error=type(error).__name__, message=str(error))
