"""Rows of the database as the API shows them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from django.db.models import OuterRef, Prefetch, Subquery
from django.http import Http404
from ninja.errors import HttpError

from millie.review.api.schemas import Conclusion, SampleOut
from millie.review.models import Job, Sample, Signature

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from millie.review.models import Analysis


def with_all(samples: QuerySet[Sample]) -> QuerySet[Sample]:
    """Samples with what :func:`shown` needs, in a fixed number of queries."""
    return samples.select_related("analysis").prefetch_related(
        "images",
        Prefetch("jobs", Job.objects.order_by("created", "pk")),
        Prefetch("signatures", Signature.objects.order_by("version")),
    )


def with_status(samples: QuerySet[Sample], status: str) -> QuerySet[Sample]:
    """Those whose latest job has a status."""
    latest = Job.objects.filter(sample=OuterRef("pk")).order_by("-created", "-pk")
    return samples.alias(latest=Subquery(latest.values("status")[:1])).filter(latest=status)


def sample_of(pseudonym: str) -> Sample:
    """One sample.

    Raises:
        Http404: there is none.
    """
    found = with_all(Sample.objects.filter(pseudonym=pseudonym)).first()
    if found is None:
        raise Http404("no sample of that name")
    return found


def analysis_of(sample: Sample) -> Analysis:
    """Its latest analysis.

    Raises:
        HttpError: 409, it has none yet.
    """
    if sample.analysis is None:
        raise HttpError(409, "there is no result yet: poll the sample until it is done or failed")
    return sample.analysis


def shown(sample: Sample) -> SampleOut:
    """A sample as it is shown."""
    jobs, signatures = list(sample.jobs.all()), list(sample.signatures.all())
    job = jobs[-1] if jobs else None
    analysis = sample.analysis
    return SampleOut.model_validate(
        {
            "id": sample.pseudonym,
            "specimen": sample.specimen,
            "um_px": sample.um_px,
            "submitted_at": sample.submitted_at,
            "n_images": len(sample.images.all()),
            "notes": sample.notes,
            "status": job.status if job else "done",
            "step": job.step if job else "",
            "done": job.done if job else 0,
            "total": job.total if job else 0,
            "error": job.error if job and job.status == "failed" else "",
            "state": analysis.state if analysis else None,
            "n_cells": analysis.n_cells if analysis else None,
            "analysis": analysis.number if analysis else None,
            "conclusion": _conclusion(sample, signatures[-1]) if signatures else None,
        }
    )


def _conclusion(sample: Sample, signature: Signature) -> Conclusion:
    return Conclusion(
        diagnosis=signature.diagnosis, version=signature.version, signed_at=signature.at,
        holds=sample.signed_at is not None,
    )  # fmt: skip


def paged(page: int, per_page: int, total: int) -> dict[str, Any]:
    """Where a page stands in its list."""
    return {"page": page, "pages": max(1, math.ceil(total / per_page)), "total": total}
