"""Blind-first work: what a person must not see before having decided alone.

For studies of readers, and for second reviews. Of a cell the suggestion is hidden until the person
has decided on it, of a sample the call until the person has signed it or given the second review.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millie.review.models import CellDecision, Preference, SecondReview, Signature
from millie.review.records.second_reviews import waiting_for
from millie.review.roles import Act, may

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from millie.review.models import Analysis, Sample


def is_blind(user: User) -> bool:
    """Whether a person works blind-first."""
    return Preference.objects.filter(user=user, blind_first=True).exists()


def seen_by(user: User, analysis: Analysis) -> set[int]:
    """Indices of the cells whose suggestion a blind-first reader has earned to see."""
    decided = CellDecision.objects.filter(cell__analysis=analysis, user=user)
    return set(decided.values_list("cell__index", flat=True))


def call_hidden(user: User, sample: Sample) -> bool:
    """Whether the call of a sample is not to be shown to a person yet.

    Nor to somebody whom its second review waits for, blind-first or not.
    """
    if sample.pk in second_for(user):
        return True
    return is_blind(user) and sample.pk not in concluded_by(user)


def second_for(user: User) -> set[int]:
    """Keys of the samples whose second review waits for a person."""
    if not may(user, Act.SECOND_REVIEW):
        return set()
    return set(waiting_for(user).values_list("sample_id", flat=True))


def concluded_by(user: User) -> set[int]:
    """Keys of the samples on which a person has come to a conclusion."""
    signed = Signature.objects.filter(user=user).values_list("sample_id", flat=True)
    second = SecondReview.objects.filter(user=user).exclude(diagnosis="")
    return {*signed, *second.values_list("sample_id", flat=True)}
