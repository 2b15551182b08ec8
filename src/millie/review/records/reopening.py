"""A signed sample goes back to the worklist as soon as its signature no longer says what is known.

That is after a new analysis, after a decision on a cell, and where a second review disagrees about
the disease that must not wait: none of these may lie unseen among the signed samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millie.review.records.audit import record

if TYPE_CHECKING:
    from millie.review.models import Sample


def reopen(sample: Sample, why: str) -> None:
    """Put a sample among the open ones again; one that is not signed stays as it is.

    Args:
        sample: locked by the caller's transaction.
        why: ``analysed``, ``decided`` or ``disagreement``, for the audit trail.
    """
    if sample.signed_at is None:
        return
    sample.signed_at = None
    sample.save(update_fields=["signed_at"])
    record("system", "sample.reopened", sample.pseudonym, why=why)
