"""Signing a sample: what must be done before, what is signed, and what a signature sets off.

The record that is signed holds the analysis, every decision about its cells and the conclusion, in
canonical JSON; its SHA-256 stands beside the signature. An amendment is a further version with a
reason, as 21 CFR 11.10(e) asks of a change: the earlier one stays readable.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.db import transaction

from millie import __version__
from millie.outputs.patient.quality import measure_title
from millie.outputs.patient.states import is_urgent, words_for
from millie.review.diagnoses import DIAGNOSES, URGENT
from millie.review.models import (
    Analysis,
    QualityAcknowledgement,
    Sample,
    SecondReview,
    Signature,
)
from millie.review.records.audit import canonical, record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.contrib.auth.models import User

MEANING = "I have reviewed this sample and am responsible for this conclusion."
RANDOM_SHARE = 0.05
"""Of the samples without a signal, how many get a second review by chance."""

SUSPECT, DISAGREEMENT, RANDOM = "suspect", "disagreement", "random"


class NotSignableError(Exception):
    """What was to be signed cannot be, or is no longer what was shown."""


@dataclass(frozen=True, slots=True)
class Blocker:
    """Something to be done before signing.

    Attributes:
        code: ``analysis``, ``cells``, ``escalation`` or ``quality``.
        text: what is to be done.
        measure: of a failed quality measure its name.
    """

    code: str
    text: str
    measure: str = ""


def blockers(sample: Sample) -> list[Blocker]:
    """What keeps a sample from being signed, in the order in which it is best done."""
    analysis = sample.analysis
    if analysis is None:
        return [Blocker("analysis", "The sample has not been analysed.")]
    found = []
    if any(map(is_urgent, states_of(sample))) and not sample.escalations.exists():
        found.append(
            Blocker("escalation", "The sample is or was urgent: log the call to the clinician.")
        )
    if left := analysis.cells.filter(flagged=True, decision="").count():
        cells = "1 cell that decided the call is" if left == 1 else (
            f"{left} cells that decided the call are"
        )  # fmt: skip
        found.append(Blocker("cells", f"{cells} not reviewed."))
    found += [
        Blocker("quality", f"{measure_title(name)} is beyond its limit: acknowledge it.", name)
        for name in unacknowledged(analysis)
    ]
    return found


def unacknowledged(analysis: Analysis) -> list[str]:
    """Names of the failed quality measures that nobody has accepted yet."""
    accepted = set(analysis.acknowledgements.values_list("code", flat=True))
    failed = [measure["name"] for measure in analysis.result["quality"] if not measure["passed"]]
    return [name for name in failed if name not in accepted]


def acknowledge(analysis: Analysis, code: str, user: User) -> None:
    """A person accepts a failed measure of quality; a second time changes nothing.

    Raises:
        NotSignableError: no failed measure of this analysis has that name.
    """
    with transaction.atomic():
        _locked(analysis.sample)
        if code not in unacknowledged(analysis):
            if analysis.acknowledgements.filter(code=code).exists():
                return
            raise NotSignableError(f"'{code}' is no failed measure of this analysis")
        QualityAcknowledgement.objects.create(analysis=analysis, code=code, user=user)
        record(user.username, "quality.acknowledged", analysis.sample.pseudonym, measure=code)


def sign(
    sample: Sample, user: User, *, diagnosis: str, comment: str, reason: str, seen: str
) -> Signature:
    """Sign a sample, or amend its last signature.

    Args:
        sample: whose latest analysis and decisions are signed.
        user: who signs; the password was asked by the caller.
        diagnosis: code of :data:`millie.review.diagnoses.DIAGNOSES`.
        comment: free text without personal data.
        reason: why an earlier signature is amended; empty for the first.
        seen: :func:`fingerprint` of what the page showed.

    Raises:
        NotSignableError: something blocks it, the page was out of date, or an amendment has no
            reason.
    """
    if diagnosis not in DIAGNOSES:
        raise NotSignableError("choose a conclusion")
    if diagnosis == "other" and not comment.strip():
        raise NotSignableError("another finding needs a comment that names it")
    with transaction.atomic():
        sample = _locked(sample)
        left = blockers(sample)
        if left or sample.analysis is None:
            raise NotSignableError(left[0].text)
        if seen != fingerprint(sample):
            raise NotSignableError(
                "the sample has changed since this page was opened: look at it again, then sign"
            )
        version = sample.signatures.count() + 1
        if version > 1 and not reason.strip():
            raise NotSignableError("say why the earlier conclusion is amended")
        signature = _signed(
            sample, sample.analysis, user, version, diagnosis, comment.strip(), reason.strip()
        )
        sample.signed_at = signature.at
        sample.save(update_fields=["signed_at"])
        _second_review(sample, signature)
    return signature


def _signed(
    sample: Sample, analysis: Analysis, user: User, version: int, diagnosis: str, comment: str,
    reason: str,
) -> Signature:  # fmt: skip
    at = datetime.now(UTC)
    text = canonical(
        content(sample)
        | {
            "version": version, "diagnosis": diagnosis, "comment": comment, "reason": reason,
            "meaning": MEANING, "signed_by": user.username, "signed_at": at.isoformat(),
        }
    )  # fmt: skip
    digest = hashlib.sha256(text.encode()).hexdigest()
    record(
        user.username, "sample.signed" if version == 1 else "sample.amended", sample.pseudonym,
        version=version, diagnosis=diagnosis, record_sha256=digest,
    )  # fmt: skip
    return Signature.objects.create(
        sample=sample, analysis=analysis, version=version, diagnosis=diagnosis,
        comment=comment, reason=reason, meaning=MEANING, user=user, at=at, record=text,
        record_sha256=digest,
    )  # fmt: skip


def content(sample: Sample) -> dict[str, Any]:
    """Everything about a sample that a signature covers, but for the conclusion itself.

    Raises:
        NotSignableError: it has not been analysed.
    """
    analysis = sample.analysis
    if analysis is None:
        raise NotSignableError("the sample has not been analysed")
    return {
        "schema": 1,
        "sample": sample.pseudonym,
        "software": __version__,
        "analysis": analysis.number,
        "state": analysis.state,
        "probabilities": analysis.result["probabilities"],
        "model": analysis.model_name,
        "model_sha256": analysis.model_sha256,
        "images": list(sample.images.values_list("sha256", flat=True)),
        "excluded_cells": analysis.excluded,
        "decisions": [
            list(row)
            for row in analysis.cells.exclude(version=0).values_list(
                "index", "suggestion", "decision", "version"
            )
        ],
        "acknowledged": sorted(analysis.acknowledgements.values_list("code", flat=True)),
    }


def fingerprint(sample: Sample) -> str:
    """SHA-256 of what would be signed now, but for the conclusion."""
    return hashlib.sha256(canonical(content(sample)).encode()).hexdigest()


def _locked(sample: Sample) -> Sample:
    """The sample as it is now, kept from others until the transaction ends."""
    # Without the joins: PostgreSQL cannot lock the empty side of an outer join.
    return Sample.objects.select_for_update().get(pk=sample.pk)


def _second_review(sample: Sample, signature: Signature) -> None:
    """Open a second review where the rules ask for one; it takes the place of one that waits."""
    for replaced in sample.second_reviews.filter(diagnosis=""):
        record("system", "second_review.replaced", sample.pseudonym, cause=replaced.cause)
        replaced.delete()
    if cause := second_review_cause(states_of(sample), signature.diagnosis):
        SecondReview.objects.create(sample=sample, signature=signature, cause=cause)
        record("system", "second_review.opened", sample.pseudonym, cause=cause)


def states_of(sample: Sample) -> list[str]:
    """States of all analyses, the latest last: what was suspected once is not taken back unseen."""
    return list(sample.analyses.order_by("number").values_list("state", flat=True))


def second_review_cause(states: Sequence[str], diagnosis: str) -> str:
    """Why a signed sample needs a second person; empty: it does not.

    Args:
        states: of its analyses, the latest last.
        diagnosis: what was signed.

    Every suspicion of the urgent disease, every disagreement about it between person and program,
    and by chance a share of the samples in which neither saw anything.
    """
    suspected = any(words_for(state).rank == 0 for state in states)
    concluded = diagnosis == URGENT
    if suspected and concluded:
        return SUSPECT
    if suspected or (concluded and not is_urgent(states[-1])):
        return DISAGREEMENT
    if concluded:
        return SUSPECT
    chance = secrets.SystemRandom().random() < RANDOM_SHARE
    return RANDOM if states[-1] == "NO_SIGNAL" and chance else ""


def covers(signature: Signature, sample: Sample) -> bool:
    """Whether nothing about the sample has changed since it was signed."""
    signed = json.loads(signature.record)
    now = content(sample) | {"software": signed["software"]}
    return bool({key: signed[key] for key in now} == json.loads(canonical(now)))
