"""Counts of cells beside those by eye: leukocytes on the same images, and abnormal cells.

Owns which numbers of a run are compared with which column. Modelled on CLSI H20 (reference
leukocyte differential count) and EP09, and on the ICSH guidelines of 2014 for blood cell analysers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from millie.errors import ConfigError
from millie.outputs.figure_files import svg_uri
from millie.outputs.validation.cases import Case, Figure, Question
from millie.outputs.validation.drawing import differences_figure, regression_figure
from millie.outputs.validation.inputs import CountRow
from millie.outputs.validation.plan import CountPlan, Plan, ShareCountPlan
from millie.outputs.validation.section import Picture, Section, Table
from millie.outputs.validation.verdict import Criterion, judge
from millie.statistics.method_comparison import bland_altman, passing_bablok
from millie.statistics.rates import rate

Floats = NDArray[np.float64]

_SLOPE, _INTERCEPT, _BIAS = "Passing-Bablok slope", "Passing-Bablok intercept", "mean difference"
_LOWER, _UPPER = "lower limit of agreement", "upper limit of agreement"
_BINS = (0.0, 5.0, 20.0, 50.0, 100.0)


def leukocytes(
    cases: Sequence[Case], counts: Mapping[str, CountRow], plan: Plan, why_not: str
) -> Section:
    """Usable cells of a patient beside the leukocytes counted on the same images."""
    pairs = {
        case.patient: (row.leukocytes, float(case.result.n_cells))
        for case in cases
        if (row := counts.get(case.patient)) and row.leukocytes is not None
        and not case.result.failed
    }  # fmt: skip
    lead = (
        "Cells that the run used, beside the leukocytes that a person counted on the same images. "
        "Modelled on CLSI EP09 and on the ICSH guidelines of 2014 for blood cell analysers."
    )
    return _compared("leukocytes", "Leukocyte counts on the same images", lead, pairs, "cells",
                     plan.leukocytes, plan, why_not)  # fmt: skip


def abnormal_cells(
    cases: Sequence[Case],
    counts: Mapping[str, CountRow],
    scores: Mapping[str, NDArray[np.float32]],
    labels: Sequence[str],
    question: Question,
    plan: Plan,
    why_not: str,
) -> Section:
    """Share of cells that speak for disease beside the percentage of a manual differential.

    Args:
        cases: patients of the runs.
        counts: by eye.
        scores: (N, C) probabilities of each cell alone, by patient.
        labels: names of the C classes.
        question: which classes count as abnormal.
        plan: criteria.
        why_not: why there is no count, where there is none.
    """
    own = [place for place, name in enumerate(labels) if name in question.classes]
    pairs = {
        case.patient: (
            row.abnormal_percent,
            100 * float((scores[case.patient][:, own].sum(axis=1) >= 0.5).mean()),
        )
        for case in cases
        if (row := counts.get(case.patient)) and row.abnormal_percent is not None
        and len(scores.get(case.patient, ()))
    }  # fmt: skip
    lead = (
        f"Cells whose own probability of {question.subject} is at least one half, in percent of "
        "all cells, beside the abnormal cells of a manual count. A cell’s own probability "
        "is evidence for the call, not a cell type: the two need not be equal. Modelled on CLSI "
        "H20 and EP09."
    )
    return _compared(
        "abnormal_cells", "Abnormal cells beside a manual differential", lead, pairs,
        "percent points", plan.abnormal_cells, plan, why_not,
    )  # fmt: skip


def flagged_by_count(
    cases: Sequence[Case], counts: Mapping[str, CountRow], question: Question, plan: Plan
) -> Table | None:
    """Patients with disease by their manual percentage of abnormal cells, and who was flagged."""
    yes = [
        (row.abnormal_percent, case)
        for case in cases
        if case.reference is not None and question.holds(case.reference)
        and (row := counts.get(case.patient)) and row.abnormal_percent is not None
    ]  # fmt: skip
    if not yes:
        return None
    rows = []
    for low, high in pairwise(_BINS):
        held = [case for share, case in yes if low < share <= high or (low == share == 0)]
        if not held:
            continue
        called = sum(c.called is not None and question.holds(c.called) for c in held)
        urgent = sum(c.urgent for c in held)
        none = sum(c.called is not None and not question.holds(c.called) for c in held)
        found = rate(called + urgent, len(held), plan.study.confidence)
        rows.append([f"{low:g} to {high:g} %", str(len(held)), str(called), str(urgent), str(none),
                     found.text])  # fmt: skip
    columns = ["Abnormal cells by eye", "Patients", "Called", "Urgent", "Called otherwise",
               "Called or urgent"]  # fmt: skip
    return Table(
        f"From data: patients with {question.subject} by their manual count", columns, rows
    )


def _compared(
    key: str,
    title: str,
    lead: str,
    pairs: Mapping[str, tuple[float, float]],
    unit: str,
    asked: CountPlan | ShareCountPlan,
    plan: Plan,
    why_not: str,
) -> Section:
    if not pairs:
        why = why_not or "the table of counts and the runs have no such patient in common"
        return Section(key, title, lead, criteria=_criteria(key, {}, asked, plan, why), why_not=why)
    reference, new = np.array(list(pairs.values()), float).T
    line = differences = None
    notes = []
    try:
        differences = bland_altman(reference, new, plan.study.confidence)
        line = passing_bablok(reference, new, plan.study.confidence)
    except ConfigError as error:
        notes.append(f"Not computed: {error}.")
    found: dict[str, Figure] = {}
    if line:
        found[_SLOPE] = Figure.of(key, _SLOPE, line.slope, line.n)
        found[_INTERCEPT] = Figure.of(key, _INTERCEPT, line.intercept, line.n, unit)
    if differences:
        for name, one in ((_BIAS, differences.bias), (_LOWER, differences.lower),
                          (_UPPER, differences.upper)):  # fmt: skip
            found[name] = Figure.of(key, name, one, differences.n, unit)
    rows = [[patient, f"{a:g}", f"{b:.4g}", f"{b - a:+.3g}"] for patient, (a, b) in pairs.items()]
    return Section(
        key, title, lead, tuple(found.values()),
        _criteria(key, found, asked, plan, f"{len(pairs)} patients are too few or too alike"),
        (Table("", ["Patient", "By eye", "millie", "Difference"], rows, folded=len(rows) > 12),),
        (
            Picture(svg_uri(regression_figure(reference, new, line, unit)),
                    "Both methods for each patient with the Passing-Bablok line."),
            Picture(svg_uri(differences_figure(reference, new, differences, unit)),
                    "Differences over means with bias and limits of agreement."),
        ),
        tuple(notes),
    )  # fmt: skip


def _criteria(
    key: str,
    found: Mapping[str, Figure],
    asked: CountPlan | ShareCountPlan,
    plan: Plan,
    why: str,
) -> tuple[Criterion, ...]:
    """Lines of the verdict; signs are taken away from what is judged by its size."""
    points = key == "abnormal_cells"
    suffix = "percent_points" if points else "cells"
    limits = [found[name] for name in (_LOWER, _UPPER) if name in found]
    widest = max(map(_size, limits), key=lambda f: f.value or 0.0, default=None)
    bias = _size(found[_BIAS]) if _BIAS in found else None
    wanted = [
        ("min_slope", _SLOPE, found.get(_SLOPE), asked.min_slope),
        ("max_slope", _SLOPE, found.get(_SLOPE), asked.max_slope),
        (f"max_bias_{suffix}", f"{_BIAS}, without its sign", bias,
         getattr(asked, f"max_bias_{suffix}")),
        (f"max_limit_{suffix}", "wider limit of agreement, without its sign", widest,
         getattr(asked, f"max_limit_{suffix}")),
    ]  # fmt: skip
    return tuple(
        line
        for name, what, figure, limit in wanted
        for line in judge(name, what, figure, limit, plan.study.judged_by, section=key, missing=why)
    )


def _size(figure: Figure) -> Figure:
    """The figure without its sign, with the interval that its size has."""
    value, low, high = (float(x or 0.0) for x in (figure.value, figure.low, figure.high))
    near = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return Figure(figure.section, figure.name, abs(value), near, max(abs(low), abs(high)),
                  figure.n, figure.unit, figure.method)  # fmt: skip
