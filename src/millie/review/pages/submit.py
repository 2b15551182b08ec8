"""Submitting images, and what became of what was submitted."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.conf import settings
from django.contrib import messages
from django.db.models import Exists, OuterRef
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from millie.errors import MillieError
from millie.review import problems
from millie.review.intake.door import About, admit, tray
from millie.review.intake.limits import MAX_FILES, MAX_NAME, MAX_UPLOAD_BYTES
from millie.review.jobs import queue
from millie.review.models import Job, JobStatus, Specimen, WatchedItem
from millie.review.records.audit import record
from millie.review.roles import Act, requires

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.core.files.uploadedfile import UploadedFile

    from millie.review.models import Sample

_SHOWN_DAYS = 7
_MOST_SHOWN = 50


class AboutForm(forms.Form):
    """What is said of a sample beside its images."""

    patient = forms.CharField(
        max_length=MAX_NAME, required=False, label="Patient or case",
        help_text="Kept on this server, shown nowhere. The sample gets a random name.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )  # fmt: skip
    specimen = forms.ChoiceField(choices=Specimen.choices, initial=Specimen.UNKNOWN)
    um_px = forms.FloatField(
        min_value=0.01, max_value=5, required=False, label="Scale, um per pixel",
        help_text="If known, as 0.1 for a 100x objective. Otherwise it is read from the images.",
    )  # fmt: skip


@requires(Act.SUBMIT)
@require_http_methods(["GET", "POST"])
def submit(request: HttpRequest) -> HttpResponseBase:
    """The page with the form; and what the form sends, one sample at a time."""
    form = AboutForm(request.POST or None)
    if request.method == "POST":
        if not form.is_valid():
            return _wrong(request, form)
        try:
            sample = _admitted(request, form)
        except (MillieError, OSError) as error:
            return problems.answer(request, error)
        return _taken(request, sample)
    limits = {"max_bytes": MAX_UPLOAD_BYTES, "max_files": MAX_FILES}
    return render(request, "review/submit.html", {"form": form, **limits, **_progress()})


@requires(Act.SUBMIT)
@require_GET
def progress(request: HttpRequest) -> HttpResponse:
    """The part of the page that tells what became of the samples."""
    return render(request, "review/submit_progress.html", _progress())


@requires(Act.SUBMIT)
@require_POST
def again(request: HttpRequest, pk: int) -> HttpResponse:
    """Queue a failed analysis anew."""
    job = get_object_or_404(Job, pk=pk, status=JobStatus.FAILED)
    if job == job.sample.jobs.last():
        queue.again(job)
        record(request.user.get_username(), "job.again", job.sample.pseudonym)
        messages.success(request, f"{job.sample.pseudonym} is analysed again.")
    return redirect("submit")


def _admitted(request: HttpRequest, form: AboutForm) -> Sample:
    files = cast("list[UploadedFile[Any]]", request.FILES.getlist("files"))
    paths = request.POST.getlist("paths")
    user = cast("User", request.user)
    about = About(user.get_username(), **form.cleaned_data)
    with tray(settings.DATA) as sent:
        for number, each in enumerate(files):
            # A browser sends a file's name alone; the script adds the folders that it was in.
            inside = paths[number] if len(paths) == len(files) else ""
            sent.put(inside or each.name or "image", each.file or each)
        return admit(settings.DATA, sent, about)


def _taken(request: HttpRequest, sample: Sample) -> HttpResponse:
    n = sample.images.count()
    text = f"{sample.pseudonym}: {n} {'image' if n == 1 else 'images'} taken."
    if problems.wants_json(request):
        return JsonResponse({"id": sample.pseudonym, "text": text, "notes": sample.notes})
    messages.success(request, text)
    for note in sample.notes:
        messages.info(request, f"{sample.pseudonym}: {note}")
    return redirect("submit")


def _wrong(request: HttpRequest, form: AboutForm) -> HttpResponse:
    told = [f"{form.fields[name].label or name}: {' '.join(map(str, texts))}"
            for name, texts in form.errors.items()]  # fmt: skip
    if problems.wants_json(request):
        return problems.problem(422, " ".join(told))
    return problems.page(422, " ".join(told))


def _progress() -> dict[str, object]:
    since = timezone.now() - timedelta(days=_SHOWN_DAYS)
    jobs = Job.objects.select_related("sample").order_by("-created", "-pk")
    at_work = jobs.filter(status__in=[JobStatus.QUEUED, JobStatus.RUNNING]).order_by("created")
    later = Job.objects.filter(sample=OuterRef("sample"), pk__gt=OuterRef("pk"))
    failed = jobs.filter(~Exists(later), status=JobStatus.FAILED, finished__gte=since)
    return {
        "at_work": at_work[:_MOST_SHOWN],
        "failed": failed[:_MOST_SHOWN],
        "refused": WatchedItem.objects.filter(sample=None, at__gte=since).order_by("-at")[
            :_MOST_SHOWN
        ],
    }
