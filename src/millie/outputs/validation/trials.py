"""Calls under worse conditions: fewer cells, fewer abnormal ones, spoiled images.

Owns how such trials are counted; they are made by the pipeline, which has the model. Draws of one
patient are not independent: intervals count patients.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from millie.outputs.figure_files import svg_uri
from millie.outputs.validation.cases import URGENT, Figure, Question
from millie.outputs.validation.drawing import shares_figure
from millie.outputs.validation.plan import CellNumberPlan, InterferencePlan, Plan
from millie.outputs.validation.section import Picture, Section, Table
from millie.outputs.validation.verdict import Criterion, judge
from millie.statistics.intervals import Estimate
from millie.statistics.rates import mean_share


@dataclass(frozen=True, slots=True)
class Trial:
    """One call under a condition.

    Attributes:
        patient: whose cells or images.
        condition: share in percent, number of cells, or name of the change.
        state: that the call ended in.
        called: class that the state names; None: no call.
        before: class that the untouched film was called; None: no call.
    """

    patient: str
    condition: str
    state: str
    called: str | None
    before: str | None = None

    def flagged(self, question: Question, *, urgent: bool) -> bool:
        """Whether the answer is yes, or, where that counts, the state urgent."""
        named = self.called is not None and question.holds(self.called)
        return named or (urgent and self.state == URGENT)


def number_of_cells(trials: Sequence[Trial], plan: Plan, why_not: str) -> Section:
    """Whether the call of a film stays with fewer of its cells."""
    key, title = "number_of_cells", "Influence of the number of cells"
    asked = plan.number_of_cells or CellNumberPlan()
    lead = (
        "Cells drawn at random, without repetition, from films that hold as many, called by the "
        "whole rule, beside the state of the whole film. Films with a call only. Modelled on the "
        "sample sizes that CLSI H20 discusses for differential counts."
    )
    at = str(asked.at_cells or "")
    with_them = f" with {at} cells" if at else ""
    unnamed = "the plan does not say which number of cells is judged (at_cells)"
    wanted = [
        ("min_same_call", f"same call{with_them}", _same, asked.min_same_call),
        ("max_other_call", f"another call{with_them}", _other, asked.max_other_call),
    ]
    lines: list[Criterion] = []
    figures: list[Figure] = []
    for name, what, kind, limit in wanted:
        own = [one for one in trials if one.condition == at]
        figure = (
            Figure.of(key, what, share_of(own, kind, plan), patients_of(own), "share")
            if own
            else None
        )
        figures += [figure] if figure else []
        missing = why_not or (f"no film with a call holds {at} cells" if at else unnamed)
        lines += judge(
            name, what, figure, limit, plan.study.judged_by, section=key, missing=missing
        )
    if not trials:
        return Section(key, title, lead, criteria=tuple(lines), why_not=why_not)
    table, picture = _by_condition(trials, "Cells", plan, float, "cells drawn")
    return Section(key, title, lead, tuple(figures), tuple(lines), (table,), (picture,))


def interference(
    trials: Sequence[Trial], words: Mapping[str, str], plan: Plan, why_not: str
) -> Section:
    """Whether the call of a patient stays when the images are made worse.

    Args:
        trials: their condition the name of the change.
        words: what each change does.
        plan: criteria, for each change.
        why_not: why there are none.
    """
    key, title = "interference", "Interference: spoiled images"
    asked = plan.interference or InterferencePlan()
    lead = (
        "Images changed and predicted again from the start: reading, finding of cells, gates, "
        "call. A call that is withheld is safe; one that turns into another class is not. Patients "
        "with a call only. Modelled on CLSI EP07 (interference testing)."
    )
    lines: list[Criterion] = []
    figures: list[Figure] = []
    for name, kind, limit, what in (
        ("min_same_call", _same, asked.min_same_call, "same call"),
        ("max_other_call", _other, asked.max_other_call, "another call"),
    ):
        for change in dict.fromkeys([*asked.changes, *(one.condition for one in trials)]):
            own = [one for one in trials if one.condition == change]
            title_of = f"{change}: {what}"
            figure = (
                Figure.of(key, title_of, share_of(own, kind, plan), patients_of(own), "share")
                if own
                else None
            )
            figures += [figure] if figure else []
            lines += judge(name, title_of, figure, limit, plan.study.judged_by, section=key,
                           missing=why_not or "no patient with a call was predicted")  # fmt: skip
    if not trials:
        return Section(key, title, lead, criteria=tuple(lines), why_not=why_not)
    table, _ = _by_condition(trials, "Change", plan, None, "")
    named = {one.condition for one in trials}
    notes = tuple(f"{name}: {text}." for name, text in words.items() if name in named)
    return Section(
        key, title, lead, tuple(figures), tuple(lines), (table,), notes=notes,
        listed=frozenset(),  # the table says it all
    )  # fmt: skip


def _by_condition(
    trials: Sequence[Trial],
    heading: str,
    plan: Plan,
    number: Callable[[str], float] | None,
    xlabel: str,
) -> tuple[Table, Picture]:
    """Same, withheld and other calls by condition, as a table and, of numbers, as a picture."""
    names = list(dict.fromkeys(one.condition for one in trials))
    if number:
        names.sort(key=number)
    rows, same, other = [], [], []
    for name in names:
        own = [one for one in trials if one.condition == name]
        kept, turned = share_of(own, _same, plan), share_of(own, _other, plan)
        same.append((kept.value, kept.low, kept.high))
        other.append((turned.value, turned.low, turned.high))
        urgent = sum(one.state == URGENT for one in own)
        failed = sum(one.state == "FAILED" for one in own)
        withheld = sum(one.called is None for one in own)
        rows.append([name, str(patients_of(own)), str(len(own)), in_words(kept), str(withheld),
                     str(urgent), str(failed), in_words(turned)])  # fmt: skip
    columns = [heading, "Patients", "Calls", "Same call", "Withheld", "of these urgent",
               "of these failed", "Another call"]  # fmt: skip
    x = [number(name) for name in names] if number else list(map(float, range(len(names))))
    figure = shares_figure(x, {"same call": same, "another call": other}, xlabel,
                           "share of draws", logarithmic=len(x) > 1)  # fmt: skip
    return Table("", columns, rows), Picture(
        svg_uri(figure), "Share of draws with the same and with another call; see the table.", 480
    )


def _same(one: Trial) -> bool:
    return one.called is not None and one.called == one.before


def _other(one: Trial) -> bool:
    return one.called is not None and one.called != one.before


def share_of(trials: Sequence[Trial], holds: Callable[[Trial], bool], plan: Plan) -> Estimate:
    """Mean over patients of the share of their trials."""
    by_patient: dict[str, list[bool]] = defaultdict(list)
    for one in trials:
        by_patient[one.patient].append(holds(one))
    return mean_share([float(np.mean(own)) for own in by_patient.values()], plan.study.confidence)


def patients_of(trials: Sequence[Trial]) -> int:
    """How many patients the trials are of."""
    return len({one.patient for one in trials})


def in_words(found: Estimate) -> str:
    """A share with its interval."""
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
