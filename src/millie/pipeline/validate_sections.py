"""The sections of a validation, in the order of the page, from runs, tables and the model.

Owns which data each section gets, and why one cannot be tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from millie.outputs.monitor.runs import Series, bag_of
from millie.outputs.patient.tables import read_cell_probabilities
from millie.outputs.validation.agreement import agreement
from millie.outputs.validation.cases import Case, Question
from millie.outputs.validation.control import control
from millie.outputs.validation.counts import abnormal_cells, flagged_by_count, leukocytes
from millie.outputs.validation.dilution import dilution
from millie.outputs.validation.inputs import (
    CountRow,
    read_control,
    read_counts,
    read_replicates,
    read_turnaround,
)
from millie.outputs.validation.plan import Plan
from millie.outputs.validation.repeatability import repeatability
from millie.outputs.validation.section import Section
from millie.outputs.validation.trials import interference, number_of_cells
from millie.outputs.validation.turnaround import turnaround
from millie.pipeline.caller import Caller, loading
from millie.pipeline.validate_inputs import Model, NamedRuns, replicates_of, series_of
from millie.synthetic.changes import INTERFERENCES
from millie.types import Finding, Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from millie.pipeline.segment_cohort import Progress


@dataclass(frozen=True, slots=True)
class Tables:
    """The laboratory's own tables (CSV); None: not given.

    Attributes:
        reference: ``patient,label``.
        replicates: ``patient,day,replicate,run`` and optional ``name``, the patient's in that run.
        counts: ``patient`` and ``leukocytes``, ``abnormal_percent`` or both.
        control: ``time,run`` and optional ``name``.
        turnaround: ``patient,minutes`` or ``patient,received,reported``.
    """

    reference: Path | None = None
    replicates: Path | None = None
    counts: Path | None = None
    control: Path | None = None
    turnaround: Path | None = None


@dataclass(frozen=True)
class Study:
    """What a validation has read.

    Attributes:
        plan: criteria.
        series: runs of the one model.
        model: behind them.
        question: the yes or no of the headline; ``classes`` each class against the rest.
        negative: classes without disease.
        cases: patients.
        others: runs that tables name.
        tables: of the laboratory.
        progress: called after each patient of each step.
    """

    plan: Plan
    series: Series
    model: Model
    question: Question
    classes: tuple[Question, ...]
    negative: frozenset[str]
    cases: tuple[Case, ...]
    others: NamedRuns
    tables: Tables
    progress: Progress

    @cached_property
    def bags(self) -> dict[str, Path]:
        """The bag of each patient whose run still has its store."""
        found = {
            result.patient: bag_of(run.run, result.patient)
            for run in self.series.runs
            for result in run.counted
        }
        return {patient: bag for patient, bag in found.items() if bag is not None}

    @cached_property
    def counts(self) -> dict[str, CountRow]:
        """What was counted by eye."""
        return read_counts(self.tables.counts) if self.tables.counts else {}

    @cached_property
    def caller(self) -> Caller | None:
        """The model, loaded; None: it is not on this machine."""
        if self.model.bundle is None:
            return None
        with loading(self.model.bundle, self.model.config, None, self.progress) as (caller, _):
            return caller()

    @property
    def why_not_again(self) -> str:
        """Why nothing can be called again; empty: it can."""
        if self.model.why_not:
            return self.model.why_not
        return "" if self.bags else "the runs’ bag stores are gone"

    def cell_scores(self) -> Mapping[str, NDArray[np.float32]]:
        """Probabilities (N, C) of each cell alone, by patient."""
        found: dict[str, NDArray[np.float32]] = {}
        for run in self.series.runs:
            scores = read_cell_probabilities(run.run.folder, self.series.model)
            found |= {r.patient: scores[r.patient] for r in run.counted if r.patient in scores}
        return found


def sections_of(study: Study, problems: list[Problem]) -> list[Section]:
    """Every section, tested or not.

    Args:
        study: what was read.
        problems: what cannot be used is added.
    """
    plan, tables = study.plan, study.tables
    counted = any(row.abnormal_percent is not None for row in study.counts.values())
    no_counts = "" if tables.counts else "no table of counts was given (--counts)"
    times = read_turnaround(tables.turnaround) if tables.turnaround else {}
    _note_strangers(study, "counts", study.counts, problems)
    _note_strangers(study, "turnaround", times, problems)
    return [
        agreement(study.cases, study.question, study.classes, plan),
        _repeatability(study),
        leukocytes(study.cases, study.counts, plan, no_counts),
        abnormal_cells(
            study.cases, study.counts, study.cell_scores() if counted else {},
            study.series.model.labels, study.question, plan, no_counts,
        ),
        _dilution(study),
        _number_of_cells(study),
        _interference(study, problems),
        _control(study),
        turnaround(times, plan, "no table of times was given (--turnaround)"),
    ]  # fmt: skip


def _note_strangers(
    study: Study, name: str, rows: Mapping[str, object], problems: list[Problem]
) -> None:
    held = {result.patient for run in study.series.runs for result in run.run.patients}
    table = getattr(study.tables, name)
    text = f"in the table of {name}, in no run" + ("" if name == "turnaround" else ": not used")
    problems += [
        Problem(patient, str(table), Finding.NOTE, text) for patient in sorted(rows.keys() - held)
    ]


def _repeatability(study: Study) -> Section:
    table = study.tables.replicates
    if table is None:
        return repeatability([], study.cases, study.question, study.plan,
                             "no table of replicates was given (--replicates)")  # fmt: skip
    found, notes = replicates_of(read_replicates(table), study.others)
    why = "" if found else "no run that the table of replicates names can be used"
    return repeatability(found, study.cases, study.question, study.plan, why, notes)


def _control(study: Study) -> Section:
    table = study.tables.control
    if table is None:
        why = "no table of a control slide was given (--control)"
        return control([], study.question, study.plan, why)
    series = series_of(read_control(table), study.others)
    why = "" if series else "no run that the table of the control slide names can be used"
    return control(series, study.question, study.plan, why)


def _dilution(study: Study) -> Section:
    from millie.pipeline.validate_films import dilution_trials

    asked, trials = study.plan.dilution, []
    why = _why_not(study, asked)
    if not why and not study.negative:
        why = "the model knows no class without disease, whose cells could dilute others"
    if not why and asked is not None and study.caller is not None:
        trials = dilution_trials(
            study.cases, study.question, study.bags, study.caller, study.model.config.prediction,
            asked, study.negative, study.progress,
        )  # fmt: skip
        if not trials:
            why = "the reference names no patient with disease, or none without, that has a result"
    yes = {trial.patient for trial in trials}
    eye = [row.abnormal_percent for patient, row in study.counts.items()
           if patient in yes and row.abnormal_percent is not None]  # fmt: skip
    return dilution(
        trials, study.question, study.plan, why,
        from_data=flagged_by_count(study.cases, study.counts, study.question, study.plan),
        abnormal_percent=float(np.median(eye)) if eye else None,
    )  # fmt: skip


def _number_of_cells(study: Study) -> Section:
    from millie.pipeline.validate_films import number_trials

    asked, trials = study.plan.number_of_cells, []
    why = _why_not(study, asked)
    if not why and asked is not None and study.caller is not None:
        trials = number_trials(
            study.cases, study.bags, study.caller, study.model.config.prediction, asked,
            study.negative, study.progress,
        )  # fmt: skip
        if not trials:
            why = "no patient has a call, or none has as many cells"
    return number_of_cells(trials, study.plan, why)


def _interference(study: Study, problems: list[Problem]) -> Section:
    from millie.pipeline.validate_changes import interference_trials

    asked, trials = study.plan.interference, []
    why = _why_not(study, asked)
    if not why and asked is not None and study.caller is not None:
        found = interference_trials(
            study.cases, study.bags, study.caller, study.model.config, asked.changes,
            asked.patients, study.negative, study.progress,
        )  # fmt: skip
        problems += found.problems
        trials = found.trials
        if not trials:
            why = "no patient has a call and its images where the run read them"
    words = {name: change.words for name, change in INTERFERENCES.items()}
    return interference(trials, words, study.plan, why)


def _why_not(study: Study, asked: object) -> str:
    return study.why_not_again if asked is not None else "the plan does not ask for it"
