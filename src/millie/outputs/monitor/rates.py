"""How often each state and each reason occurs in each run, and where that differs.

Owns what is counted and what it is compared with. The tests are those of
:mod:`millie.statistics.drift`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from millie.outputs.monitor.runs import CountedRun, Series
from millie.outputs.patient.records import PatientResult
from millie.outputs.patient.states import words_for
from millie.statistics.drift import against_counts, against_rate, holm
from millie.statistics.rates import Rate, rate

Kind = Literal["state", "reason"]


@dataclass(frozen=True, slots=True)
class Compared:
    """How often something occurs in a run.

    Attributes:
        run: index of the run in its series.
        kind: whether ``name`` is a state or the code of a reason.
        name: of what is counted.
        rate: share of the patients that count in this run, with its exact interval.
        expected: the rate it is tested against; None: it is not tested.
        earlier: the counts that ``expected`` is from; None: it was given as a rate.
        p: of the two-sided test by itself; ``adjusted`` for all tests of the series (Holm).
        alarm: whether the adjusted p-value is below the level.
    """

    run: int
    kind: Kind
    name: str
    rate: Rate
    expected: float | None = None
    earlier: Rate | None = None
    p: float | None = None
    adjusted: float | None = None
    alarm: bool = False


def compare(
    series: Series, baseline: int, expected: Mapping[str, float], level: float
) -> list[Compared]:
    """Every state and every reason in every run.

    States that ``expected`` names are tested against that rate by the exact binomial test; all
    others, and the reasons, against the counts of the baseline's runs together by Fisher's exact
    test. Runs of the baseline are not tested.

    Args:
        series: runs of one model.
        baseline: how many of the first runs are the baseline; 0: none.
        expected: rates of states, 0 to 1.
        level: probability of any false alarm among the tests of this series.
    """
    found = [
        _tested(series, Compared(i, kind, name, _rate(run, kind, name)), baseline, expected)
        for kind, name in _names(series, expected)
        for i, run in enumerate(series.runs)
    ]
    tested = [place for place, one in enumerate(found) if one.p is not None]
    adjusted = holm([found[place].p or 0.0 for place in tested])
    for place, p in zip(tested, adjusted, strict=True):
        found[place] = replace(found[place], adjusted=p, alarm=p < level)
    return found


def codes_of(result: PatientResult) -> frozenset[str]:
    """Codes of a patient's reasons; a failed one has none, its state says it."""
    return frozenset(reason.code for reason in result.reasons)


def _names(series: Series, expected: Mapping[str, float]) -> list[tuple[Kind, str]]:
    """States by urgency, then reasons, the most frequent first."""
    results = [result for run in series.runs for result in run.counted]
    states = {result.state for result in results} | set(expected)
    codes = Counter(code for result in results for code in codes_of(result))
    by_urgency = sorted(states, key=lambda state: (words_for(state).rank, state))
    by_number = sorted(codes, key=lambda code: (-codes[code], code))
    return [*(("state", name) for name in by_urgency), *(("reason", name) for name in by_number)]


def _rate(run: CountedRun, kind: Kind, name: str) -> Rate:
    held = sum(
        result.state == name if kind == "state" else name in codes_of(result)
        for result in run.counted
    )
    return rate(held, len(run.counted))


def _tested(
    series: Series, one: Compared, baseline: int, expected: Mapping[str, float]
) -> Compared:
    if one.run < baseline or one.rate.n == 0:
        return one
    k, n = one.rate.successes, one.rate.n
    if one.kind == "state" and one.name in expected:
        share = expected[one.name]
        return replace(one, expected=share, p=against_rate(k, n, share))
    first = [_rate(run, one.kind, one.name) for run in series.runs[:baseline]]
    earlier = rate(sum(r.successes for r in first), sum(r.n for r in first))
    if earlier.n == 0:
        return one
    p = against_counts(k, n, earlier.successes, earlier.n)
    return replace(one, expected=earlier.value, earlier=earlier, p=p)
