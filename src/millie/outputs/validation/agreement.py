"""Agreement with a reference diagnosis: shares with exact intervals, patients without a call twice.

Owns what counts as agreement. Modelled on CLSI EP12 for qualitative examinations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from millie.errors import ConfigError
from millie.outputs.figure_files import svg_uri
from millie.outputs.figures import intervals_figure
from millie.outputs.validation.cases import WITHOUT_CALL, Case, Figure, Question
from millie.outputs.validation.plan import OTHER, AgreementPlan, Plan
from millie.outputs.validation.section import Picture, Section, Table
from millie.outputs.validation.verdict import Criterion, figure_words, judge
from millie.statistics.kappa import cohen_kappa
from millie.statistics.rates import rate

KEY = "agreement"
WAYS = ("disagreement", "left_out")
_WORDS = {"disagreement": "without a call counted as disagreement", "left_out": "with a call only"}


def agreement(
    cases: Sequence[Case], question: Question, classes: Sequence[Question], plan: Plan
) -> Section:
    """The section, of all patients with a reference diagnosis.

    Args:
        cases: patients of the runs.
        question: the yes or no of the headline.
        classes: each class of the model against the rest.
        plan: criteria, confidence, and how patients without a call are judged.
    """
    known = [case for case in cases if case.reference is not None]
    lead = (
        "Each patient’s call beside the reference, with exact intervals (Clopper-Pearson). "
        "Patients without a call (indeterminate, urgent, failed) are counted both ways: as "
        "disagreement, and left out. Modelled on CLSI EP12."
    )
    title = "Agreement with the reference diagnosis"
    if not known:
        why = "no reference table was given"
        return Section(KEY, title, lead, criteria=_criteria([], question, {}, plan, why),
                       why_not=why)  # fmt: skip
    found = _figures(known, question, classes, plan)
    sizes = Counter(case.reference or "" for case in known)
    return Section(
        KEY, title, lead, tuple(found), _criteria(found, question, sizes, plan),
        (_both_ways(found), _confusion(known), _wrong(known)), _pictures(found, plan),
        _notes(known, plan), listed=frozenset(f.name for f in found if _way_of(f) is None),
    )  # fmt: skip


def _figures(
    known: Sequence[Case], question: Question, classes: Sequence[Question], plan: Plan
) -> list[Figure]:
    confidence, names = plan.study.confidence, _names(plan.agreement)
    found = []
    for way in WAYS:
        counted = [case for case in known if case.called is not None or way == "disagreement"]
        right = sum(case.called == case.reference for case in counted)
        overall = rate(right, len(counted), confidence)
        found.append(Figure.of_rate(KEY, f"overall agreement, {_WORDS[way]}", overall, confidence))
        found += _kappa(counted, way, confidence)
        for one in [question, *(c for c in classes if c.classes != question.classes)]:
            found += _two(counted, one, way, names, confidence)
    lost = rate(sum(case.called is None for case in known), len(known), confidence)
    found.append(Figure.of_rate(KEY, "patients without a call", lost, confidence))
    for one in [question, *(c for c in classes if c.classes != question.classes)]:
        if one.urgent:
            yes = [case for case in known if one.holds(case.reference or "")]
            flagged = rate(sum(_flagged(case, one) for case in yes), len(yes), confidence)
            name = f"{one.name}: called or urgent, of patients that have it"
            found.append(Figure.of_rate(KEY, name, flagged, confidence))
    return found


def _flagged(case: Case, question: Question) -> bool:
    return case.urgent or (case.called is not None and question.holds(case.called))


def _two(
    counted: Sequence[Case], question: Question, way: str, names: tuple[str, str], confidence: float
) -> list[Figure]:
    """Sensitivity and specificity of a yes or no."""
    yes = [case for case in counted if question.holds(case.reference or "")]
    no = [case for case in counted if not question.holds(case.reference or "")]
    hits = sum(case.called is not None and question.holds(case.called) for case in yes)
    kept = sum(case.called is not None and not question.holds(case.called) for case in no)
    return [
        Figure.of_rate(KEY, f"{question.name}: {name}, {_WORDS[way]}", rate(k, len(n), confidence),
                       confidence)
        for name, k, n in ((names[0], hits, yes), (names[1], kept, no))
    ]  # fmt: skip


def _kappa(counted: Sequence[Case], way: str, confidence: float) -> list[Figure]:
    name = f"Cohen’s kappa, {_WORDS[way]}"
    axis = sorted({case.reference or "" for case in counted} | {_column(c) for c in counted})
    table = np.zeros((len(axis), len(axis)), np.intp)
    for case in counted:
        table[axis.index(case.reference or ""), axis.index(_column(case))] += 1
    try:
        return [Figure.of(KEY, name, cohen_kappa(table, confidence), len(counted))]
    except ConfigError as error:  # one class only, or nobody with a call
        return [Figure(KEY, name, None, None, None, len(counted), method=str(error))]


def _column(case: Case) -> str:
    return case.called if case.called is not None else "no call"


def _names(plan: AgreementPlan) -> tuple[str, str]:
    if plan.reference_is == "method":
        return "positive agreement (PPA)", "negative agreement (NPA)"
    return "sensitivity", "specificity"


def _criteria(
    found: Sequence[Figure], question: Question, sizes: dict[str, int], plan: Plan, why: str = ""
) -> tuple[Criterion, ...]:
    asked, study = plan.agreement, plan.study
    way, names = _WORDS[study.indeterminate], _names(asked)
    by_name = {figure.name: figure for figure in found}

    def line(key: str, name: str, limit: float | None) -> list[Criterion]:
        missing = why or "no such patient in the reference"
        return judge(key, name, by_name.get(name), limit, study.judged_by, section=KEY,
                     missing=missing)  # fmt: skip

    two = [("min_sensitivity", names[0]), ("min_specificity", names[1])]
    lines = []
    for key, name in two:
        lines += line(key, f"{question.name}: {name}, {way}", getattr(asked, key))
    lines += line("min_overall_agreement", f"overall agreement, {way}", asked.min_overall_agreement)
    lines += line("min_kappa", f"Cohen’s kappa, {way}", asked.min_kappa)
    lines += line("max_without_call", "patients without a call", asked.max_without_call)
    for label, limits in asked.classes.items():
        for key, name in two:
            told = line(key, f"{label} against the rest: {name}, {way}", getattr(limits, key))
            lines += [replace(one, key=f"classes.{label}.{key}") for one in told]
    if asked.min_patients_per_class is not None:
        few = min(sizes.items(), key=lambda each: each[1], default=None)
        size = None if few is None else Figure(KEY, "", few[1], None, None, 0, f"({few[0]})")
        what = "patients of the smallest class of the reference"
        lines += judge("min_patients_per_class", what, size, asked.min_patients_per_class,
                       study.judged_by, section=KEY, missing=why)  # fmt: skip
    return tuple(lines)


def _way_of(figure: Figure) -> str | None:
    """How patients without a call count in a figure; None: it is about them."""
    return next((way for way, words in _WORDS.items() if figure.name.endswith(words)), None)


def _both_ways(found: Sequence[Figure]) -> Table:
    """Each figure with patients without a call counted as disagreement, and left out."""
    rows: dict[str, dict[str, str]] = {}
    for figure in found:
        if way := _way_of(figure):
            name = figure.name.removesuffix(f", {_WORDS[way]}")
            rows.setdefault(name, {})[way] = figure_words(figure) or "–"
    heads = [f"{words[:1].upper()}{words[1:]}" for words in _WORDS.values()]
    body = [[name, *(own.get(way, "–") for way in WAYS)] for name, own in rows.items()]
    return Table("", ["Figure", *heads], body)


def _confusion(known: Sequence[Case]) -> Table:
    columns = sorted({case.called for case in known if case.called is not None})
    columns += [s for s in WITHOUT_CALL if any(case.result.state == s for case in known)]
    counts = Counter((case.reference or "", case.called or case.result.state) for case in known)
    rows = [
        [label, *(f"{counts[label, column]:,}" for column in columns),
         f"{sum(counts[label, column] for column in columns):,}"]
        for label in sorted({case.reference or "" for case in known})
    ]  # fmt: skip
    heads = [column.replace("_", " ").lower() if column in WITHOUT_CALL else column
             for column in columns]  # fmt: skip
    return Table("Reference (rows) and call (columns), patients",
                 ["Reference", *heads, "all"], rows)  # fmt: skip


def _wrong(known: Sequence[Case]) -> Table:
    rows = [
        [case.patient, case.reference or "", case.called or "",
         ", ".join(f"{k} {p:.2f}" for k, p in case.result.probabilities.items()),
         f"{case.result.n_cells:,}"]
        for case in known if case.called is not None and case.called != case.reference
    ]  # fmt: skip
    return Table("Patients called otherwise than the reference",
                 ["Patient", "Reference", "Call", "Probabilities", "Cells"], rows,
                 folded=len(rows) > 12)  # fmt: skip


def _pictures(found: Sequence[Figure], plan: Plan) -> tuple[Picture, ...]:
    way = _WORDS[plan.study.indeterminate]
    shown = [f for f in found if f.name.endswith(way) and f.unit == "share" and f.value is not None]
    rows = [(f.name.removesuffix(f", {way}"), f.value or 0.0, f.low or 0.0, f.high or 0.0)
            for f in shown]  # fmt: skip
    if not rows:
        return ()
    figure = intervals_figure(rows, 1.0, f"share of patients, {way}", "")
    words = "; ".join(
        f"{name} {value:.2f}, {low:.2f} to {high:.2f}" for name, value, low, high in rows
    )
    return (Picture(svg_uri(figure), f"Agreement with intervals: {words}", 620),)


def _notes(known: Sequence[Case], plan: Plan) -> tuple[str, ...]:
    notes = []
    labels = {case.reference for case in known}
    if len(labels) == 1:
        notes.append(
            f"The reference holds one diagnosis only ({next(iter(labels))}): how often others are "
            "mistaken for it, and kappa, cannot be measured."
        )
    if OTHER in labels:
        notes.append(
            f"“{OTHER}” are diseases that the model does not know: no call of them can agree, and "
            "they count as disease where any disease is asked for."
        )
    if plan.agreement.reference_is == "method":
        notes.append("The reference is another method: agreement with it is not accuracy.")
    return tuple(notes)
