"""The engine seam on a Ray cluster (extra ``ray``): one this machine is part of, or a local one.

Owns the connection and the translation between Ray's references and outcomes. Ray's own retries
are off, since those after a lack of memory are counted by a setting of the cluster
(``RAY_task_oom_retries``); :mod:`millie.engines.window` decides when a unit is tried again.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from millie import __version__
from millie.engines.checks import (
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
from millie.errors import ConfigError, MissingError

if TYPE_CHECKING:
    from pathlib import Path

    from millie.engines.seam import Outcome, Unit, Work

_WHAT = "Ray cluster"
_EXAMPLE = "host:6379 of the head node, or auto on a machine of the cluster"
_HEALTH_S = 20.0


class RayEngine:
    """Workers of the Ray cluster that this process is connected to.

    Args:
        patience_s: seconds without any worker after which a run is given up.
    """

    resubmissions = 1

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._run = ray.remote(run_here).options(num_cpus=1, max_retries=0)

    def map(self, work: Work, units: Sequence[Unit]) -> Iterator[Outcome]:
        """Run ``work`` on each unit's payload; raises as :func:`millie.engines.window.map_on`."""
        return map_on(self, work, units)

    def slots(self) -> int:
        """CPUs of all nodes now."""
        return sum(int(node["Resources"].get("CPU", 0)) for node in _nodes())

    def submit(self, work: Work, unit: Unit) -> ray.ObjectRef:
        """Start the unit on a worker."""
        return self._run.remote(__version__, work, unit)

    def result(self, unit: Unit, job: ray.ObjectRef) -> Outcome:
        """Wait for the outcome.

        Raises:
            WorkerLostError: the unit's workers died.
            MissingError: the cluster is gone, or has no workers.
        """
        self._wait(job)
        try:
            outcome: Outcome = ray.get(job)
        except (
            WorkerCrashedError,
            OutOfMemoryError,
            NodeDiedError,
            LocalRayletDiedError,
            ObjectLostError,
        ) as error:
            raise WorkerLostError(str(error).partition("\n")[0]) from error
        except RayTaskError as error:
            return failed(unit, error.cause)
        except RayError as error:
            return failed(unit, error)
        return outcome

    def _wait(self, job: ray.ObjectRef) -> None:
        """Wait until the job has ended; raises MissingError if there are no workers."""
        seen = time.monotonic()
        while not ray.wait([job], timeout=min(POLL_S, self._patience_s))[0]:
            if self.slots():
                seen = time.monotonic()
            elif time.monotonic() - seen > self._patience_s:
                raise no_workers(_WHAT, self._patience_s)

    def cancel(self, job: ray.ObjectRef) -> None:
        """Forget the job."""
        ray.cancel(job)


@contextmanager
def open_cluster(
    address: str | None, workers: int | None, shared: Path | None
) -> Iterator[RayEngine]:
    """Connect to a cluster or start a local one, and check the workers.

    Args:
        address: ``host:port`` of the head node, or ``auto`` for the cluster that runs on this
            machine; None: start workers on this machine.
        workers: CPUs of the local cluster; None: one a core.
        shared: folder that every worker has to see.

    Raises:
        ConfigError: the address has the wrong form, this process is connected already, or
            versions differ.
        MissingError: nothing answers there, or it has no workers.
        MissingPackageError: workers cannot import millie.
    """
    if ray.is_initialized():
        raise ConfigError(
            "this process is connected to a Ray cluster already: use RayEngine() for it, or call "
            "ray.shutdown() first"
        )
    if address is None:
        _init("local", num_cpus=workers or available_cores(), include_dashboard=False)
    else:
        _connect(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
    try:
        _check(shared)
        yield RayEngine()
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    if address.startswith("ray://"):
        raise ConfigError(
            f"address '{address}': Ray Client drops runs that lose the connection and is not "
            f"used; run millie on a machine of the cluster (`ray job submit`), with {_EXAMPLE}"
        )
    if address != "auto":
        host, port = host_and_port(address, _WHAT, _EXAMPLE)
        knock(host, port, _WHAT)
        _check_health(address)
    try:
        _init(address)
    except RuntimeError as error:
        raise ConfigError(
            f"the {_WHAT} at {address} cannot be used from here: {error}; start millie from the "
            "cluster's own environment"
        ) from error
    except (ConnectionError, RayError) as error:
        raise MissingError(
            f"cannot join the {_WHAT} at {address} ({error}): this machine has to be part of the "
            "cluster (`ray start`), and a cluster with tokens needs RAY_AUTH_MODE=token"
        ) from error


def _init(address: str, **options: object) -> None:
    ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)


def _check_health(address: str) -> None:
    """Ask Ray's own health check: connecting to anything else would hang for minutes."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_HEALTH_S)  # noqa: S603
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise no_answer(
            _WHAT,
            address,
            "what listens there is no healthy Ray head, or wants a token: RAY_AUTH_MODE=token",
        ) from error


def _check(shared: Path | None) -> None:
    nodes = [node["NodeID"] for node in _nodes() if node["Resources"].get("CPU", 0) >= 1]
    if not nodes:
        raise MissingError(f"the {_WHAT} has no CPU to work on: start worker nodes (`ray start`)")
    with visible_marker(shared) as marker:
        ask = ray.remote(make_probe(marker))
        asked = {}
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            asked[f"node {node[:12]}"] = ask.options(
                num_cpus=0, max_retries=0, scheduling_strategy=there
            ).remote()
        try:
            answers = ray.get(list(asked.values()), timeout=WORKERS_S)
        except RayError as error:
            raise MissingError(
                f"a node of the {_WHAT} did not report its versions ({error}): stop it, or fix its "
                "environment"
            ) from error
    check_workers(dict(zip(asked, answers, strict=True)), shared)


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]
