"""The audit trail: a chain of events, each holding the digest of the one before."""

from __future__ import annotations

from typing import Any

from django.db import models


class AuditEvent(models.Model):
    """One thing that happened; a trigger of the database refuses to change or remove it.

    Attributes:
        number: 1, 2, 3, ... without a gap.
        at: ISO 8601 in UTC, as it was hashed.
        actor: user name, or ``token:NAME``, or ``system``.
        action: as ``cell.decided``.
        subject: what it was done to, as a sample's pseudonym.
        details: JSON in canonical form, as it was hashed.
        previous: digest of the event before; the first has 64 zeros.
        digest: SHA-256 over all of the above.
    """

    number = models.PositiveBigIntegerField(unique=True)
    at = models.CharField(max_length=40)
    actor = models.CharField(max_length=160)
    action = models.CharField(max_length=40)
    subject = models.CharField(max_length=160, blank=True)
    details: models.TextField[Any, Any] = models.TextField()
    previous = models.CharField(max_length=64)
    digest = models.CharField(max_length=64, unique=True)

    class Meta:
        ordering = ["number"]

    def __str__(self) -> str:
        return f"{self.number} {self.action} {self.subject}"
