"""The seam for scale: units of work, their outcomes, and an engine that maps one to the other.

A :class:`Unit` is small and picklable: ids, paths, a configuration; never pixels or models. The
work is a top-level function that writes its own result atomically and returns a small summary.
This module owns order, isolation of failures and the split into shards; it knows no stage.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from millie.engines.memory import shortage_text
from millie.errors import ConfigError, ResourcesError

_LOOK_S = 5.0
"""Seconds between looks at whether a pool still works."""

_READY_S = 5.0
"""Longest wait for a first worker to be ready, in seconds."""

_MOST_ON_WINDOWS = 61
"""Processes that Python can wait for there."""

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Unit:
    """One independent piece of work.

    Attributes:
        id: unique in its list; shown to people.
        payload: picklable arguments (paths, configuration).
    """

    id: str
    payload: Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a unit ended.

    Attributes:
        unit: the unit's id.
        status: done, skipped (its result was there already) or failed.
        summary: what the work returned; empty when it failed.
        error: class name of the error, empty unless failed.
        message: its message.
    """

    unit: str
    status: Status
    summary: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    message: str = ""


Work = Callable[[Any], dict[str, Any]]
"""Does a unit and returns a summary, with ``{"skipped": True}`` if there was nothing to do."""


class Engine(Protocol):
    """Maps units to outcomes.

    The contract, tested for every engine: one outcome a unit; outcomes in the order of the units;
    a failing unit becomes a failed outcome and never stops the others; results do not depend on
    the engine. ``map`` yields as soon as the next outcome in order is known.
    """

    def map(self, work: Work, units: Sequence[Unit]) -> Iterator[Outcome]:
        """Run ``work`` on each unit's payload."""
        ...


class SerialEngine:
    """One unit after the other in this process."""

    def map(self, work: Work, units: Sequence[Unit]) -> Iterator[Outcome]:
        """Run ``work`` on each unit's payload."""
        for unit in units:
            yield run_unit(work, unit)


