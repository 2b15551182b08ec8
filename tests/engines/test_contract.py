"""One contract for every engine, on real local clusters, with workers killed in the middle."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from millie.engines.seam import Engine, SerialEngine, Unit
from millie.errors import ImageError
from millie.files import write_bytes


@dataclass(frozen=True)
class Job:
    """Payload: write the file of one number, and maybe kill the own process while at it."""

    number: int
    out: Path
    traces: Path
    kill: str = "never"


def square(number: int) -> dict[str, Any]:
    time.sleep(0.01 * (number % 3))  # later units may well be ready first
    return {"square": number**2, "skipped": number % 4 == 1}


def fail_on_odd(number: int) -> dict[str, Any]:
    if number % 2:
        raise ImageError(f"image {number} is cut short")
    return {}


def write_result(job: Job) -> dict[str, Any]:
    """Like a real stage: skip what is there, else write a whole file under its name or none."""
    target = job.out / f"{job.number:02}.bin"
    if target.exists():
        return {"skipped": True}
    tries = job.traces / f"{job.number:02}"
    with tries.open("a", encoding="utf-8") as log:
        log.write(f"{os.getpid()}\n")
    if job.kill != "never" and (job.kill == "always" or _lines(tries) == 1):
        (job.out / f".{target.name}.half.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    write_bytes(target, bytes((job.number * i) % 251 for i in range(5000)))
    return {"number": job.number}


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.fixture
def workers(engine: Engine) -> Engine:
    if isinstance(engine, SerialEngine):
        pytest.skip("the serial engine has no workers to kill")
    return engine


def units_of(count: int) -> list[Unit]:
    return [Unit(f"unit {i}", i) for i in range(count)]


def jobs_of(folder: Path, count: int, kill: dict[int, str] | None = None) -> list[Unit]:
    out, traces = folder / "out", folder / "traces"
    for one in (out, traces):
        one.mkdir(parents=True)
    kills = kill or {}
    return [Unit(f"{i:02}", Job(i, out, traces, kills.get(i, "never"))) for i in range(count)]


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "out").glob("[!.]*"))}


def test_outcomes_come_in_the_order_of_the_units(engine: Engine) -> None:
    outcomes = list(engine.map(square, units_of(12)))
    assert [o.unit for o in outcomes] == [f"unit {i}" for i in range(12)]
    assert [o.summary["square"] for o in outcomes] == [i**2 for i in range(12)]
    assert [o.status for o in outcomes] == ["skipped" if i % 4 == 1 else "done" for i in range(12)]


def test_a_failure_is_an_outcome_and_stops_nobody(engine: Engine) -> None:
    outcomes = list(engine.map(fail_on_odd, units_of(5)))
    assert [o.status for o in outcomes] == ["done", "failed", "done", "failed", "done"]
    assert (outcomes[1].error, outcomes[1].message) == ("ImageError", "image 1 is cut short")


def test_no_units_no_outcomes(engine: Engine) -> None:
    assert list(engine.map(square, [])) == []


def test_a_run_can_be_left_and_another_started(engine: Engine) -> None:
    outcomes = engine.map(square, units_of(40))
    assert isinstance(outcomes, Iterator)
    assert next(outcomes).unit == "unit 0"
    outcomes.close()  # type: ignore[attr-defined]
    assert [o.unit for o in engine.map(square, units_of(3))] == ["unit 0", "unit 1", "unit 2"]


def test_killed_workers_lose_no_unit_and_do_none_twice(workers: Engine, tmp_path: Path) -> None:
    list(SerialEngine().map(write_result, jobs_of(tmp_path / "serial", 12)))
    units = jobs_of(tmp_path / "killed", 12, {3: "once", 7: "once"})
    outcomes = list(workers.map(write_result, units))
    assert [o.unit for o in outcomes] == [unit.id for unit in units]
    assert {o.status for o in outcomes} <= {"done", "skipped"}
    assert results(tmp_path / "killed") == results(tmp_path / "serial")
    assert all(_lines(tmp_path / "killed" / "traces" / f"{i:02}") >= 2 for i in (3, 7))


def test_all_workers_killed_from_outside_at_once(workers: Engine, tmp_path: Path) -> None:
    list(SerialEngine().map(write_result, jobs_of(tmp_path / "serial", 12)))
    units = jobs_of(tmp_path / "killed", 12)
    outcomes = []
    for outcome in workers.map(write_result, units):
        outcomes.append(outcome)
        if len(outcomes) == 1:
            _kill_those_at_work(tmp_path / "killed")
    assert [o.unit for o in outcomes] == [unit.id for unit in units]
    assert {o.status for o in outcomes} <= {"done", "skipped"}
    assert results(tmp_path / "killed") == results(tmp_path / "serial")


def _kill_those_at_work(folder: Path) -> None:
    """Kill each worker that has begun a unit and not finished it."""
    for trace in (folder / "traces").iterdir():
        if not (folder / "out" / f"{trace.name}.bin").exists():
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(int(trace.read_text(encoding="utf-8").split()[-1]), signal.SIGKILL)


# Dask lets a unit kill four workers before it gives up on it, and starting each takes seconds.
@pytest.mark.parametrize(
    "engine", ["process", pytest.param("dask", marks=pytest.mark.long), "ray"], indirect=True
)
def test_a_unit_that_always_kills_its_worker_fails_alone(engine: Engine, tmp_path: Path) -> None:
    units = jobs_of(tmp_path, 7, {3: "always"})
    outcomes = list(engine.map(write_result, units))
    assert [o.unit for o in outcomes] == [unit.id for unit in units]
    assert [o.unit for o in outcomes if o.status == "failed"] == ["03"]
    assert outcomes[3].error == "WorkerDied"
    assert "out of memory" in outcomes[3].message
    assert list(results(tmp_path)) == [f"{i:02}.bin" for i in range(7) if i != 3]
