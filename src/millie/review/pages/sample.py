"""The page of one sample: what is suggested, how sure that is, and the cells that made it so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from millie.outputs.patient.evidence import Evidence, fusion_note, weigh
from millie.outputs.patient.quality import quality_rows
from millie.outputs.patient.states import words_for
from millie.outputs.result_folder import page_of
from millie.review.cell_kinds import ARTEFACT
from millie.review.cells.blind import call_hidden
from millie.review.models import Analysis, Job, JobStatus, Sample
from millie.review.pages.lookup import analysis_of, person, sample_of, told_by
from millie.review.records.audit import record
from millie.review.roles import Act, requires

if TYPE_CHECKING:
    from collections.abc import Sequence

    from millie.outputs.patient.records import ModelFacts, PatientResult
    from millie.types import Winner

_STRIP = 8
"""Cells of each side on the page; the gallery has all."""


@dataclass(frozen=True, slots=True)
class Probability:
    """One class: its probability, the ends of its interval, and limits at which a call changes."""

    label: str
    value: float
    ends: tuple[float, float] | None
    limits: list[float]
    leads: bool

    @property
    def bars(self) -> dict[str, float]:
        """Places on a scale of 0 to 100, for a drawing."""
        places = {"value": 100 * self.value}
        if self.ends is not None:
            low, high = self.ends
            places |= {"low": 100 * low, "width": max(0.6, 100 * (high - low))}
        return places

    @property
    def marks(self) -> list[float]:
        """Limits on the same scale."""
        return [100 * limit for limit in self.limits]


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A cell of the evidence strip.

    Attributes:
        index: of the cell.
        mark: its number or letter, as in the report.
        share: of the evidence for its side's class, 0 to 1.
        alone: probability of the class in focus from this cell alone.
        remarks: as *touches another*.
        decision: what a person said it is; empty: nobody yet.
    """

    index: int
    mark: str
    share: float
    alone: float
    remarks: str
    decision: str


@requires(Act.LOOK)
def sample(request: HttpRequest, pseudonym: str) -> HttpResponse:
    """The page."""
    found = sample_of(pseudonym)
    context: dict[str, Any] = {
        "sample": found,
        "job": _open_job(found),
        "images": found.images.all(),
        "hidden": call_hidden(person(request), found),
    }
    if found.analysis is not None:
        context |= _told(found.analysis)
    return render(request, "review/sample.html", context)


@requires(Act.LOOK)
def progress(request: HttpRequest, pseudonym: str) -> HttpResponse:
    """How far the analysis is; once it has ended, the page is loaded again."""
    found = sample_of(pseudonym)
    job = _open_job(found)
    if job is None or job.status == JobStatus.FAILED:
        return HttpResponse(headers={"HX-Refresh": "true"})
    return render(request, "review/sample_job.html", {"sample": found, "job": job})


def _open_job(found: Sample) -> Job | None:
    """The latest job, unless it is done."""
    job = found.jobs.order_by("-created").first()
    return None if job is None or job.status == JobStatus.DONE else job


def _told(analysis: Analysis) -> dict[str, Any]:
    model, result = told_by(analysis)
    confidence, possible = result.not_excluded
    context: dict[str, Any] = {
        "analysis": analysis,
        "analyses": _history(analysis),
        "model": model,
        "result": result,
        "words": words_for(result.state),
        "quality": quality_rows(result.quality),
        "n_failed": sum(not measure.passed for measure in result.quality),
        "report": page_of(result.patient),
        "confidence": confidence,
        "possible": possible,
        "missed_percent": 100 * (result.missed_share or 0.0),
        "progress_of_review": _review_of(analysis),
        "threshold": model.more.get("threshold"),
        "excluded_below": model.more.get("excluded_below"),
    }
    if not result.failed:
        context |= _argued(analysis, model, result)
    if analysis.based_on is not None:
        context["before"] = _compared(analysis.based_on, analysis)
    return context


def _argued(analysis: Analysis, model: ModelFacts, result: PatientResult) -> dict[str, Any]:
    """Probabilities and evidence of a result that is none without cells."""
    evidence = weigh(result, model)
    return {
        "probabilities": [
            Probability(
                label, value, result.ranges.get(label), model.limits_of(label),
                label == evidence.focus,
            )
            for label, value in result.probabilities.items()
        ],
        "evidence": evidence,
        "fusion_note": fusion_note(model),
        "cells_for": _strip(analysis, model, evidence, evidence.cells_for),
        "cells_against": _strip(analysis, model, evidence, evidence.cells_against),
    }  # fmt: skip


