"""Numbers of patients in the order of time: the score, the cells, the colours of the images.

Owns which numbers are followed. The tests are those of :mod:`millie.statistics.drift`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millie.bags.store import BagReader
from millie.errors import DataError, MissingError
from millie.outputs.monitor.runs import CountedRun, Series, bag_of
from millie.outputs.patient.quality import measure_title
from millie.outputs.patient.records import PatientResult
from millie.statistics.drift import against_values, holm, martingale

Floats = NDArray[np.float64]

SCORE = "score"
WHOLE = frozenset({"usable_cells", "brightness", "red_blue"})
"""Numbers of which nobody needs decimals."""
_TITLES: Mapping[str, str] = {
    "brightness": "mean brightness of the cells (0 to 255)",
    "red_blue": "red minus blue of the cells (−255 to 255)",
}


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """One number a patient.

    Attributes:
        name: ``score``, a number of the bag or a measured quality of the sample.
        title: the same for people.
        values: by run and patient.
        evidence: (n,) the test martingale after each patient, all runs in a row.
        limit: an alarm from here on.
        alarm: index of the run and name of the patient where it was first reached, or None.
        shifts: by index of the run the p-value against the baseline, corrected for all numbers of
            all runs (Holm); runs that are not tested are left out.
    """

    name: str
    title: str
    values: tuple[dict[str, float], ...]
    evidence: Floats
    limit: float
    alarm: tuple[int, str] | None
    shifts: Mapping[int, float]

    @property
    def by_run(self) -> list[Floats]:
        """The values of each run."""
        return [np.asarray(list(run.values()), dtype=np.float64) for run in self.values]


def streams_of(series: Series, baseline: int, level: float) -> list[Stream]:
    """All numbers that the runs of a series have, each tested.

    Args:
        series: runs of one model.
        baseline: how many of the first runs later ones are compared with; 0: none.
        level: probability of any false alarm among all numbers, however often one looks.
    """
    urgent = series.model.urgent
    numbers = [_numbers_of(run, urgent) for run in series.runs]
    names = dict.fromkeys(name for run in numbers for own in run.values() for name in own)
    found = {
        name: tuple({p: own[name] for p, own in run.items() if name in own} for run in numbers)
        for name in names
    }
    titles = {SCORE: f"probability of {urgent}" if urgent else "highest probability", **_TITLES}
    limit, shifts = len(found) / level, _shifts(found, baseline)
    return [
        _stream(name, titles.get(name) or measure_title(name), values, limit, shifts[name])
        for name, values in found.items()
    ]


def _shifts(
    found: Mapping[str, tuple[dict[str, float], ...]], baseline: int
) -> dict[str, dict[int, float]]:
    """Corrected p-values by number and run."""
    tests: dict[tuple[str, int], float] = {}
    for name, runs in found.items():
        earlier = [value for run in runs[:baseline] for value in run.values()]
        for i, run in enumerate(runs[baseline:], start=baseline):
            if earlier and run:
                own = np.asarray(list(run.values()))
                tests[name, i] = against_values(own, np.asarray(earlier))
    shifts: dict[str, dict[int, float]] = {name: {} for name in found}
    for (name, i), p in zip(tests, holm(list(tests.values())), strict=True):
        shifts[name][i] = p
    return shifts


def _stream(
    name: str,
    title: str,
    values: tuple[dict[str, float], ...],
    limit: float,
    shifts: Mapping[int, float],
) -> Stream:
    places = [(i, patient) for i, run in enumerate(values) for patient in run]
    row = np.asarray([values[i][patient] for i, patient in places], dtype=np.float64)
    evidence = martingale(row)
    beyond = np.flatnonzero(evidence >= limit)
    alarm = places[int(beyond[0])] if len(beyond) else None
    return Stream(name, title, values, evidence, limit, alarm, shifts)


def _numbers_of(run: CountedRun, urgent: str | None) -> dict[str, dict[str, float]]:
    """The numbers of each patient with a result, by name."""
    found: dict[str, dict[str, float]] = {}
    for result in run.counted:
        if not result.failed:
            top = max(result.probabilities.values())
            score = result.probabilities.get(urgent, top) if urgent else top
            own = {SCORE: score, **_of_bag(run, result)}
            own |= {m.name: m.value for m in result.quality if m.value is not None}
            found[result.patient] = own
    return found


def _of_bag(run: CountedRun, result: PatientResult) -> dict[str, float]:
    """What the bag tells of the images, where it is still there and whole."""
    path = bag_of(run.run, result.patient)
    if path is None:
        return {}
    try:
        with BagReader(path, verify=False) as bag:
            if not bag.n_cells:
                return {}
            colours = bag.rings().reshape(-1, 3).astype(np.float64).mean(axis=0)
    except (DataError, MissingError):
        return {}
    return {
        "brightness": float(colours.mean()),
        "red_blue": float(colours[0] - colours[2]),
    }
