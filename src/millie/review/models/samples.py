"""Samples, their images, and what the model said of them."""

from __future__ import annotations

import secrets
from typing import Any

from django.conf import settings
from django.db import models

_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"  # none that is read for another


def new_pseudonym() -> str:
    """Eight random letters; a digest of a name could be found again by trying names."""
    return "S-" + "".join(secrets.choice(_LETTERS) for _ in range(8))


class Specimen(models.TextChoices):
    """What was put on the slide."""

    BLOOD = "blood", "Peripheral blood"
    MARROW = "marrow", "Bone marrow"
    UNKNOWN = "unknown", "Not stated"


class Sample(models.Model):
    """One patient's images of one day, as they were submitted.

    Attributes:
        pseudonym: its name everywhere; the true one is in :class:`OriginalName` alone.
        submitted_by: user name or name of the machine token.
        analysis: the latest result; None before the first.
        rank: of the state in the worklist, 0 the most urgent; waiting samples have none.
        reviewer: who opened it for review first.
        notes: what the door noticed, one sentence each, for whoever reviews it; no names.
    """

    pseudonym = models.CharField(max_length=16, unique=True, default=new_pseudonym, editable=False)
    specimen = models.CharField(max_length=16, choices=Specimen, default=Specimen.UNKNOWN)
    um_px = models.FloatField(null=True, blank=True)
    submitted_at = models.DateTimeField(auto_now_add=True)
    submitted_by = models.CharField(max_length=150)
    analysis = models.ForeignKey(
        "review.Analysis", models.PROTECT, null=True, blank=True, related_name="+"
    )
    reviewer = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+"
    )
    signed_at = models.DateTimeField(null=True, blank=True)
    notes: models.JSONField[Any, Any] = models.JSONField(default=list)

    class Meta:
        indexes = [models.Index(fields=["signed_at", "submitted_at"])]

    def __str__(self) -> str:
        return self.pseudonym


class OriginalName(models.Model):
    """The only table that links a pseudonym with a name. It leaves the server by no page or API.

    Attributes:
        patient: as the sender named it, or the folder's name.
        images: by SHA-256 the file name that was submitted.
    """

    sample = models.OneToOneField(Sample, models.CASCADE, related_name="original_name")
    patient = models.CharField(max_length=400, blank=True)
    images = models.JSONField(default=dict)


class Image(models.Model):
    """One submitted file; the bytes lie in the data folder under their SHA-256.

    Attributes:
        name: shown instead of the file's name, as ``image-1.jpg``.
    """

    sample = models.ForeignKey(Sample, models.CASCADE, related_name="images")
    position = models.PositiveIntegerField()
    sha256 = models.CharField(max_length=64)
    name = models.CharField(max_length=80)
    n_bytes = models.PositiveBigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["sample", "sha256"], name="one_image_once_in_a_sample"),
            models.UniqueConstraint(fields=["sample", "position"], name="one_image_a_position"),
        ]
        ordering = ["position"]

    def __str__(self) -> str:
        return self.name


class Analysis(models.Model):
    """What one model said of one sample; never changed afterwards.

    Attributes:
        number: 1 for the first of a sample; a new call (after cells were rejected, or by another
            model) is a new analysis.
        state: as in ``predictions.json``; ``rank`` its place in the worklist.
        worry: probability of the class that must not wait, 0 to 1.
        light: ``pass``, ``check`` or ``fail``: the images and cells at a glance.
        model: the card of the bundle, as in ``predictions.json``.
        result: the patient's entry of ``predictions.json``, unchanged.
        folder: of the run, relative to the data folder.
        excluded: indices of cells that were left out, of the analysis ``based_on``.
    """

    sample = models.ForeignKey(Sample, models.CASCADE, related_name="analyses")
    number = models.PositiveIntegerField()
    created = models.DateTimeField(auto_now_add=True)
    state = models.CharField(max_length=80)
    rank = models.PositiveSmallIntegerField()
    label = models.CharField(max_length=80, blank=True)
    worry = models.FloatField()
    n_cells = models.PositiveIntegerField()
    light = models.CharField(max_length=8)
    model_name = models.CharField(max_length=120)
    model_sha256 = models.CharField(max_length=64)
    model: models.JSONField[Any, Any] = models.JSONField()
    result: models.JSONField[Any, Any] = models.JSONField()
    folder = models.CharField(max_length=200)
    based_on = models.ForeignKey("self", models.PROTECT, null=True, blank=True, related_name="+")
    excluded: models.JSONField[Any, Any] = models.JSONField(default=list)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["sample", "number"], name="one_analysis_a_number")
        ]
        ordering = ["number"]

    def __str__(self) -> str:
        return f"{self.sample_id}/{self.number} {self.state}"
