"""The window on a cluster that is a dictionary: what is submitted when, and who is to blame."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import millie
from millie.engines.seam import Outcome, Unit, Work, run_unit
from millie.engines.window import WINDOW_PER_SLOT, WorkerLostError, failed, map_on, run_here
from millie.errors import ImageError


class FakeCluster:
    """Runs a unit when its result is asked for; ``deaths`` are the tries that a worker dies in."""

    def __init__(self, slots: int = 2, resubmissions: int = 0) -> None:
        self.resubmissions = resubmissions
        self.deaths: dict[str, int] = {}
        self.tries: Counter[str] = Counter()
        self.open: list[str] = []
        self.most_open = 0
        self.cancelled: list[str] = []
        self.alone: list[str] = []
        self._slots = slots
        self._work: Work | None = None

    def slots(self) -> int:
        return self._slots

    def submit(self, work: Work, unit: Unit) -> str:
        self._work = work
        self.tries[unit.id] += 1
        if self.tries[unit.id] > 1 and not self.open:
            self.alone.append(unit.id)
        self.open.append(unit.id)
        self.most_open = max(self.most_open, len(self.open))
        return unit.id

    def result(self, unit: Unit, job: str) -> Outcome:
        assert self._work is not None
        self.open.remove(job)
        if self.deaths.get(job, 0) >= self.tries[job]:
            raise WorkerLostError("killed by signal 9")
        return run_unit(self._work, unit)

    def cancel(self, job: str) -> None:
        self.cancelled.append(job)


def double(number: int) -> dict[str, Any]:
    return {"double": 2 * number}


def units_of(count: int) -> list[Unit]:
    return [Unit(str(i), i) for i in range(count)]


@given(st.integers(0, 300), st.integers(0, 5))
def test_the_window_is_bounded_and_loses_nothing(count: int, slots: int) -> None:
    cluster = FakeCluster(slots)
    outcomes = list(map_on(cluster, double, units_of(count)))
    assert [o.summary["double"] for o in outcomes] == [2 * i for i in range(count)]
    assert cluster.most_open <= max(1, WINDOW_PER_SLOT * slots)
    assert all(tries == 1 for tries in cluster.tries.values())


def test_the_window_follows_a_cluster_that_grows_and_shrinks() -> None:
    cluster = FakeCluster(1)
    outcomes = map_on(cluster, double, units_of(100))
    seen = []
    for slots in (1, 5, 0, 2):
        cluster._slots = slots
        next(outcomes)
        seen.append(len(cluster.open) + 1)
    # The window shrinks as its units end; none is taken back.
    assert seen == [4, 20, 19, 18]
    assert len(list(outcomes)) == 96


@pytest.mark.parametrize("resubmissions", [0, 1, 3])
def test_a_lost_unit_is_tried_in_the_crowd_and_then_alone(resubmissions: int) -> None:
    cluster = FakeCluster(2, resubmissions)
    cluster.deaths = {"2": resubmissions + 1}
    outcomes = list(map_on(cluster, double, units_of(12)))
    assert [o.unit for o in outcomes] == [str(i) for i in range(12)]
    assert all(o.status == "done" for o in outcomes)
    assert cluster.tries["2"] == resubmissions + 2
    assert cluster.alone == ["2"]


def test_a_unit_lost_in_the_crowd_once_needs_no_trial_alone() -> None:
    cluster = FakeCluster(2, 1)
    cluster.deaths = {"2": 1}
    outcomes = list(map_on(cluster, double, units_of(12)))
    assert all(o.status == "done" for o in outcomes)
    assert cluster.alone == []


def test_a_unit_that_dies_alone_has_failed_and_the_others_have_not() -> None:
    cluster = FakeCluster(2, 1)
    cluster.deaths = {"0": 99, "5": 99, "6": 1}
    outcomes = list(map_on(cluster, double, units_of(20)))
    assert [o.unit for o in outcomes if o.status == "failed"] == ["0", "5"]
    assert {o.error for o in outcomes if o.status == "failed"} == {"WorkerDied"}
    assert "killed by signal 9" in outcomes[0].message
    assert (cluster.tries["0"], cluster.tries["6"]) == (3, 2)


def test_leaving_early_cancels_what_was_submitted() -> None:
    cluster = FakeCluster(1)
    outcomes = map_on(cluster, double, units_of(50))
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert cluster.cancelled == ["1", "2", "3"]


def test_a_worker_of_another_version_does_nothing() -> None:
    assert run_here(millie.__version__, double, Unit("a", 4)).summary == {"double": 8}
    refused = run_here("0.0.1", double, Unit("a", 4))
    assert (refused.status, refused.error, refused.summary) == ("failed", "ConfigError", {})
    assert "expected 0.0.1" in refused.message


def test_what_the_cluster_could_not_run_is_a_failed_outcome() -> None:
    outcome = failed(Unit("a", 4), ImageError("cut short"))
    assert outcome == Outcome("a", "failed", error="ImageError", message="cut short")
