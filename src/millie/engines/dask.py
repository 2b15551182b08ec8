"""The engine seam on a Dask cluster (extra ``dask``): an existing scheduler, or a local one.

Owns the connection and the translation between Dask's futures and outcomes. Dask itself gives the
units of a dead worker to another one and gives up after ``distributed.scheduler.allowed-failures``
(3) deaths; then :mod:`millie.engines.window` decides.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.config
import distributed
from distributed.scheduler import KilledWorker

from millie import __version__
from millie.engines.checks import (
    ANSWER_S,
    PATIENCE_S,
    POLL_S,
    WORKERS_S,
    check_workers,
    host_and_port,
    knock,
    make_probe,
    no_answer,
    no_workers,
    visible_marker,
)
from millie.engines.seam import available_cores
from millie.engines.window import WorkerLostError, failed, map_on, run_here
from millie.errors import ConfigError, MissingError, MissingFileError

if TYPE_CHECKING:
    from millie.engines.seam import Outcome, Unit, Work

_WHAT = "Dask scheduler"
_LOCAL_SETTINGS = {
    # A local worker that does not answer at once is dead.
    "distributed.comm.timeouts.connect": "5s",
    # Else a worker that is just being started again when this is over is given up for good.
    "distributed.deploy.lost-worker-timeout": "1000 days",
}


class DaskEngine:
    """Workers of a Dask cluster.

    Args:
        client: connected; stays open. Its workers should have one thread each.
        patience_s: seconds without any worker after which a run is given up.
    """

    resubmissions = 0  # the scheduler does it

    def __init__(self, client: distributed.Client, patience_s: float = PATIENCE_S) -> None:
        self._client = client
        self._patience_s = patience_s

    def map(self, work: Work, units: Sequence[Unit]) -> Iterator[Outcome]:
        """Run ``work`` on each unit's payload; raises as :func:`millie.engines.window.map_on`."""
        return map_on(self, work, units)

    def slots(self) -> int:
        """Threads of all workers now.

        Raises:
            MissingError: the scheduler does not answer.
        """
        try:
            return sum(self._client.nthreads().values())
        except (OSError, distributed.CancelledError) as error:
            raise _lost(error) from error

    def submit(self, work: Work, unit: Unit) -> _Job:
        """Start the unit on a worker."""
        return _Job(self._client.submit(run_here, __version__, work, unit, pure=False))

    def result(self, unit: Unit, job: _Job) -> Outcome:
        """Wait for the outcome.

        Raises:
            WorkerLostError: the unit's workers died.
            MissingError: the cluster is gone, or has no workers.
        """
        error = self._ended(job)
        if error is None:
            return job.fetched.result()
        if isinstance(error, KilledWorker):
            raise WorkerLostError(f"{error.allowed_failures + 1} workers died") from error
        if isinstance(error, distributed.CancelledError | OSError):
            raise _lost(error) from error
        return failed(unit, error)

    def _ended(self, job: _Job) -> BaseException | None:
        """Wait until the job has ended, and return its error."""
        seen = time.monotonic()
        while True:
            try:
                return job.fetched.exception(timeout=min(POLL_S, self._patience_s))
            except TimeoutError:
                if self.slots():
                    seen = time.monotonic()
                elif time.monotonic() - seen > self._patience_s:
                    raise no_workers("Dask cluster", self._patience_s) from None

    def cancel(self, job: _Job) -> None:
        """Forget the job."""
        job.future.release()


class _Job:
    """A future of Dask whose result is fetched as soon as it is there.

    Dask leaves results where they were computed and computes them again when that worker dies; and
    it looks for a dead worker for half a minute before it does.
    """

    def __init__(self, future: distributed.Future) -> None:
        self.future = future
        self.fetched: Future[Outcome] = Future()
        future.add_done_callback(self._fetch)

    def _fetch(self, future: distributed.Future) -> None:
        try:
            self.fetched.set_result(future.result())
        except (Exception, distributed.CancelledError) as error:  # noqa: BLE001 - told by result()
            self.fetched.set_exception(error)


@contextmanager
def open_cluster(
    address: str | None, workers: int | None, shared: Path | None
) -> Iterator[DaskEngine]:
    """Connect to a scheduler or start a local one, and check the workers.

    Args:
        address: ``tcp://host:port``, ``host:port`` or the scheduler's JSON file; None: start
            workers on this machine.
        workers: processes of the local cluster; None: one a core.
        shared: folder that every worker has to see.

    Raises:
        ConfigError: the address has the wrong form, or versions differ.
        MissingError: nothing answers there, or it has no workers.
        MissingPackageError: workers cannot import millie.
    """
    with ExitStack() as stack:
        if address is None:
            stack.enter_context(dask.config.set(_LOCAL_SETTINGS))
            local = distributed.LocalCluster(
                n_workers=workers or available_cores(),
                threads_per_worker=1,
                processes=True,
                memory_limit=0,
                dashboard_address=None,
            )
            address = stack.enter_context(local).scheduler_address
        client = stack.enter_context(_connected(address))
        _check(client, shared)
        yield DaskEngine(client)


def _connected(address: str) -> distributed.Client:
    if address.endswith(".json"):
        address = _from_file(Path(address))
    host, port = host_and_port(
        address, _WHAT, "tcp://host:8786, or the JSON file of `dask scheduler --scheduler-file`"
    )
    knock(host, port, _WHAT)
    try:
        # In a thread of its own: the caller's may run an event loop (a notebook).
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, _ask_for_identity(address)).result()
        return distributed.Client(address, timeout=ANSWER_S, set_as_default=False)
    except ValueError as error:
        raise ConfigError(f"address '{address}' of the {_WHAT}: {error}") from error
    except OSError as error:
        raise no_answer(_WHAT, address, error or "silence") from error


async def _ask_for_identity(address: str) -> None:
    """Hear a scheduler answer in time: Dask's own client waits for ever on a silent port."""
    options = distributed.Security().get_connection_args("client")
    async with asyncio.timeout(ANSWER_S), distributed.rpc(address, connection_args=options) as it:
        await it.identity(n_workers=0)


def _from_file(path: Path) -> str:
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist: the {_WHAT} writes it when it has started")
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["address"])
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigError(
            f"{path} names no {_WHAT} ({error}): expected the file that `dask scheduler "
            "--scheduler-file` writes"
        ) from error


def _check(client: distributed.Client, shared: Path | None) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKERS_S)
    except TimeoutError:
        raise no_workers("Dask cluster", WORKERS_S) from None
    # Code can be sent only between equal Pythons: these are asked for first.
    known: dict[str, Any] = client.get_versions()["workers"]
    pythons = {name: v["packages"]["python"].split(".") for name, v in known.items()}
    check_workers({name: {"python": ".".join(v[:2])} for name, v in pythons.items()})
    with visible_marker(shared) as marker:
        found = client.run(make_probe(marker), on_error="return")
    for name, facts in found.items():
        if isinstance(facts, BaseException):
            raise MissingError(
                f"worker {name} did not report its versions ({facts!r}): stop it, or fix its "
                "environment"
            ) from facts
    check_workers(found, shared)


def _lost(error: BaseException) -> MissingError:
    return MissingError(
        f"the {_WHAT} is gone ({error}): start it and run the same command again; finished "
        "work is kept"
    )
