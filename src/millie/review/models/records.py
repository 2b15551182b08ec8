"""What people sign and log: signatures, second reviews, calls made, quality acknowledged."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models

from millie.review.models.samples import Analysis, Sample


class QualityAcknowledgement(models.Model):
    """A failed measure of quality that a person has seen and accepts for this analysis."""

    analysis = models.ForeignKey(Analysis, models.CASCADE, related_name="acknowledgements")
    code = models.CharField(max_length=80)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["analysis", "code"], name="acknowledged_once")
        ]


class Signature(models.Model):
    """A person's signed conclusion; an amendment is a further version, nothing is replaced.

    Attributes:
        diagnosis: code of :data:`millie.review.diagnoses.DIAGNOSES`.
        meaning: of the signature, in words, as it was shown.
        record: all that was signed, JSON in canonical form (RFC 8785 order of keys).
        record_sha256: of that text.
    """

    sample = models.ForeignKey(Sample, models.PROTECT, related_name="signatures")
    analysis = models.ForeignKey(Analysis, models.PROTECT, related_name="signatures")
    version = models.PositiveIntegerField()
    diagnosis = models.CharField(max_length=24)
    comment = models.TextField(blank=True)
    reason = models.TextField(blank=True)
    meaning = models.CharField(max_length=200)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    at = models.DateTimeField()
    record: models.TextField[Any, Any] = models.TextField()
    record_sha256 = models.CharField(max_length=64)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["sample", "version"], name="one_signature_a_version")
        ]
        ordering = ["version"]


class SecondReview(models.Model):
    """A second person's conclusion, given without the first one's.

    Attributes:
        cause: ``suspect``, ``disagreement`` or ``random``.
        diagnosis: empty while it waits.
    """

    sample = models.ForeignKey(Sample, models.PROTECT, related_name="second_reviews")
    signature = models.ForeignKey(Signature, models.PROTECT, related_name="second_reviews")
    cause = models.CharField(max_length=16)
    opened_at = models.DateTimeField(auto_now_add=True)
    diagnosis = models.CharField(max_length=24, blank=True)
    comment = models.TextField(blank=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["signature"], name="one_second_review_a_signature")
        ]
        ordering = ["opened_at"]


class Escalation(models.Model):
    """A call to a clinician about an urgent sample: who, when, and whether it was read back."""

    sample = models.ForeignKey(Sample, models.PROTECT, related_name="escalations")
    called = models.CharField(max_length=200)
    called_at = models.DateTimeField()
    read_back = models.BooleanField(default=False)
    note = models.TextField(blank=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["called_at"]
