"""The same patients examined again: scatter of the log odds, agreement of calls, the unsure band.

Owns the design (days and replicates); modelled on CLSI EP05 and EP15, the band on the C5 to C95
interval of CLSI EP12.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure as Drawing

from millie.errors import ConfigError
from millie.outputs.figure_files import svg_uri
from millie.outputs.patient.records import PatientResult
from millie.outputs.validation.cases import Case, Figure, Question
from millie.outputs.validation.drawing import replicates_figure
from millie.outputs.validation.inputs import ReplicateRow
from millie.outputs.validation.plan import Plan
from millie.outputs.validation.section import Picture, Section, Table
from millie.outputs.validation.verdict import Criterion, judge
from millie.statistics.rates import rate
from millie.statistics.variance_components import Components, variance_components

KEY = "repeatability"
_UNIT = "log odds"
_Z95 = 1.6448536269514722
"""Of the normal distribution: 5 and 95 % lie so many standard deviations from the middle."""


@dataclass(frozen=True, slots=True)
class Replicate:
    """One examination of a patient, as the table names it, with its call."""

    row: ReplicateRow
    result: PatientResult


def repeatability(
    replicates: Sequence[Replicate],
    cases: Sequence[Case],
    question: Question,
    plan: Plan,
    why_not: str,
    notes: Sequence[str] = (),
) -> Section:
    """The section.

    Args:
        replicates: every examination that the table names and a run holds.
        cases: patients of the main runs, for the share of them in the band.
        question: whose log odds.
        plan: criteria.
        why_not: why there are no replicates, where there are none.
        notes: on examinations that are none.
    """
    title = "Repeatability over days and replicates"
    lead = (
        f"Patients examined again, on several days, with new photographs each time. The scatter of "
        f"the log odds of {question.subject} is split into that of replicates on one day and that "
        "between days (nested analysis of variance, each patient around its own mean). Modelled on "
        "CLSI EP05 and EP15; the band on the C5 to C95 interval of EP12."
    )
    if not replicates:
        return Section(KEY, title, lead, criteria=_criteria({}, plan, why_not), why_not=why_not,
                       notes=tuple(notes))  # fmt: skip
    by_patient: dict[str, list[Replicate]] = defaultdict(list)
    for one in replicates:
        by_patient[one.row.patient].append(one)
    found = {f.name: f for f in _scatter(by_patient, cases, question, plan)}
    # examined once, a patient agrees with itself, which shows nothing
    again = [{one.result.state for one in own} for own in by_patient.values() if len(own) > 1]
    same = rate(sum(len(states) == 1 for states in again), len(again), plan.study.confidence)
    found[_SAME] = Figure.of_rate(KEY, _SAME, same, plan.study.confidence)
    days = [len({one.row.day for one in own}) for own in by_patient.values()]
    found[_PATIENTS] = Figure(KEY, _PATIENTS, len(by_patient), None, None, 0)
    found[_DAYS] = Figure(KEY, _DAYS, min(days), None, None, 0)
    why = "" if _REPEAT in found else "no day with two replicates, or no patient with two days"
    return Section(
        KEY, title, lead, tuple(found.values()), _criteria(found, plan, why),
        (_table(by_patient, question),), (_picture(by_patient, question),),
        (*notes, *([f"Scatter not computed: {why}."] if why else [])),
    )  # fmt: skip


_REPEAT = "standard deviation on one day (repeatability)"
_BETWEEN = "standard deviation between days"
_WITHIN = "standard deviation within the laboratory"
_SAME = "patients with the same state in all replicates"
_BAND = "patients in the band where 5 to 95 % of repeated results would be above the threshold"
_HALF = "half width of that band"
_PATIENTS, _DAYS = "patients", "days of the patient with the fewest"


def _scatter(
    by_patient: Mapping[str, Sequence[Replicate]],
    cases: Sequence[Case],
    question: Question,
    plan: Plan,
) -> list[Figure]:
    samples = []
    for own in by_patient.values():
        days: dict[str, list[float]] = defaultdict(list)
        for one in own:
            if not one.result.failed:
                days[one.row.day].append(question.log_odds(one.result))
        samples.append(list(days.values()))
    try:
        parts = variance_components(samples, plan.study.confidence)
    except ConfigError:  # the design does not allow it; said by the caller
        return []
    found = [
        Figure.of(KEY, _REPEAT, parts.repeatability, parts.n, _UNIT),
        Figure(KEY, _BETWEEN, parts.between_days, None, None, parts.n, _UNIT),
        Figure.of(KEY, _WITHIN, parts.within_laboratory, parts.n, _UNIT),
    ]
    return [*found, *_band(parts, cases, question, plan)]


def _band(parts: Components, cases: Sequence[Case], question: Question, plan: Plan) -> list[Figure]:
    """How many patients of the main runs lie where a repeated result could be on the other side."""
    half, threshold = _Z95 * parts.within_laboratory.value, question.log_threshold
    if threshold is None:
        return []
    odds = [question.log_odds(case.result) for case in cases if not case.result.failed]
    inside = rate(sum(abs(x - threshold) <= half for x in odds), len(odds), plan.study.confidence)
    return [
        Figure.of_rate(KEY, _BAND, inside, plan.study.confidence),
        Figure(KEY, _HALF, half, None, None, 0, _UNIT),
    ]


def _criteria(found: Mapping[str, Figure], plan: Plan, why: str) -> tuple[Criterion, ...]:
    asked = plan.repeatability
    wanted = [
        ("min_patients", _PATIENTS, asked.min_patients),
        ("min_days", _DAYS, asked.min_days),
        ("max_sd_repeatability_log_odds", _REPEAT, asked.max_sd_repeatability_log_odds),
        ("max_sd_within_laboratory_log_odds", _WITHIN, asked.max_sd_within_laboratory_log_odds),
        ("min_same_call", _SAME, asked.min_same_call),
        ("max_share_in_band", _BAND, asked.max_share_in_band),
    ]
    return tuple(
        line
        for key, name, limit in wanted
        for line in judge(key, name, found.get(name), limit, plan.study.judged_by, section=KEY,
                          missing=why or "the model’s threshold is not known")
    )  # fmt: skip


def _table(by_patient: Mapping[str, Sequence[Replicate]], question: Question) -> Table:
    rows = []
    for patient, own in by_patient.items():
        odds = np.array([question.log_odds(one.result) for one in own if not one.result.failed])
        states = Counter(one.result.state for one in own).most_common()
        rows.append([
            patient, f"{len({one.row.day for one in own})}", f"{len(own)}",
            f"{odds.mean():.2f}" if len(odds) else "–",
            f"{odds.std(ddof=1):.2f}" if len(odds) > 1 else "–",
            ", ".join(f"{n} × {state}" for state, n in states),
        ])  # fmt: skip
    columns = ["Patient", "Days", "Examinations", "Mean log odds", "SD", "States"]
    return Table("", columns, rows, folded=len(rows) > 30)


def _picture(by_patient: Mapping[str, Sequence[Replicate]], question: Question) -> Picture:
    values = {
        patient: [(one.row.day, question.log_odds(one.result)) for one in own
                  if not one.result.failed]
        for patient, own in by_patient.items()
    }  # fmt: skip
    figure: Drawing = replicates_figure(
        values, question.log_threshold, f"log odds of {question.subject}"
    )
    return Picture(svg_uri(figure), "Log odds of each examination by patient; see the table.", 620)
