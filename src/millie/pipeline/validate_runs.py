"""A laboratory's own validation: its runs, its tables and its plan, judged line by line.

Owns the order of the steps and the checks of what was asked for. What is computed is in
``outputs.validation`` and ``statistics``; calls under worse conditions are ``validate_films`` and
``validate_changes``.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from millie import __version__
from millie.errors import ConfigError, DataError
from millie.outputs.result_folder import check_kind, one_at_a_time
from millie.pipeline.inputs import PathLike, paths_of
from millie.pipeline.results import ValidateResult
from millie.pipeline.segment_cohort import Progress, silent
from millie.types import Finding, Problem

if TYPE_CHECKING:
    from millie.outputs.monitor.runs import Series
    from millie.outputs.patient.records import ModelFacts
    from millie.outputs.validation.cases import Question
    from millie.outputs.validation.plan import Plan
    from millie.outputs.validation.report import Validated
    from millie.pipeline.validate_inputs import Model
    from millie.pipeline.validate_sections import Study, Tables

_SOFTWARE = ("numpy", "scipy", "torch", "openvino", "opencv-python-headless", "pillow")


def validate(
    plan: PathLike,
    runs: PathLike | Sequence[PathLike],
    out: PathLike,
    reference: PathLike | None = None,
    replicates: PathLike | None = None,
    counts: PathLike | None = None,
    control: PathLike | None = None,
    turnaround: PathLike | None = None,
    model: PathLike | None = None,
    trained_on: PathLike | None = None,
    progress: Progress = silent,
) -> ValidateResult:
    r"""The report of a laboratory's own validation, judged against a plan that was fixed before.

    Args:
        plan: TOML; ``millie validate --example`` writes one.
        runs: folders that ``predict`` wrote, of one model with the same settings; each patient
            counts once.
        out: folder for the page and the tables: new, empty, or that of a report by the same plan.
        reference: table (CSV) of diagnoses, ``patient,label``.
        replicates: ``patient,day,replicate,run`` and, optional, ``name`` (the patient's in the
            run); folders are relative to the table.
        counts: ``patient`` and ``leukocytes``, ``abnormal_percent`` or both.
        control: ``time,run`` and, optional, ``name``.
        turnaround: ``patient,minutes`` or ``patient,received,reported``.
        model: bundle of the runs; None: the shipped one of that name.
        trained_on: bag store of the patients that the model was trained on, to note them.
        progress: called after each patient of each step.

    Raises:
        ConfigError: the plan has an unknown key, a value out of range or a class that the model
            does not know, or is another one than that of the report in ``out``; runs of several
            models; or an ``out`` that holds something else.
        MissingFileError: a file or folder does not exist.
        ManifestError: a table breaks its rules.
        DataError: no run can be used, or the reference has none of its patients.
        BusyError: another process is writing to ``out``.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("plan.toml").write_text("[agreement]\nmax_without_call = 0.5")
        >>> _ = Path("truth.csv").write_text("patient,label\n" + "".join(
        ...     f"{p.patient},{p.label}\n" for p in calls.predictions))
        >>> report = millie.validate("plan.toml", "calls", "validation", reference="truth.csv")
        >>> [(one["key"], one["outcome"]) for one in report.rows()]
        [('max_without_call', 'not met')]
    """
    from millie.outputs.validation.plan import read_plan
    from millie.outputs.validation.report import check_same_plan, write_validation
    from millie.pipeline.validate_sections import Tables

    asked, plan_bytes = read_plan(Path(plan))
    _check_changes(asked)
    folder = Path(out)
    check_kind(folder, "validation")
    check_same_plan(folder, plan_bytes)
    given = (reference, replicates, counts, control, turnaround)
    tables = Tables(*(Path(table) if table else None for table in given))
    with one_at_a_time(folder):
        found = _found(
            asked, plan_bytes, tables, paths_of(runs), model,
            Path(trained_on) if trained_on else None, progress,
        )  # fmt: skip
        report = write_validation(folder, found)
    criteria = tuple(one.row() for one in found.criteria)
    return ValidateResult(folder, report, found.line, criteria, found.remarks, found.problems)


def _check_changes(plan: Plan) -> None:
    from millie.synthetic.changes import INTERFERENCES

    asked = plan.interference.changes if plan.interference else ()
    if unknown := [name for name in asked if name not in INTERFERENCES]:
        raise ConfigError(
            f"interference.changes: no change '{unknown[0]}'; known are {', '.join(INTERFERENCES)}"
        )


def questions(series: Series, model: Model) -> tuple[Question, list[Question], frozenset[str]]:
    """The headline's yes or no, each class against the rest, and the classes without disease."""
    from millie.outputs.validation.cases import Question

    facts = series.model
    negative = model.negative(facts.labels)
    threshold = facts.more.get("threshold")
    classes = [
        Question(
            f"{label} against the rest", label, frozenset({label}),
            float(threshold) if label == facts.positive and threshold is not None else None,
            urgent=label == facts.urgent,
        )
        for label in facts.labels
    ]  # fmt: skip
    if negative:
        needed = model.config.prediction.min_disease_probability if model.bundle else None
        disease = frozenset(facts.labels) - negative
        return (
            Question("any disease", "disease", disease, needed, any_disease=True, urgent=True),
            classes,
            negative,
        )
    headline = next((one for one in classes if facts.positive in one.classes), classes[0])
    return headline, classes, negative


