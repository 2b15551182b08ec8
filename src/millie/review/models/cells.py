"""Cells of an analysis, and what people decided about them."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone

from millie.review.models.samples import Analysis


class Cell(models.Model):
    """One cell of an analysis: place, suggestion, and the decision that holds now.

    Attributes:
        index: in the bag of the analysis.
        image: position of its image in the sample.
        left_px, top_px, width_px, height_px: box in the full-resolution image.
        probabilities: one a class, in the order of the model's labels.
        suggestion: code of the suggested kind, or the likeliest class; empty: none of them.
        certainty: highest probability of a class, 0 to 1.
        strength: contribution to the sample's leading class; 0 where the cell decided nothing.
        flagged: must be seen before signing (it decided the call, or contradicts it).
        decision: code of :data:`millie.review.cell_kinds.KINDS`; empty: none yet.
        version: number of decisions so far; a writer states the version that it saw.
    """

    analysis = models.ForeignKey(Analysis, models.CASCADE, related_name="cells")
    index = models.PositiveIntegerField()
    image = models.PositiveIntegerField()
    left_px = models.IntegerField()
    top_px = models.IntegerField()
    width_px = models.IntegerField()
    height_px = models.IntegerField()
    um_px = models.FloatField(null=True)
    probabilities: models.JSONField[Any, Any] = models.JSONField()
    suggestion = models.CharField(max_length=80)
    certainty = models.FloatField()
    strength = models.FloatField(default=0.0)
    flagged = models.BooleanField(default=False)
    remarks = models.CharField(max_length=200, blank=True)
    decision = models.CharField(max_length=24, blank=True)
    version = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["analysis", "index"], name="one_cell_an_index")
        ]
        ordering = ["index"]

    def __str__(self) -> str:
        return f"cell {self.index}"


class CellDecision(models.Model):
    """One act of a person on one cell; kept for ever, the last of a cell holds.

    Attributes:
        version: 1 for the first of a cell.
        code: the kind; empty: an earlier decision was taken back.
        suggestion: what the model had suggested.
        blind: the person decided before the suggestion was shown.
        carried_from: the decision on the same cell of an earlier analysis that this one repeats;
            None: a person made it here.
    """

    cell = models.ForeignKey(Cell, models.CASCADE, related_name="decisions")
    version = models.PositiveIntegerField()
    code = models.CharField(max_length=24, blank=True)
    suggestion = models.CharField(max_length=80)
    blind = models.BooleanField(default=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    at = models.DateTimeField(default=timezone.now)
    carried_from = models.ForeignKey("self", models.PROTECT, null=True, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["cell", "version"], name="one_decision_a_version")
        ]
        ordering = ["version"]
