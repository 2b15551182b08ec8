"""The second person's conclusion, given without the first one's and without the program's call."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from django.db import transaction

from millie.review.diagnoses import DIAGNOSES, URGENT
from millie.review.models import Sample, SecondReview
from millie.review.records.audit import record
from millie.review.records.reopening import reopen
from millie.review.records.signing import NotSignableError

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.db.models import QuerySet


def waiting_for(user: User) -> QuerySet[SecondReview]:
    """Second reviews that this user may give: of samples that others signed."""
    return (
        SecondReview.objects.filter(diagnosis="")
        .exclude(sample__signatures__user=user)
        .exclude(sample__analyses__cells__decisions__user=user)
        .select_related("sample")
        .distinct()
    )


def conclude(review: SecondReview, user: User, diagnosis: str, comment: str) -> SecondReview:
    """Store the second conclusion.

    Raises:
        NotSignableError: no such conclusion, somebody else was faster, or the user has already
            worked on the sample.
    """
    if diagnosis not in DIAGNOSES:
        raise NotSignableError("choose a conclusion")
    with transaction.atomic():
        review = SecondReview.objects.select_for_update().get(pk=review.pk)
        if review.diagnosis:
            raise NotSignableError("another person has already given this second review")
        if not waiting_for(user).filter(pk=review.pk).exists():
            raise NotSignableError("a second review is given by somebody who has not yet seen it")
        review.diagnosis, review.comment = diagnosis, comment.strip()
        review.user, review.at = user, datetime.now(UTC)
        review.save()
        record(
            user.username, "second_review.given", review.sample.pseudonym, diagnosis=diagnosis,
            agrees=agrees(review),
        )  # fmt: skip
        if (review.diagnosis == URGENT) != (review.signature.diagnosis == URGENT):
            reopen(Sample.objects.select_for_update().get(pk=review.sample_id), "disagreement")
    return review


def agrees(review: SecondReview) -> bool:
    """Whether both persons came to the same conclusion."""
    return review.diagnosis == review.signature.diagnosis