def _found(
    plan: Plan,
    plan_bytes: bytes,
    tables: Tables,
    folders: Sequence[Path],
    named: PathLike | None,
    trained_on: Path | None,
    progress: Progress,
) -> Validated:
    """Everything that stands in the report."""
    from millie.outputs.validation.cases import cases_of
    from millie.outputs.validation.inputs import read_reference
    from millie.outputs.validation.report import Validated
    from millie.pipeline.validate_inputs import NamedRuns, find_model, one_series
    from millie.pipeline.validate_sections import Study, sections_of

    series, problems = one_series(folders, trained_on)
    _check_classes(plan, series.model)
    model = find_model(series.model, named if isinstance(named, str | None) else Path(named))
    headline, classes, negative = questions(series, model)
    results = sorted((r for run in series.runs for r in run.counted), key=lambda r: r.patient)
    reference = read_reference(tables.reference) if tables.reference else {}
    cases = cases_of(results, reference, plan.agreement.labels, series.model, negative)
    held = {r.patient for run in series.runs for r in run.run.patients}
    problems += _unmatched(held, reference, tables.reference)
    others = NamedRuns(series.model)
    study = Study(plan, series, model, headline, tuple(classes), negative, tuple(cases), others,
                  tables, progress)  # fmt: skip
    sections = sections_of(study, problems)
    problems += others.problems
    runs = [*(run.run.folder for run in series.runs), *others.folders]
    return Validated(
        plan, plan_bytes, series, headline, tuple(cases), tuple(sections),
        tuple(_inputs(tables, runs)), tuple(_software()), trained_on is not None,
        tuple(_remarks(study, trained_known=trained_on is not None)), tuple(problems),
    )  # fmt: skip


def _check_classes(plan: Plan, model: ModelFacts) -> None:
    if unknown := sorted(plan.agreement.classes.keys() - set(model.labels)):
        raise ConfigError(
            f"agreement.classes.{unknown[0]}: the model {model.title} knows "
            f"{', '.join(model.labels)}"
        )


def _unmatched(
    held: AbstractSet[str], reference: Mapping[str, str], table: Path | None
) -> list[Problem]:
    """Patients that stand in the runs or in the reference only.

    Raises:
        DataError: nobody stands in both.
    """
    if table is None:
        return []
    if not held & reference.keys():
        raise DataError(
            f"{table}: not one of its {len(reference)} patients is in the runs; names must be "
            f"equal, for example {min(held)}"
        )
    told = {
        **dict.fromkeys(sorted(reference.keys() - held), "in the reference, in no run: not judged"),
        **dict.fromkeys(sorted(held - reference.keys()), "without a reference: not judged"),
    }
    return [Problem(name, str(table), Finding.NOTE, text) for name, text in told.items()]


def _inputs(tables: Tables, runs: Iterable[Path]) -> Iterable[tuple[str, str]]:
    """Every file that figures are from, with its digest."""
    from millie.pipeline.validate_inputs import file_digest

    for name in ("reference", "replicates", "counts", "control", "turnaround"):
        table = getattr(tables, name)
        if table is not None:
            yield f"{name} table {table.name}", file_digest(table)
    for folder in dict.fromkeys(runs):
        for name in ("predictions.json", "cells.csv"):
            if (folder / name).is_file():
                yield f"{folder.name}/{name}", file_digest(folder / name)


def _software() -> Iterable[tuple[str, str]]:
    yield "millie", __version__
    yield "Python", platform.python_version()
    for name in _SOFTWARE:
        yield name, version(name)


def _remarks(study: Study, *, trained_known: bool) -> Iterable[str]:
    """What a reader must consider with the verdict."""
    runs, plan = study.series.runs, study.plan
    trained = sum(len(run.trained) for run in runs)
    if trained:
        bound = "" if trained_known or trained == len(study.cases) else "at least "
        yield (
            f"The model was trained on {bound}{trained} of the {len(study.cases)} patients: their "
            "figures look better than those of new patients and prove nothing about these."
        )
    elif not trained_known:
        yield (
            "Whether the model was trained on any of these patients is not known (--trained-on "
            "names the store of its training)."
        )
    if early := [run.name for run in runs if _before(run.when.date(), plan.study.fixed_on)]:
        yield (
            f"Made before the plan was fixed on {plan.study.fixed_on}: {', '.join(early)}. "
            "Criteria that are set once results are known prove little."
        )
    if plan.study.fixed_on is None:
        yield "The plan does not say on which day it was fixed (study.fixed_on)."
    failed = sum(case.result.failed for case in study.cases)
    if failed:
        yield f"{failed} of {len(study.cases)} patients have no result: they are without a call."
    if study.model.why_not:
        yield f"Calls under worse conditions were not computed: {study.model.why_not} (--model)."


def _before(made: date, fixed: date | None) -> bool:
    return fixed is not None and made < fixed
