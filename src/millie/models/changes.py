"""What has changed from one version of a model to the next.

Owns the list of differences and the digit of the version that each needs; the digits' meaning is in
:mod:`millie.models.versions`. Whether the new one calls as well is measured, not read off here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from millie.config import Config
from millie.models.manifest import CARD, REFERENCE, WEIGHTS, Manifest
from millie.models.versions import Digit

Stated = tuple[Manifest, Config]
"""A model without its weights: what it states, and its settings."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two models, and the digit that it needs."""

    digit: Digit
    what: str


def changes(old: Stated, new: Stated) -> tuple[Change, ...]:
    """Every difference of two models that their versions have to tell, the gravest first.

    Other patients, specimens or purposes in the text of the card are an intended use too (MAJOR);
    no program reads that out of a text, so it counts as text here.
    """
    found = [*_of_meaning(old, new), *_of_calls(old, new), *_of_text(old[0], new[0])]
    return tuple(sorted(found, key=lambda change: -change.digit))


def _of_meaning(old: Stated, new: Stated) -> Iterator[Change]:
    (stated, before), (states, after) = old, new
    if set(stated.labels) != set(states.labels):
        told = f"{', '.join(stated.labels)} -> {', '.join(states.labels)}"
        yield Change(Digit.MAJOR, f"labels: {told}")
    if stated.positive != states.positive:
        told = f"{stated.positive} -> {states.positive}"
        yield Change(Digit.MAJOR, f"class of the threshold: {told}")
    if before.prediction.negative_labels != after.prediction.negative_labels:
        yield Change(Digit.MAJOR, "labels that mean no disease")
    for stage in ("reading", "segmentation", "crops"):
        if before.digest(stage) != after.digest(stage):
            yield Change(Digit.MAJOR, f"preparation of the images: settings of '{stage}'")
    if before.model.background != after.model.background:
        yield Change(Digit.MAJOR, "preparation of the images: model.background")


def _of_calls(old: Stated, new: Stated) -> Iterator[Change]:
    (stated, before), (states, after) = old, new
    if stated.encoder != states.encoder:
        yield Change(Digit.MINOR, f"encoder: {stated.encoder.name} -> {states.encoder.name}"
                     if stated.encoder.name != states.encoder.name
                     else "weights of the encoder")  # fmt: skip
    for file, what in ((WEIGHTS, "weights"), (REFERENCE, "reference")):
        if stated.files.get(file) != states.files.get(file):
            yield Change(Digit.MINOR, f"{what} ({file})")
    for field in ("threshold", "temperature"):
        if getattr(stated, field) != getattr(states, field):
            told = f"{getattr(stated, field):.4g} -> {getattr(states, field):.4g}"
            yield Change(Digit.MINOR, f"{field}: {told}")
    if stated.qc != states.qc:
        yield Change(Digit.MINOR, "limits of the gates")
    aside = {"negative_labels"}
    if before.prediction.model_dump(exclude=aside) != after.prediction.model_dump(exclude=aside):
        yield Change(Digit.MINOR, "limits of calls: settings of 'prediction'")


def _of_text(old: Manifest, new: Manifest) -> Iterator[Change]:
    if old.files[CARD] != new.files[CARD]:
        yield Change(Digit.PATCH, "model card (another intended use in it needs MAJOR)")
    for field in ("name", "provenance", "requires_millie"):
        if getattr(old, field) != getattr(new, field):
            yield Change(Digit.PATCH, field)
