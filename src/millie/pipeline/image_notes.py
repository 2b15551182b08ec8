"""What is told of a patient's images that give no cell, or whose scale may be another.

Owns these sentences; which pixels become a cell is :mod:`millie.pipeline.patient`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millie.readers.content import note
from millie.segmentation import is_contradicted
from millie.types import Finding, ImageKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from millie.types import Cell, Detection, Field, Patient, Problem, SourceRecord

FIELD_AFTER_ALL = (
    "as small as a single-cell crop, but its cells say otherwise: read as a field of view"
)
_LEAST_SIDE_UM = 8.0  # of a single-cell crop: less than a small lymphocyte


def why_left_out(cell: Cell, detection: Detection, one: Field) -> str:
    """Why a single-cell crop gives no cell."""
    height, width = one.image.shape[:2]
    if cell.quality > 0:
        return "a smudge cell (crops.keep_smudge=false)"
    if one.pixel_size and (side_um := one.pixel_size.to_um(max(height, width))) < _LEAST_SIDE_UM:
        return f"too small: {width} x {height} px are {side_um:.2g} um, less than a cell"
    if refused := detection.diagnostics.get("refused"):
        return str(refused)
    if detection.regions:
        return "no cell in its middle; if it is a field of view, give kind and um_px in a manifest"
    return f"no cell could be outlined in {width} x {height} px"


def why_empty(patient: Patient, problems: Sequence[Problem]) -> str:
    """Why not one of a patient's images gave a cell."""
    reasons = [f"{p.source}: {p.text}" for p in problems[:5]]
    reasons = reasons or ["no leukocytes found; check with `millie detect --overlay`"]
    images = "1 image" if len(patient.images) == 1 else f"{len(patient.images)} images"
    return f"{patient.id}: no cells in {images} ({'; '.join(reasons)})"


def other_scale(patient: str, over_stated: float | None) -> list[Problem]:
    """A note if red cells contradict the scale that images state.

    Args:
        patient: whose images; empty: they have none.
        over_stated: as in :class:`millie.segmentation.SampleStatistics`.
    """
    if over_stated is None or not is_contradicted(over_stated):
        return []
    text = (
        f"by the red cells a pixel covers {over_stated:.2g} times the um/px that is stated: "
        "correct um_px"
    )
    return [note(patient, "", text, Finding.OTHER_SCALE)]


def doubtful_scales(
    patient: Patient, sources: Iterable[SourceRecord], um_px: float | None
) -> list[Problem]:
    """Notes on fields among single-cell images that have one scale, because the settings say so.

    An overview of the film, taken at a lower magnification, often lies beside the cells; at their
    scale its red cells are taken for leukocytes.

    Args:
        patient: whose images.
        sources: those that gave cells or were searched.
        um_px: ``segmentation.um_px``, which holds for all images that state no scale.
    """
    records = list(sources)
    if um_px is None or all(record.kind is not ImageKind.CELL for record in records):
        return []
    text = (
        f"a field of view among single-cell images, read at the scale that is set for all of them "
        f"({um_px:g} um/px): if it is an overview at another magnification, leave it out, or give "
        "its um_px in a manifest"
    )
    return [
        note(patient.id, record.title, text, Finding.SAME_SCALE)
        for record in records
        if record.kind is ImageKind.FIELD
        and record.um_px == um_px
        and record.diagnostics.get("scale_source") == "given"
    ]
