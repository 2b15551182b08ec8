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
from millie.outputs.validation.plan import CellNumberPlan, DilutionPlan, InterferencePlan, Plan
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


def dilution(
    trials: Sequence[Trial],
    question: Question,
    plan: Plan,
    why_not: str,
    *,
    from_data: Table | None = None,
    abnormal_percent: float | None = None,
) -> Section:
    """How small a share of a patient's cells is flagged.

    Args:
        trials: mixtures, their condition the share in percent.
        question: what flagged means: its answer is yes, or the state urgent.
        plan: shares and criterion.
        why_not: why there are none.
        from_data: patients by their manual count, where that was given.
        abnormal_percent: median manual percentage of abnormal cells of these patients.
    """
    key, title = "dilution", "Smallest share of abnormal cells that is flagged"
    asked = plan.dilution or DilutionPlan()
    lead = (
        f"In silico: {asked.cells} cells, some drawn at random from a patient with "
        f"{question.subject}, the others from a patient without, called by the whole rule. No cell "
        "is chosen by what the model says of it. The share is that of the patient’s cells: that "
        "of abnormal cells is at most as large. At 0 % there is none: what is flagged there is a "
        "false alarm. A mixture of two films is no real film: stain and light of the two differ."
    )
    tables = () if from_data is None else (from_data,)
    if not trials:
        lines = judge("max_smallest_share_percent", _SMALLEST, None,
                      asked.max_smallest_share_percent, plan.study.judged_by, section=key,
                      missing=why_not)  # fmt: skip
        return Section(key, title, lead, criteria=tuple(lines), tables=tables, why_not=why_not)
    urgent_counts = asked.flagged == "called_or_urgent"
    shares = sorted({float(one.condition) for one in trials})
    rows, flagged = [], []
    for share in shares:
        own = [one for one in trials if float(one.condition) == share]
        found = _share(own, lambda one: one.flagged(question, urgent=urgent_counts), plan)
        flagged.append(found)
        called = sum(one.called is not None and question.holds(one.called) for one in own)
        urgent = sum(one.state == URGENT for one in own)
        none = sum(one.called is not None and not question.holds(one.called) for one in own)
        rows.append([
            f"{share:g} %", str(len({one.patient for one in own})), str(len(own)), str(called),
            str(urgent), str(len(own) - called - urgent - none), str(none), _words(found),
        ])  # fmt: skip
    by_share = {share: found.value for share, found in zip(shares, flagged, strict=True)}
    without = by_share.pop(0.0, 0.0)
    smallest = _smallest(by_share, asked.flagged_share)
    if without >= asked.flagged_share:
        smallest = None
    figure = Figure(key, _SMALLEST, smallest, None, None, len({one.patient for one in trials}), "%")
    figures = [figure]
    if smallest is not None and abnormal_percent is not None:
        name = "the same in abnormal cells by eye (median patient)"
        cells = smallest * abnormal_percent / 100
        figures.append(Figure(key, name, cells, None, None, 0, "%"))
    missing = f"at no share were {asked.flagged_share:g} of the mixtures flagged"
    if without >= asked.flagged_share:
        missing = "mixtures without any cell of a patient with disease are flagged as often"
    what = "called or urgent" if urgent_counts else "called"
    picture = shares_figure(
        shares, {what: [(f.value, f.low, f.high) for f in flagged]},
        "patient’s cells in the mixture, %", "share of mixtures", asked.flagged_share,
        logarithmic=True,
    )  # fmt: skip
    columns = ["Patient’s cells", "Patients", "Mixtures", "Called", "Urgent", "Indeterminate",
               "Called otherwise", f"Flagged: {what}"]  # fmt: skip
    lines = judge("max_smallest_share_percent", _SMALLEST, figure,
                  asked.max_smallest_share_percent, plan.study.judged_by, section=key)  # fmt: skip
    if smallest is None and asked.max_smallest_share_percent is not None:
        required = f"at most {asked.max_smallest_share_percent:g}"
        lines = [Criterion(key, "max_smallest_share_percent", _SMALLEST, required, missing,
                           "not met")]  # fmt: skip
    return Section(
        key, title, lead, tuple(figures), tuple(lines), (Table("", columns, rows), *tables),
        (Picture(svg_uri(picture), "Share of mixtures flagged by share of cells; see the table.",
                 480),),
    )  # fmt: skip


_SMALLEST = "smallest share of a patient’s cells that is flagged"


def _smallest(by_share: Mapping[float, float], wanted: float) -> float | None:
    """The smallest share from which on every larger one reaches what is wanted."""
    found = None
    for share, value in sorted(by_share.items(), reverse=True):
        if value < wanted:
            break
        found = share
    return found


def number_of_cells(trials: Sequence[Trial], plan: Plan, why_not: str) -> Section:
    """Whether the call of a film stays with fewer of its cells."""
    key, title = "number_of_cells", "Influence of the number of cells"
    asked = plan.number_of_cells or CellNumberPlan()
    lead = (
        "Cells drawn at random, without repetition, from films that hold as many, called by the "
        "whole rule, beside the state of the whole film. Films with a call only. Modelled on the "
        "sample sizes that CLSI H20 discusses for differential counts."
    )
    at = "" if asked.at_cells is None else str(asked.at_cells)
    wanted = [
        ("min_same_call", f"same call with {at} cells", _same, asked.min_same_call),
        ("max_other_call", f"another call with {at} cells", _other, asked.max_other_call),
    ]
    lines: list[Criterion] = []
    figures: list[Figure] = []
    for name, what, kind, limit in wanted:
        own = [one for one in trials if one.condition == at]
        figure = (
            Figure.of(key, what, _share(own, kind, plan), _patients(own), "share") if own else None
        )
        figures += [figure] if figure else []
        missing = why_not or f"no film with a call holds {at or 'the'} cells that at_cells names"
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
                Figure.of(key, title_of, _share(own, kind, plan), _patients(own), "share")
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
    return Section(key, title, lead, tuple(figures), tuple(lines), (table,), notes=notes)


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
        kept, turned = _share(own, _same, plan), _share(own, _other, plan)
        same.append((kept.value, kept.low, kept.high))
        other.append((turned.value, turned.low, turned.high))
        urgent = sum(one.state == URGENT for one in own)
        failed = sum(one.state == "FAILED" for one in own)
        withheld = sum(one.called is None for one in own)
        rows.append([name, str(_patients(own)), str(len(own)), _words(kept), str(withheld),
                     str(urgent), str(failed), _words(turned)])  # fmt: skip
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


def _share(trials: Sequence[Trial], holds: Callable[[Trial], bool], plan: Plan) -> Estimate:
    """Mean over patients of the share of their trials."""
    by_patient: dict[str, list[bool]] = defaultdict(list)
    for one in trials:
        by_patient[one.patient].append(holds(one))
    return mean_share([float(np.mean(own)) for own in by_patient.values()], plan.study.confidence)


def _patients(trials: Sequence[Trial]) -> int:
    return len({one.patient for one in trials})


def _words(found: Estimate) -> str:
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