class ProcessEngine:
    """Worker processes on this machine.

    Args:
        workers: number of processes; None: one a core.
        ready: module of the work to come: a first worker starts and imports it now, while this
            process does the same; "": workers start with the work. Then ``close`` it.

    Raises:
        ConfigError: fewer than one worker.
    """

    def __init__(self, workers: int | None = None, ready: str = "") -> None:
        if workers is not None and workers < 1:
            raise ConfigError(f"workers={workers}: expected at least 1")
        self.workers = workers or available_cores()
        self._early: ProcessPoolExecutor | None = None
        self._is_ready: Future[None] | None = None
        if ready:
            # What goes wrong here goes wrong again, and is told, when there is work.
            with suppress(ResourcesError):
                pool = self._executor(self.workers)
                try:
                    self._is_ready = pool.submit(_get_ready, ready)
                    self._early = pool
                except (OSError, RuntimeError):
                    _kill(pool)

    def close(self) -> None:
        """End the worker that was made ready, if no work came."""
        early, self._early = self._early, None
        if early is not None:
            _kill(early)
            early.shutdown()

    def map(self, work: Work, units: Sequence[Unit]) -> Iterator[Outcome]:
        """Run ``work`` on each unit's payload.

        A worker that dies takes the pool with it; the units that were not finished are then run
        one by one in fresh single workers, so only the unit that kills its worker fails.
        """
        waiting = deque(units)
        while waiting:
            for outcome in self._pool_map(work, list(waiting)):
                waiting.popleft()
                yield outcome
            if waiting:
                yield self._alone(work, waiting.popleft())

    def _pool_map(self, work: Work, units: list[Unit]) -> Iterator[Outcome]:
        """Yield outcomes in order until all are done or a worker has died."""
        # A window keeps memory constant however many units there are.
        window: deque[Future[Outcome]] = deque()
        position = 0
        early, self._early = self._early, None
        if early is not None and self._is_ready is not None:
            wait([self._is_ready], _READY_S)  # else the pool starts another for the first unit
        with early or self._executor(min(self.workers, len(units))) as pool:
            try:
                while position < len(units) or window:
                    while position < len(units) and len(window) < 4 * self.workers:
                        window.append(_submitted(pool, work, units[position]))
                        position += 1
                    yield _outcome(pool, window.popleft())
            except BrokenProcessPool:
                return
            finally:
                for future in window:
                    future.cancel()

    def _alone(self, work: Work, unit: Unit) -> Outcome:
        """Run a unit with nothing beside it; once more if its worker dies of something else."""
        for _ in range(2):
            with self._executor(1) as pool, suppress(BrokenProcessPool):
                return _outcome(pool, _submitted(pool, work, unit))
        return Outcome(
            unit.id, "failed", error="WorkerDied",
            message="the worker process was killed every time, twice with nothing else running "
            "(out of memory, or a crash in an image decoder)",
        )  # fmt: skip

    @staticmethod
    def _executor(workers: int) -> ProcessPoolExecutor:
        workers = min(workers, _MOST_ON_WINDOWS) if sys.platform == "win32" else workers
        # spawn: forking a process that already runs threads (OpenCV, torch) can deadlock.
        try:
            return ProcessPoolExecutor(
                workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin_worker,
                initargs=(max(1, available_cores() // workers),),
            )
        except (OSError, NotImplementedError, ImportError) as error:
            raise ResourcesError(
                f"worker processes cannot be started ({error}): they need semaphores, which Linux "
                "keeps in /dev/shm: mount it (docker run --shm-size=64m), or work in one process "
                "with --engine serial"
            ) from error


def _get_ready(module: str) -> None:
    """Import what the work will need."""
    import_module(module)


def _begin_worker(threads: int) -> None:
    """Limit what a new worker takes, and let it end with the process that started it.

    Args:
        threads: of the libraries that it will load: together no more than there are cores.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        os.environ.setdefault(name, str(threads))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait until the parent is gone, however it ended: a worker would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # results are written atomically: nothing is left half done


def _submitted(pool: ProcessPoolExecutor, work: Work, unit: Unit) -> Future[Outcome]:
    """A unit in the pool.

    Raises:
        ResourcesError: no process or thread can be started for it.
    """
    try:
        return pool.submit(run_unit, work, unit)
    except BrokenProcessPool:
        raise
    except (OSError, RuntimeError) as error:
        _kill(pool)
        raise _no_workers(error) from error


def _outcome(pool: ProcessPoolExecutor, future: Future[Outcome]) -> Outcome:
    """Wait for an outcome, but not for ever: short of memory, the pool's own thread may end.

    Raises:
        ResourcesError: it did.
    """
    while True:
        try:
            return future.result(timeout=_LOOK_S)
        except TimeoutError:
            manager = getattr(pool, "_executor_manager_thread", None)  # CPython's, no public name
            if manager is not None and not manager.is_alive() and not future.done():
                _kill(pool)
                raise _no_workers("its threads cannot be started") from None


def _kill(pool: ProcessPoolExecutor) -> None:
    for worker in dict(getattr(pool, "_processes", None) or {}).values():
        worker.kill()


def _no_workers(why: object) -> ResourcesError:
    return ResourcesError(f"worker processes cannot be started ({why}); {shortage_text()}")


def run_unit(work: Work, unit: Unit) -> Outcome:
    """Run one unit; an error becomes a failed outcome: one patient never stops the rest."""
    try:
        summary = work(unit.payload)
    except Exception as error:  # noqa: BLE001 - the one catch-all: a failure is data here
        return Outcome(unit.id, "failed", error=type(error).__name__, message=str(error))
    status: Status = "skipped" if summary.get("skipped") else "done"
    return Outcome(unit.id, status, summary=summary)


def shard(units: Sequence[Unit], index: int, count: int) -> list[Unit]:
    """Part ``index`` (from 0) of ``count``: disjoint, together all, each in the given order.

    Raises:
        ConfigError: unless 0 <= index < count.
    """
    if not 0 <= index < count:
        raise ConfigError(f"shard {index}/{count}: expected 0 <= index < count")
    return list(units[index::count])


def available_cores() -> int:
    """Cores that this process may use: its affinity mask, and a container's quota below it."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return min(cores, quota_cores() or cores)


def quota_cores(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Cores of processor time that a container may use, rounded up; None: no limit is set.

    Args:
        root: where the control groups are mounted; a container sees its own there.

    Source: Linux documentation, cgroup-v2 ``cpu.max`` ("quota period" in us), and cgroup-v1
    ``cpu.cfs_quota_us`` (-1: none).
    """
    old = root / "cpu"
    try:
        if (root / "cpu.max").is_file():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota = (old / "cpu.cfs_quota_us").read_text()
            period = (old / "cpu.cfs_period_us").read_text()
        return max(1, math.ceil(int(quota) / int(period))) if int(quota) > 0 else None
    except (OSError, ValueError):  # "max", no control groups, another system
        return None