def _strip(
    analysis: Analysis, model: ModelFacts, evidence: Evidence, winners: Sequence[Winner]
) -> list[Exhibit]:
    shown = winners[:_STRIP]
    focus = model.labels.index(evidence.focus)
    cells = {cell.index: cell for cell in analysis.cells.filter(index__in=[w.cell for w in shown])}
    return [
        Exhibit(
            winner.cell, evidence.marks[winner.cell].text, winner.contribution,
            cells[winner.cell].probabilities[focus], cells[winner.cell].remarks,
            cells[winner.cell].decision,
        )
        for winner in shown
    ]  # fmt: skip


def _review_of(analysis: Analysis) -> dict[str, int]:
    """How much of the sample a person has looked at."""
    cells = analysis.cells
    flagged = cells.filter(flagged=True)
    return {
        "decided": cells.exclude(decision="").count(),
        "flagged": flagged.count(),
        "flagged_open": flagged.filter(decision="").count(),
        "artefacts": cells.filter(decision=ARTEFACT).count(),
    }


def _history(latest: Analysis) -> list[dict[str, Any]]:
    """Every analysis of the sample, the newest first, each with its probability of one class."""
    found = []
    for analysis in latest.sample.analyses.order_by("-number"):
        model, result = told_by(analysis)
        focus = "" if result.failed else weigh(result, model).focus
        found.append({
            "analysis": analysis,
            "focus": focus,
            "value": result.probabilities.get(focus, 0.0),
            "supported": result.supported,
            "report": page_of(result.patient),
        })  # fmt: skip
    return found


def _compared(before: Analysis, after: Analysis) -> dict[str, Any]:
    """The call with all cells beside the call without the rejected ones."""
    told = [told_by(before)[1], told_by(after)[1]]
    return {
        "analysis": before,
        "n": len(after.excluded),
        "rows": [
            (label, told[0].probabilities.get(label, 0.0), value)
            for label, value in told[1].probabilities.items()
        ],
        "supported": min(result.supported for result in told),
    }


@requires(Act.DECIDE)
@require_POST
def take(request: HttpRequest, pseudonym: str) -> HttpResponse:
    """Put oneself down as the reviewer, so that nobody does the work twice."""
    with transaction.atomic():
        found = Sample.objects.select_for_update().get(pk=sample_of(pseudonym).pk)
        user = person(request)
        found.reviewer = user
        found.save(update_fields=["reviewer"])
        record(user.get_username(), "sample.taken", found.pseudonym)
    return redirect("sample", pseudonym)


@requires(Act.DECIDE)
@require_POST
def call_again(request: HttpRequest, pseudonym: str) -> HttpResponse:
    """Ask for the call without the cells that people named artefacts."""
    with transaction.atomic():
        found = Sample.objects.select_for_update().get(pk=sample_of(pseudonym).pk)
        analysis = analysis_of(found)
        rejected = list(analysis.cells.filter(decision=ARTEFACT).values_list("index", flat=True))
        if problem := _refused(found, analysis, rejected):
            messages.error(request, problem)
            return redirect("sample", pseudonym)
        last = found.jobs.order_by("-created").first()
        Job.objects.create(
            sample=found, bundle=last.bundle if last else "", based_on=analysis, excluded=rejected
        )
        record(
            person(request).get_username(), "sample.called_again", pseudonym,
            based_on=analysis.number, excluded=rejected,
        )  # fmt: skip
    messages.success(request, f"The call is made again without {len(rejected)} rejected cells.")
    return redirect("sample", pseudonym)


def _refused(found: Sample, analysis: Analysis, rejected: Sequence[int]) -> str:
    """Why the call is not made again; empty: it is."""
    if not rejected:
        return "No cell is named an artefact: there is nothing to leave out."
    if len(rejected) == analysis.n_cells:
        return "Every cell is named an artefact: without cells there is no call."
    if found.jobs.filter(status__in=[JobStatus.QUEUED, JobStatus.RUNNING]).exists():
        return "An analysis of this sample is waiting or running: wait until it has ended."
    return ""
