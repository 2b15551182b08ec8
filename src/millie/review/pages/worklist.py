"""The worklist: the most urgent sample first, then who has waited longest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.core.paginator import Paginator
from django.db.models import Case, Exists, Min, OuterRef, Prefetch, When
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from millie.review.cells.blind import concluded_by, is_blind, second_for
from millie.review.models import Analysis, Job, JobStatus, Sample
from millie.review.pages.downloads import csv_file
from millie.review.pages.lookup import person
from millie.review.roles import Act, requires

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from django.contrib.auth.models import User
    from django.db.models import QuerySet

    from millie.files import Value

_A_PAGE = 100
_COLUMNS = (
    "sample", "specimen", "state", "cells_analysed", "quality", "model", "model_sha256",
    "submitted", "analysed", "signed", "reviewer",
)  # fmt: skip
_FAILED, _NOT_CALLED = 5, 6
"""Rank of a sample without an analysis: after every state."""
STATES = {
    "suspect": ("Suspected, must not wait", [0]),
    "urgent": ("Indeterminate: urgent", [1]),
    "disease": ("A disease suggested", [2]),
    "indeterminate": ("Indeterminate", [3]),
    "nosignal": ("No signal", [4]),
    "failed": ("Failed", [5]),
    "waiting": ("Not analysed yet", [_NOT_CALLED]),
}


@dataclass(frozen=True, slots=True)
class Filters:
    """What the list shows.

    Attributes:
        show: ``open``, ``signed`` or ``all``.
        state: a key of :data:`STATES`; empty: every one.
        text: part of a pseudonym.
    """

    show: str
    state: str
    text: str

    @classmethod
    def of(cls, request: HttpRequest, *, blind: bool) -> Filters:
        """From the address; what is not known there, or would tell a hidden call, is ignored."""
        show, state = request.GET.get("show", "open"), request.GET.get("state", "")
        return cls(
            show if show in {"open", "signed", "all"} else "open",
            state if state in STATES and not blind else "",
            request.GET.get("q", "").strip()[:16],
        )

    @property
    def query(self) -> str:
        """As it stands in an address."""
        return urlencode({"show": self.show, "state": self.state, "q": self.text})


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the list.

    Attributes:
        sample: with analysis and reviewer.
        job: the latest job, where it is not done; else None.
        hidden: the call is not to be shown to this reader yet.
    """

    sample: Sample
    job: Job | None
    hidden: bool

    @property
    def state(self) -> str:
        """In words, without what is hidden."""
        if self.hidden:
            return "hidden"
        if self.sample.analysis is None:
            return "failed" if self.job and self.job.status == JobStatus.FAILED else "waiting"
        return self.sample.analysis.state

    @property
    def facts(self) -> tuple[Any, ...]:
        """All that a refresh may change."""
        sample, job = self.sample, self.job
        reviewer = sample.reviewer_id, sample.signed_at
        work = (job.status, job.step, job.done, job.total) if job else ()
        return sample.pk, sample.analysis_id, self.hidden, *reviewer, *work


def filtered(filters: Filters, user: User, *, blind: bool) -> QuerySet[Sample]:
    """The samples that the filters let through, the most urgent first, then by waiting time.

    A blind-first reader gets them by waiting time alone: the order would tell the call.
    """
    failed = Job.objects.filter(sample=OuterRef("pk"), status=JobStatus.FAILED)
    uncalled = Case(When(Exists(failed), then=_FAILED), default=_NOT_CALLED)
    found = Sample.objects.select_related("analysis", "reviewer").annotate(
        place=Coalesce("analysis__rank", uncalled),
        # What was suspected once keeps its place until a person has signed.
        worst=Coalesce(Min("analyses__rank"), uncalled),
    )
    if filters.show != "all":
        found = found.filter(signed_at__isnull=filters.show == "open")
    if filters.state:
        # Where the call is hidden, being found by it would tell it.
        found = found.filter(place__in=STATES[filters.state][1]).exclude(pk__in=second_for(user))
    if filters.text:
        found = found.filter(pseudonym__icontains=filters.text)
    first = ["-signed_at"] if filters.show == "signed" else []
    order = [*first, "submitted_at"] if blind else [*first, "worst", "submitted_at"]
    unfinished = Job.objects.exclude(status=JobStatus.DONE).order_by("-created")
    jobs = Prefetch("jobs", unfinished, to_attr="unfinished")
    return found.order_by(*order).prefetch_related(jobs)


def rows_of(samples: Iterable[Sample], user: User) -> list[Row]:
    """Lines for one reader."""
    known = concluded_by(user) if is_blind(user) else None
    second = second_for(user)
    return [
        Row(
            sample,
            next(iter(sample.unfinished), None),  # type: ignore[attr-defined]
            sample.pk in second or (known is not None and sample.pk not in known),
        )
        for sample in samples
    ]


@requires(Act.LOOK)
def worklist(request: HttpRequest) -> HttpResponse:
    """The page."""
    return render(request, "review/worklist.html", _context(request))


@requires(Act.LOOK)
def rows(request: HttpRequest) -> HttpResponse:
    """The table alone, asked for again and again; 204 where nothing has changed."""
    context = _context(request)
    if request.GET.get("seen") == context["digest"]:
        return HttpResponse(status=204)
    return render(request, "review/worklist_rows.html", context)


def _context(request: HttpRequest) -> dict[str, Any]:
    user = person(request)
    blind = is_blind(user)
    filters = Filters.of(request, blind=blind)
    samples = filtered(filters, user, blind=blind)
    page = Paginator(samples, _A_PAGE).get_page(request.GET.get("page"))
    found = rows_of(page, user)
    latest = Analysis.objects.order_by("-created").first()
    digest = hashlib.sha256(repr([row.facts for row in found]).encode()).hexdigest()[:16]
    return {
        "filters": filters,
        "states": {code: title for code, (title, _) in STATES.items()},
        "page": page,
        "rows": found,
        "blind": blind,
        "digest": digest,
        "scope": latest.model.get("scope", "") if latest else "",
        "now": timezone.now(),
    }


@requires(Act.LOOK)
def table(request: HttpRequest) -> HttpResponse:
    """The whole filtered list as CSV."""
    user = person(request)
    blind = is_blind(user)
    filters = Filters.of(request, blind=blind)
    found = rows_of(filtered(filters, user, blind=blind), user)
    return csv_file("worklist.csv", _COLUMNS, map(_cells, found))


def _cells(row: Row) -> list[Value]:
    sample, analysis = row.sample, row.sample.analysis
    told: list[Value] = (
        [analysis.n_cells, analysis.light, analysis.model_name, analysis.model_sha256]
        if analysis
        else ["", "", "", ""]
    )
    return [
        sample.pseudonym, sample.specimen, row.state, *told, _iso(sample.submitted_at),
        _iso(analysis.created if analysis else None), _iso(sample.signed_at),
        sample.reviewer.get_username() if sample.reviewer else "",
    ]  # fmt: skip


def _iso(when: datetime | None) -> str:
    return when.isoformat(timespec="seconds") if when else ""
