from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millie.engines.memory import is_shortage
from millie.engines.seam import (
    Engine,
    ProcessEngine,
    SerialEngine,
    Unit,
    available_cores,
    quota_cores,
    shard,
)
from millie.errors import ConfigError, ImageError, ResourcesError


@pytest.fixture(autouse=True)
def _importable_by_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    # spawned workers inherit the path and import this module by its name under the root
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1]), *sys.path])


def square(payload: int) -> dict[str, Any]:
    time.sleep(0.01 * (payload % 3))  # later units may well be ready first
    return {"square": payload**2, "skipped": payload % 4 == 1}


def fail_on_odd(payload: int) -> dict[str, Any]:
    if payload % 2:
        raise ImageError(f"image {payload} is cut short")
    return {}


def die_on_three(payload: int) -> dict[str, Any]:
    if payload == 3:
        os._exit(9)
    return {"value": payload, "process": os.getpid()}


def die_while_young(payload: Path) -> dict[str, Any]:
    tries = len(list(payload.parent.iterdir()))
    (payload.parent / f"try {tries}").touch()
    if tries < 2:
        os._exit(9)
    return {"tries": tries + 1}


def threads(payload: int) -> dict[str, Any]:
    import cv2  # noqa: PLC0415 - in the worker

    time.sleep(0.05 * payload)
    return {"opencv": cv2.getNumThreads(), "openmp": os.environ["OMP_NUM_THREADS"]}


def units_of(count: int) -> list[Unit]:
    return [Unit(f"unit {i}", i) for i in range(count)]


@pytest.fixture(params=["serial", "one process", "two processes"])
def engine(request: pytest.FixtureRequest) -> Engine:
    engines: dict[str, Engine] = {
        "serial": SerialEngine(),
        "one process": ProcessEngine(1),
        "two processes": ProcessEngine(2),
    }
    return engines[request.param]


def test_outcomes_come_in_the_order_of_the_units(engine: Engine) -> None:
    outcomes = list(engine.map(square, units_of(12)))
    assert [o.unit for o in outcomes] == [f"unit {i}" for i in range(12)]
    assert [o.summary["square"] for o in outcomes] == [i**2 for i in range(12)]
    expected = ["skipped" if i % 4 == 1 else "done" for i in range(12)]
    assert [o.status for o in outcomes] == expected


def test_a_failure_is_an_outcome_and_stops_nobody(engine: Engine) -> None:
    outcomes = list(engine.map(fail_on_odd, units_of(5)))
    assert [o.status for o in outcomes] == ["done", "failed", "done", "failed", "done"]
    assert (outcomes[1].error, outcomes[1].message) == ("ImageError", "image 1 is cut short")


def test_no_units_no_outcomes(engine: Engine) -> None:
    assert list(engine.map(square, [])) == []


def test_outcomes_are_yielded_one_by_one(engine: Engine) -> None:
    outcomes = engine.map(square, units_of(3))
    assert isinstance(outcomes, Iterator)
    assert next(outcomes).unit == "unit 0"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_fails_its_unit_only(workers: int) -> None:
    outcomes = list(ProcessEngine(workers).map(die_on_three, units_of(7)))
    assert [o.unit for o in outcomes] == [f"unit {i}" for i in range(7)]
    assert [o.status for o in outcomes] == ["done"] * 3 + ["failed"] + ["done"] * 3
    assert outcomes[3].error == "WorkerDied"
    assert "out of memory" in outcomes[3].message
    assert all(o.summary["process"] != os.getpid() for o in outcomes if o.status == "done")


def test_a_worker_that_dies_of_something_else_costs_no_unit(tmp_path: Path) -> None:
    # in the pool, then alone, as when the machine is out of memory for a while
    (outcome,) = ProcessEngine(1).map(die_while_young, [Unit("u", tmp_path / "here")])
    assert (outcome.status, outcome.summary) == ("done", {"tries": 3})


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
    ],
)
def test_a_containers_quota_counts(
    files: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert quota_cores(tmp_path) == expected


@pytest.mark.parametrize(("workers", "each"), [(1, 2), (2, 1), (3, 1)])
def test_workers_share_the_cores(workers: int, each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("millie.engines.seam.available_cores", lambda: 2)
    for outcome in ProcessEngine(workers).map(threads, units_of(3)):
        assert outcome.summary["openmp"] == str(each)
        assert outcome.summary["opencv"] <= each


def children() -> set[int | None]:
    return {child.pid for child in multiprocessing.active_children()}


def process_of(payload: int) -> dict[str, Any]:
    time.sleep(0.2)  # so that no worker is free for a second unit
    return {"process": os.getpid(), "cv2": "cv2" in sys.modules, "payload": payload}


def test_a_worker_that_was_made_ready_does_the_work() -> None:
    before = children()
    with closing(ProcessEngine(2, ready="cv2")) as engine:
        (early,) = children() - before
        (first,) = engine.map(process_of, units_of(1))
        assert first.summary == {"process": early, "cv2": True, "payload": 0}
        later = list(engine.map(process_of, units_of(3)))
        assert [outcome.summary["payload"] for outcome in later] == [0, 1, 2]
        assert early not in {outcome.summary["process"] for outcome in later}
    assert children() == before


def test_a_worker_that_was_made_ready_for_nothing_ends() -> None:
    before = children()
    with closing(ProcessEngine(2, ready="cv2")):
        assert len(children() - before) == 1
    assert children() == before


def test_what_cannot_be_made_ready_does_no_harm() -> None:
    with closing(ProcessEngine(2, ready="no_such_module")) as engine:
        assert [o.status for o in engine.map(process_of, units_of(3))] == ["done"] * 3


def test_a_worker_that_cannot_be_started_early_is_told_with_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("concurrent.futures.process._ExecutorManagerThread.start", refuse)
    with closing(ProcessEngine(2, ready="cv2")) as engine:
        start = time.monotonic()
        with pytest.raises((ResourcesError, RuntimeError)) as raised:
            list(engine.map(process_of, units_of(1)))
    assert is_shortage(raised.value)  # of which the command line says what to do
    assert time.monotonic() - start < 4  # the wait for a first worker is 5 s


def test_windows_waits_for_no_more_than_61_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr(
        "millie.engines.seam.ProcessPoolExecutor", lambda workers, **_: asked.append(workers)
    )
    ProcessEngine._executor(64)
    assert asked == [61]


def test_a_process_engine_needs_a_worker() -> None:
    with pytest.raises(ConfigError, match="workers=0: expected at least 1"):
        ProcessEngine(0)
    assert ProcessEngine().workers == available_cores() >= 1


@given(st.integers(0, 60), st.integers(1, 20))
def test_shards_cover_all_without_overlap(n_units: int, count: int) -> None:
    units = units_of(n_units)
    parts = [shard(units, index, count) for index in range(count)]
    merged = [unit for part in parts for unit in part]
    assert len(merged) == n_units
    assert {u.id for u in merged} == {u.id for u in units}
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all(a.payload < b.payload for part in parts for a, b in pairwise(part))


@pytest.mark.parametrize(("index", "count"), [(2, 2), (-1, 2), (0, 0)])
def test_a_shard_outside_the_count_is_refused(index: int, count: int) -> None:
    with pytest.raises(ConfigError, match="expected 0 <= index < count"):
        shard(units_of(3), index, count)
