"""Writing the audit trail, and finding any tampering with it.

Each event holds the SHA-256 over its own content and the digest of the event before, as in a
transparency log: who changes, removes or inserts one must rewrite all later ones, and the last
digest that somebody has noted elsewhere no longer fits.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction

from millie.review.models import AuditEvent

FIRST = "0" * 64
_LOCK = 0x6D696C6C6965  # "millie": key of the advisory lock under which the chain grows


def record(actor: str, action: str, subject: str = "", **details: Any) -> AuditEvent:
    """Append an event, in the transaction of what it tells of: both are kept or neither.

    Args:
        actor: user name, ``token:NAME`` or ``system``.
        action: as ``cell.decided``.
        subject: a sample's pseudonym, a user, ...
        details: JSON-able; no names of patients or files.
    """
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        last = AuditEvent.objects.order_by("-number").first()
        event = AuditEvent(
            number=last.number + 1 if last else 1,
            at=datetime.now(UTC).isoformat(timespec="microseconds"),
            actor=actor,
            action=action,
            subject=subject,
            details=canonical(details),
            previous=last.digest if last else FIRST,
        )
        event.digest = digest_of(event)
        event.save(force_insert=True)
    return event


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: the same content is always the same text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(event: AuditEvent) -> str:
    """SHA-256 over an event's content, as hexadecimal digits."""
    content = [event.number, event.at, event.actor, event.action, event.subject, event.details,
        event.previous]  # fmt: skip
    return hashlib.sha256(canonical(content).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What :func:`verify` found.

    Attributes:
        n_events: in the trail.
        last: digest of the last event; noted elsewhere, it proves later that none was removed.
        faults: sentences, each naming an event; empty where the trail is whole.
    """

    n_events: int
    last: str
    faults: tuple[str, ...]


def verify(noted: str = "") -> Verdict:
    """Walk the whole trail and compare every digest.

    Args:
        noted: the last digest of an earlier check; it must still be part of the trail.
    """
    faults: list[str] = []
    previous, expected, seen = FIRST, 1, noted in {"", FIRST}
    for event in AuditEvent.objects.order_by("number").iterator(chunk_size=2000):
        if event.number != expected:
            faults.append(f"event {expected} is missing: the next one is {event.number}")
        if event.previous != previous:
            faults.append(f"event {event.number} does not follow the one before it")
        if event.digest != digest_of(event):
            faults.append(f"event {event.number} ({event.action}) was changed")
        seen = seen or event.digest == noted
        previous, expected = event.digest, event.number + 1
    if not seen:
        faults.append("the digest that was noted before is not in the trail: events were removed")
    return Verdict(expected - 1, previous, tuple(faults))
