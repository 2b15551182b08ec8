"""Second reviews: the cells and images of a sample, without the call and the first conclusion."""

from __future__ import annotations

from http import HTTPStatus

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from millie.review.diagnoses import DIAGNOSES
from millie.review.models import SecondReview
from millie.review.pages.lookup import person
from millie.review.records.second_reviews import agrees, conclude, waiting_for
from millie.review.records.signing import NotSignableError
from millie.review.roles import Act, requires


@requires(Act.SECOND_REVIEW)
def second_reviews(request: HttpRequest) -> HttpResponse:
    """What waits for this user, and what was concluded."""
    given = (
        SecondReview.objects.exclude(diagnosis="")
        .select_related("sample", "signature", "user", "signature__user")
        .order_by("-at")[:100]
    )
    waiting = waiting_for(person(request))
    context = {
        "waiting": waiting,
        "others": SecondReview.objects.filter(diagnosis="").count() - waiting.count(),
        "given": [(one, agrees(one)) for one in given],
    }
    return render(request, "review/second_reviews.html", context)


@requires(Act.SECOND_REVIEW)
@require_http_methods(["GET", "POST"])
def second_review(request: HttpRequest, pseudonym: str) -> HttpResponse:
    """One sample, blinded; or the conclusion about it.

    Raises:
        Http404: nothing waits for this user there.
    """
    user = person(request)
    review = get_object_or_404(SecondReview, sample__pseudonym=pseudonym, diagnosis="")
    if not waiting_for(user).filter(pk=review.pk).exists():
        raise Http404("no second review of this sample waits for you")
    if request.method == "POST":
        try:
            conclude(
                review, user, request.POST.get("diagnosis", ""), request.POST.get("comment", "")
            )
        except NotSignableError as error:
            messages.error(request, f"Not stored: {error}")
        else:
            messages.success(request, f"The second review of {pseudonym} is stored.")
            return redirect("second_reviews")
    status = HTTPStatus.CONFLICT if request.method == "POST" else 200
    cells = review.signature.analysis.cells.order_by("image", "index")
    context = {
        "review": review, "sample": review.sample, "cells": cells, "diagnoses": DIAGNOSES,
        "entered": request.POST, "analysis": review.signature.analysis,
    }  # fmt: skip
    return render(request, "review/second_review.html", context, status=status)
