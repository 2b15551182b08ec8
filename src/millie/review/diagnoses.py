"""The conclusions that a person can sign; ``millie evaluate --decisions`` takes them as labels."""

from __future__ import annotations

DIAGNOSES = {
    "APL": "Acute promyelocytic leukaemia suspected",
    "AML": "Acute myeloid leukaemia suspected, not APL",
    "ALL": "Acute lymphoblastic leukaemia suspected",
    "leukaemia": "Acute leukaemia suspected, lineage open",
    "normal": "No sign of acute leukaemia in these images",
    "other": "Another finding, see the comment",
    "insufficient": "Cannot be assessed: repeat the film",
}
LABELS = ("APL", "AML", "ALL", "normal")
"""Conclusions that are classes of a model."""
URGENT = "APL"
