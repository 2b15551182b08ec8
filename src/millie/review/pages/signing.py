"""Sign-off of a sample: blockers, quality to be acknowledged, password, conclusion."""

from __future__ import annotations

from http import HTTPStatus

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from millie.review.cells.blind import call_hidden
from millie.review.diagnoses import DIAGNOSES
from millie.review.models import Sample
from millie.review.pages.lookup import person, sample_of
from millie.review.records import signing
from millie.review.roles import Act, requires
from millie.review.users.logins import confirms


@requires(Act.SIGN)
@require_http_methods(["GET", "POST"])
def sign(request: HttpRequest, pseudonym: str) -> HttpResponse:
    """Show what is to be signed, or sign it."""
    sample = sample_of(pseudonym)
    if request.method == "POST":
        try:
            _sign(request, sample)
        except (signing.NotSignableError, ValidationError) as error:
            told = error.messages[0] if isinstance(error, ValidationError) else str(error)
            messages.error(request, f"Not signed: {told}")
            return _page(request, sample, status=HTTPStatus.CONFLICT)
        messages.success(request, f"{sample.pseudonym} is signed.")
        return redirect("sign", pseudonym=pseudonym)
    return _page(request, sample)


def _sign(request: HttpRequest, sample: Sample) -> None:
    user, form = person(request), request.POST
    if not confirms(request, user, form.get("password", "")):
        raise signing.NotSignableError("the password is wrong")
    signing.sign(
        sample,
        user,
        diagnosis=form.get("diagnosis", ""),
        comment=form.get("comment", ""),
        reason=form.get("reason", ""),
        seen=form.get("seen", ""),
    )


def _page(request: HttpRequest, sample: Sample, status: int = 200) -> HttpResponse:
    signatures = sample.signatures.select_related("user")
    last = signatures.last()
    context = {
        "sample": sample,
        "analysis": sample.analysis,
        "blockers": signing.blockers(sample),
        "acknowledged": sample.analysis and sample.analysis.acknowledgements.select_related("user"),
        "diagnoses": DIAGNOSES,
        "meaning": signing.MEANING,
        "seen": signing.fingerprint(sample) if sample.analysis else "",
        "signatures": [(one, DIAGNOSES[one.diagnosis]) for one in signatures],
        "hidden": call_hidden(person(request), sample),
        "changed": last is not None and not signing.covers(last, sample),
        "entered": request.POST,
    }
    return render(request, "review/sign.html", context, status=status)


@requires(Act.SIGN)
@require_POST
def acknowledge(request: HttpRequest, pseudonym: str) -> HttpResponse:
    """Accept one failed measure of quality."""
    sample = sample_of(pseudonym)
    if sample.analysis is not None:
        try:
            user = person(request)
            signing.acknowledge(sample.analysis, request.POST.get("code", ""), user)
        except signing.NotSignableError as error:
            messages.error(request, str(error))
    return redirect("sign", pseudonym=pseudonym)
