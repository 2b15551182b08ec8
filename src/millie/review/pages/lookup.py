"""From the names in an address to rows of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from django.conf import settings
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest
from django.shortcuts import get_object_or_404

from millie.outputs.patient.records import ModelFacts
from millie.outputs.patient.tables import result_from_json
from millie.review.models import Analysis, Sample

if TYPE_CHECKING:
    from pathlib import Path

    from millie.outputs.patient.records import PatientResult
    from millie.review.data_folder import DataFolder


def person(request: HttpRequest) -> User:
    """Who is logged in; every view is guarded, so somebody is."""
    return cast("User", request.user)


def sample_of(pseudonym: str) -> Sample:
    """A sample with its latest analysis and reviewer, or 404."""
    found = Sample.objects.select_related("analysis", "reviewer")
    return get_object_or_404(found, pseudonym=pseudonym)


def analysis_of(sample: Sample, number: str | None = None) -> Analysis:
    """An analysis by its number, or the latest; 404 where there is none."""
    if number is not None and number.isascii() and number.isdigit():
        return get_object_or_404(sample.analyses, number=int(number[:9]))
    if number is not None or sample.analysis is None:
        raise Http404("no such analysis")
    return sample.analysis


def told_by(analysis: Analysis) -> tuple[ModelFacts, PatientResult]:
    """The model's card and the result in typed form."""
    return ModelFacts.from_card(analysis.model), result_from_json(analysis.result)


def data() -> DataFolder:
    """The data folder of this installation."""
    folder: DataFolder = settings.DATA
    return folder


def folder_of(analysis: Analysis) -> Path:
    """Where the run lies."""
    return data().root / analysis.folder
