"""The measured qualities of a sample in words, for pages.

Owns names and number formats; what is measured and its limits come from the prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millie.types import Measure

_SHARE, _NUMBER, _WHOLE = "{:.1%}", "{:.3f}", "{:,.0f}"
_MEASURE_WORDS = {
    "usable_cells": ("Usable cells", _WHOLE),
    "smudge_fraction": ("Smudge cells", _SHARE),
    "sharpness": ("Sharpness, median cell", "{:.4f}"),
    "sharpness_low": ("Sharpness, lower quartile of cells", "{:.4f}"),
    "background": ("Brightness of the background", _SHARE),
    "clipped_fraction": ("Cell pixels lost in white or black", _SHARE),
    "stain": ("Stain of nuclei, optical density", _NUMBER),
    "saturation": ("Saturation of the cells' colours", _SHARE),
    "cell_fraction": ("Size of the cells, share of the crop", _SHARE),
    "distance": ("Distance from the training patients", _NUMBER),
    "border_fraction": ("Cells cut by the image's edge", _SHARE),
    "touching_fraction": ("Cells touching another one", _SHARE),
    "unoutlined_fraction": ("Cells without an outline", _SHARE),
    "cells_per_field": ("Cells in a field of view", "{:.1f}"),
    "copies": ("Images that repeat others", _WHOLE),
    "unused_files": ("Files that could not be used", _WHOLE),
}


@dataclass(frozen=True, slots=True)
class QualityRow:
    """A measured quality in words; ``limit`` is empty where the model states none."""

    name: str
    value: str
    limit: str
    passed: bool


def quality_rows(measures: Sequence[Measure]) -> list[QualityRow]:
    """The measured qualities in words: those with a limit first, even if they have no value."""
    rows = [_quality_row(measure) for measure in measures]
    limited = [row for row in rows if row.limit]
    return limited + [
        row
        for row, measure in zip(rows, measures, strict=True)
        if not row.limit and measure.value is not None
    ]


def _quality_row(measure: Measure) -> QualityRow:
    _, form = _words_of(measure.name)
    ends = [("at least", measure.low), ("at most", measure.high)]
    limits = [f"{side} {form.format(end)}" for side, end in ends if end is not None]
    value = "not measured" if measure.value is None else form.format(measure.value)
    return QualityRow(measure_title(measure.name), value, ", ".join(limits), measure.passed)


def measure_title(name: str) -> str:
    """What a measure is called on pages."""
    return _words_of(name)[0]


def _words_of(name: str) -> tuple[str, str]:
    return _MEASURE_WORDS.get(name, (name.replace("_", " "), "{:.3g}"))
