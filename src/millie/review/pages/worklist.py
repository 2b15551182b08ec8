"""The worklist: the most urgent sample first, then who has waited longest."""

from __future__ import annotations

from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from millie.review.models import Sample
from millie.review.roles import Act, requires


@requires(Act.LOOK)
def worklist(request: HttpRequest) -> HttpResponse:
    """Every sample that is not signed."""
    samples = (
        Sample.objects.filter(signed_at=None)
        .select_related("analysis", "reviewer")
        .order_by(F("analysis__rank").asc(nulls_last=True), "submitted_at")
    )
    return render(request, "review/worklist.html", {"samples": samples})
