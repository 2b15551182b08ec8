"""A control slide over time: Levey-Jennings chart of its log odds, with Westgard's rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from millie.outputs.figure_files import svg_uri
from millie.outputs.patient.records import PatientResult
from millie.outputs.validation.cases import Figure, Question
from millie.outputs.validation.drawing import control_figure
from millie.outputs.validation.inputs import ControlRow
from millie.outputs.validation.plan import Plan
from millie.outputs.validation.section import Picture, Section, Table
from millie.outputs.validation.verdict import judge
from millie.statistics.control_chart import RULES, westgard

KEY = "control"
_REJECTED = "points after the baseline that break a rule"


def control(
    series: Sequence[tuple[ControlRow, PatientResult]],
    question: Question,
    plan: Plan,
    why_not: str,
) -> Section:
    """The section.

    Args:
        series: examinations of the control slide with a result, by time.
        question: whose log odds are charted.
        plan: the chart's mean and standard deviation, or the number of points that give them.
        why_not: why there is no series, where there is none.
    """
    asked, title = plan.control, "Control slide over time"
    lead = (
        f"Log odds of {question.subject} of one slide that is photographed and predicted again and "
        "again (Levey-Jennings chart), with Westgard’s rules for the points after the baseline. "
        "Modelled on CLSI C24."
    )
    stated = asked.mean_log_odds is not None and asked.sd_log_odds is not None
    first = 0 if stated else asked.baseline_points
    odds = [question.log_odds(result) for _, result in series]
    mean, sd, why = _limits(odds, first, plan, why_not)
    if why:
        lines = judge("max_rejections", _REJECTED, None, asked.max_rejections,
                      plan.study.judged_by, section=KEY, missing=why)  # fmt: skip
        return Section(KEY, title, lead, criteria=tuple(lines), why_not=why)
    broken = westgard([(x - mean) / sd for x in odds[first:]])
    rejected = sorted({first + one.index for one in broken if one.rejects})
    rules = {i: [b.rule for b in broken if b.index + first == i] for i in range(len(odds))}
    rows = [
        [row.time, f"{x:.2f}", f"{(x - mean) / sd:+.2f}",
         "baseline" if i < first else ", ".join(rules[i]) or "–"]
        for i, ((row, _), x) in enumerate(zip(series, odds, strict=True))
    ]  # fmt: skip
    figures = (
        Figure(KEY, _REJECTED, len(rejected), None, None, len(odds) - first),
        Figure(KEY, "mean of the chart", mean, None, None, first, "log odds"),
        Figure(KEY, "standard deviation of the chart", sd, None, None, first, "log odds"),
    )
    picture = Picture(
        svg_uri(control_figure(odds, mean, sd, rejected, "log odds")),
        f"Control chart of {len(odds)} examinations; {len(rejected)} break a rule.", 700,
    )  # fmt: skip
    told = tuple(f"{rule}: {words}." for rule, words in RULES.items())
    return Section(
        KEY, title, lead, figures,
        tuple(judge("max_rejections", _REJECTED, figures[0], asked.max_rejections,
                    plan.study.judged_by, section=KEY)),
        (Table("", ["Time", "Log odds", "z", "Rules broken"], rows, folded=len(rows) > 30),),
        (picture,), told,
    )  # fmt: skip


def _limits(
    odds: Sequence[float], first: int, plan: Plan, why_not: str
) -> tuple[float, float, str]:
    """Mean and standard deviation of the chart, and why there are none."""
    asked = plan.control
    if not why_not and len(odds) <= first:
        why_not = (
            f"{len(odds)} examinations with a result: the first {first} are the baseline, at "
            "least one more is needed"
        )
    if why_not:
        return 0.0, 0.0, why_not
    if asked.mean_log_odds is not None and asked.sd_log_odds is not None:
        return asked.mean_log_odds, asked.sd_log_odds, ""
    mean, sd = float(np.mean(odds[:first])), float(np.std(odds[:first], ddof=1))
    return mean, sd, "" if sd else "the baseline has no scatter: were the same photographs used?"
