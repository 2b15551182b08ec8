"""What indeterminate results do to the figures: counted as errors, left out, or not given.

Owns the three ways of counting. A cross-validation calls every patient; a prediction gives no call
below ``prediction.min_cells`` cells, and no negative one below ``prediction.min_cells_negative``.
These two gates are applied here to the calls of the study. The other gates (blur, scale, unlike the
training patients) need the images and are not part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millie.config import PredictionConfig
from millie.files import Value
from millie.outputs.study.records import Study
from millie.statistics.rates import Counts, Rate, rate


@dataclass(frozen=True, slots=True)
class Counting:
    """One way of counting indeterminates: its name, and the figures of the positive class."""

    name: str
    n: int
    sensitivity: Rate
    specificity: Rate


@dataclass(frozen=True, slots=True)
class Indeterminates:
    """Figures with and without indeterminate results.

    Attributes:
        min_cells: below it no class is given.
        min_cells_negative: below it no label that means no disease is given.
        negative: those labels, as far as the study has them.
        share: of patients that would be indeterminate; ``share_positive``: of the positive class.
        ways: the three ways of counting.
    """

    min_cells: int
    min_cells_negative: int
    negative: tuple[str, ...]
    share: Rate
    share_positive: Rate
    ways: tuple[Counting, ...]


def indeterminates(study: Study, config: PredictionConfig) -> Indeterminates:
    """Apply the gates on the number of cells to the study's calls."""
    positive = np.array([p.label == study.positive for p in study.patients], bool)
    called = np.array([p.call == study.positive for p in study.patients], bool)
    cells = np.array([p.n_cells for p in study.patients])
    negative = tuple(c for c in study.classes if c.lower() in config.negative_labels)
    healthy = np.array([p.call in negative for p in study.patients], bool)
    unsure = (cells < config.min_cells) | (healthy & (cells < config.min_cells_negative))
    # An error for either class: a positive not called, a negative called.
    worst = np.where(unsure, ~positive, called)
    ways = (
        _counting("all patients called, regardless of cell count", positive, called),
        _counting("indeterminate patients excluded", positive[~unsure], called[~unsure]),
        _counting("indeterminate patients counted as errors", positive, worst),
    )
    return Indeterminates(
        config.min_cells,
        config.min_cells_negative,
        negative,
        rate(int(unsure.sum()), len(unsure)),
        rate(int((unsure & positive).sum()), int(positive.sum())),
        ways,
    )


def _counting(name: str, positive: NDArray[np.bool_], called: NDArray[np.bool_]) -> Counting:
    counts = Counts.of(positive, called)
    return Counting(name, len(positive), counts.sensitivity, counts.specificity)


INDETERMINATE_HEADER = (
    "counting", "n", "sensitivity", "sensitivity_low", "sensitivity_high", "specificity",
    "specificity_low", "specificity_high",
)  # fmt: skip


def indeterminate_rows(found: Indeterminates) -> list[Sequence[Value]]:
    """Rows of ``indeterminates.csv``."""
    return [
        (
            way.name, way.n, way.sensitivity.value, way.sensitivity.low, way.sensitivity.high,
            way.specificity.value, way.specificity.low, way.specificity.high,
        )
        for way in found.ways
    ]  # fmt: skip
