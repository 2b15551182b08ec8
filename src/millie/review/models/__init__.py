"""Tables of the review app, by subject."""

from millie.review.models.audit import AuditEvent
from millie.review.models.cells import Cell, CellDecision
from millie.review.models.intake import (
    ApiToken,
    IdempotencyKey,
    Job,
    JobStatus,
    WatchedItem,
    Worker,
)
from millie.review.models.records import (
    Escalation,
    QualityAcknowledgement,
    SecondReview,
    Signature,
)
from millie.review.models.samples import Analysis, Image, OriginalName, Sample, Specimen
from millie.review.models.users import LoginFailure, Preference

__all__ = [
    "Analysis", "ApiToken", "AuditEvent", "Cell", "CellDecision", "Escalation", "IdempotencyKey",
    "Image", "Job", "JobStatus", "LoginFailure", "OriginalName", "Preference",
    "QualityAcknowledgement", "Sample", "SecondReview", "Signature", "Specimen",
    "WatchedItem", "Worker",
]  # fmt: skip
