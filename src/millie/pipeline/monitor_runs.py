"""Several prediction runs beside each other: whether the calls develop as before.

Owns the order of the steps and the checks of what was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from millie.errors import ConfigError
from millie.outputs.patient.states import FAILED
from millie.outputs.result_folder import check_kind, one_at_a_time
from millie.pipeline.inputs import PathLike, paths_of
from millie.pipeline.results import MonitorResult

if TYPE_CHECKING:
    from millie.outputs.monitor.runs import Series

_FIXED = ("INDETERMINATE", "URGENT_INDETERMINATE", "NO_SIGNAL", FAILED)
"""States that do not name a class."""

LEVEL = 0.05
"""Probability of a false alarm of each kind, as is usual for a test."""


def monitor(
    runs: PathLike | Sequence[PathLike],
    out: PathLike,
    baseline: int | None = None,
    expected: Mapping[str, float] | None = None,
    level: float = LEVEL,
    trained_on: PathLike | None = None,
) -> MonitorResult:
    """Compare prediction runs over time: rates of states and reasons, scores, images.

    Runs of one model are put in the order of their time; each patient counts once. Runs of another
    model, or with other settings, are a part of their own. No diagnoses are needed, and none are
    judged.

    Args:
        runs: folders that ``predict`` wrote.
        out: folder for the page and the tables: new, empty, or that of an earlier report.
        baseline: the first so many runs of each model are what later ones are compared with; 0:
            none; None: 1, or 0 where ``expected`` is given.
        expected: rate of a state, 0 to 1, by its name: every run after the baseline is compared
            with it.
        level: probability of a false alarm, between 0 and 1, for each model: of any test of rates,
            of any number of any run against the baseline, and of any number followed over time.
        trained_on: bag store of the patients that the models were trained on, to note them.

    Raises:
        ConfigError: a state that the model does not have, a rate or level out of range, a negative
            baseline, or an ``out`` that holds something else.
        MissingFileError, DataError: not one of the folders can be used.
        BusyError: another process is writing to ``out``.

    Example:
        >>> found = millie.monitor("calls", "monitor")  # with one run there is no comparison yet
        >>> found.alarms
        ()
        >>> found.rows()[0]["kind"], found.rows()[0]["patients"]
        ('state', 12)
    """
    from millie.outputs.monitor.rates import compare
    from millie.outputs.monitor.report import Monitored, rate_rows, write_monitor
    from millie.outputs.monitor.runs import read_series
    from millie.outputs.monitor.streams import streams_of

    folder, rates = Path(out), dict(expected or {})
    first = (0 if rates else 1) if baseline is None else baseline
    _check_numbers(first, rates, level)
    check_kind(folder, "monitor")
    series, problems = read_series(paths_of(runs), Path(trained_on) if trained_on else None)
    _check_states(rates, series)
    found = [
        Monitored(
            one,
            tuple(compare(one, first, rates, level)),
            tuple(streams_of(one, first, level)),
            level,
        )
        for one in series
    ]
    settings = {
        "baseline": first, "expected": rates, "level": level,
        "trained_on": str(trained_on) if trained_on else None,
    }  # fmt: skip
    with one_at_a_time(folder):
        report = write_monitor(folder, found, settings, problems)
    alarms = tuple(line for one in found for line in one.alarms)
    lines = tuple(one.line for one in found)
    return MonitorResult(folder, report, lines, alarms, tuple(rate_rows(found)), tuple(problems))


def _check_numbers(baseline: int, expected: Mapping[str, float], level: float) -> None:
    if baseline < 0:
        raise ConfigError(f"baseline of {baseline} runs: expected 0 or more")
    if not 0 < level < 1:
        raise ConfigError(f"level {level}: expected a probability between 0 and 1, such as 0.05")
    for state, share in expected.items():
        if not 0 <= share <= 1:
            raise ConfigError(f"expected rate of {state}: got {share}, expected 0 to 1")


def _check_states(expected: Mapping[str, float], series: Sequence[Series]) -> None:
    from millie.inference.calls import state_of

    labels = {label for one in series for label in one.model.labels}
    known = {*_FIXED, *(state_of(label, ()) for label in labels)}
    if unknown := [state for state in expected if state not in known]:
        raise ConfigError(f"no state '{unknown[0]}': the states are {', '.join(sorted(known))}")
