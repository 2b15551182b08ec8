"""What ``millie validate`` leaves: one page, three tables, one JSON file and the plan itself.

Owns their columns and what of the run is named in them. The same inputs give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from millie.errors import ConfigError
from millie.files import Value, write_bytes, write_csv, write_text
from millie.outputs.monitor.runs import Series
from millie.outputs.page import render
from millie.outputs.result_folder import record_files
from millie.outputs.tables import read_json
from millie.outputs.validation.cases import Case, Question
from millie.outputs.validation.plan import Plan, digest
from millie.outputs.validation.section import Section
from millie.outputs.validation.verdict import figure_words, tally
from millie.types import Problem

SCHEMA = 1
FILES = (
    "report.html", "verdict.csv", "figures.csv", "patients.csv", "plan.toml", "validation.json",
)  # fmt: skip
_VERDICT = ("section", "key", "what", "required", "observed", "outcome", "note")
_FIGURE = (
    "section", "figure", "value", "low", "high", "n", "successes", "unit", "method",
)  # fmt: skip
_PATIENT = (
    "patient", "run", "reference", "state", "called", "agrees", "log_odds", "n_cells", "trained_on",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Validated:
    """Everything that stands in the report.

    Attributes:
        plan: criteria; ``plan_bytes`` the file they were read from.
        series: the runs of the one model.
        question: the yes or no whose log odds are given.
        cases: patients of the runs.
        sections: in the order of the page.
        inputs: name and SHA-256 (hex) of each file that was read.
        software: name and version of what computed it.
        trained_on_known: whether the model's training patients were named.
        remarks: on the study as a whole.
        problems: what could not be used.
    """

    plan: Plan
    plan_bytes: bytes
    series: Series
    question: Question
    cases: tuple[Case, ...]
    sections: tuple[Section, ...]
    inputs: tuple[tuple[str, str], ...]
    software: tuple[tuple[str, str], ...]
    trained_on_known: bool
    remarks: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def criteria(self) -> list[Any]:
        """Lines of the verdict, in the order of the page."""
        return [one for section in self.sections for one in section.criteria]

    @property
    def line(self) -> str:
        """The verdict in a sentence."""
        found = tally(self.criteria)
        told = [f"{found[name]} {name}" for name in ("met", "not met", "not tested") if found[name]]
        n = len(self.criteria)
        return f"{n} criteria: {', '.join(told)}" if told else "the plan sets no criterion"

    @property
    def trained(self) -> frozenset[str]:
        """Patients that the model was trained on, as far as that is known."""
        return frozenset(name for run in self.series.runs for name in run.trained)


def check_same_plan(out: Path, plan: bytes) -> None:
    """Refuse to judge again in the folder of a report that was made by another plan.

    Criteria that are changed once the figures are known prove nothing: both reports must stay.

    Raises:
        ConfigError: the plan differs from the report's.
        DataError: the earlier report is damaged.
    """
    path = out / "validation.json"
    if not path.is_file():
        return
    earlier = str(read_json(path).get("plan_sha256", ""))
    if earlier != digest(plan):
        raise ConfigError(
            f"{out} holds a report made by another plan (SHA-256 {earlier[:16]}, this one "
            f"{digest(plan)[:16]}): criteria that change after the report are a new validation, "
            "name another folder for it"
        )


def write_validation(out: Path, found: Validated) -> Path:
    """Write the report; ``validation.json``, by which the folder is known, comes last.

    Returns:
        path of ``report.html``.
    """
    write_bytes(out / "plan.toml", found.plan_bytes)
    write_csv(out / "verdict.csv", list(_VERDICT), (list(c.row().values()) for c in found.criteria))
    write_csv(out / "figures.csv", list(_FIGURE), (list(row.values()) for row in _figures(found)))
    write_csv(out / "patients.csv", list(_PATIENT), (list(r.values()) for r in patient_rows(found)))
    runs = found.series.runs
    page = render(
        "validation.html.j2",
        found=found,
        study=found.plan.study,
        model=found.series.model,
        settings=found.series.title,
        runs=runs,
        tally=tally(found.criteria),
        sections=[_shown(section) for section in found.sections],
        plan_sha256=digest(found.plan_bytes),
        span=_span([f"{run.when:%Y-%m-%d}" for run in runs]),
        n_reference=sum(case.reference is not None for case in found.cases),
        problems=found.problems,
    )
    path = write_text(out / "report.html", page)
    text = json.dumps(_to_json(found), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(out / "validation.json", text + "\n")
    record_files(out, "validation", FILES)
    return path


def _figures(found: Validated) -> list[dict[str, Any]]:
    return [figure.row() for section in found.sections for figure in section.figures]


def patient_rows(found: Validated) -> list[dict[str, Value]]:
    """The rows of ``patients.csv``: reference and call of each patient."""
    where = {r.patient: run.name for run in found.series.runs for r in run.counted}
    rows: list[dict[str, Value]] = []
    for case in found.cases:
        failed, known = case.result.failed, case.reference is not None
        not_trained = False if found.trained_on_known else None
        rows.append({
            "patient": case.patient, "run": where[case.patient], "reference": case.reference,
            "state": case.result.state, "called": case.called,
            "agrees": case.called == case.reference if known and case.called else None,
            "log_odds": None if failed else round(found.question.log_odds(case.result), 6),
            "n_cells": case.result.n_cells,
            "trained_on": case.patient in found.trained or not_trained,
        })  # fmt: skip
    return rows


def _span(days: Sequence[str]) -> str:
    return days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def _shown(section: Section) -> dict[str, Any]:
    """A section with its numbers in words."""
    rows = [
        (figure.name, figure_words(figure) or "–", figure.method)
        for figure in section.figures
        if section.listed is None or figure.name in section.listed
    ]
    return {"own": section, "figures": rows}


def _to_json(found: Validated) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "research_use_only": True,
        "plan_sha256": digest(found.plan_bytes),
        "plan": found.plan.model_dump(mode="json"),
        "model": found.series.model.to_card(),
        "software": dict(found.software),
        "inputs": [{"name": name, "sha256": sha256} for name, sha256 in found.inputs],
        "question": {"name": found.question.name, "classes": sorted(found.question.classes),
                     "threshold": found.question.threshold},
        "runs": [
            {"name": run.name, "created": run.when.isoformat(), "patients": len(run.run.patients),
             "counted": len(run.counted)}
            for run in found.series.runs
        ],
        "verdict": {"line": found.line, **tally(found.criteria)},
        "criteria": [one.row() for one in found.criteria],
        "sections": [_section_json(section) for section in found.sections],
        "patients": patient_rows(found),
        "remarks": list(found.remarks),
        "problems": [asdict(problem) for problem in found.problems],
    }  # fmt: skip


def _section_json(section: Section) -> Mapping[str, Any]:
    return {
        "key": section.key, "title": section.title, "why_not": section.why_not,
        "figures": [figure.row() for figure in section.figures],
        "tables": [
            {"title": table.title, "columns": list(table.columns),
             "rows": [list(row) for row in table.rows]}
            for table in section.tables
        ],
        "notes": list(section.notes),
    }  # fmt: skip
