"""From probabilities to a state: gates that can only move a sample towards a person.

A gate compares a measured quality of the sample with a limit that the bundle states (``qc`` in its
manifest) or that the configuration sets. One failed gate and no class is called; if the class that
must not wait scores high all the same, the state is urgent. This module owns the measures, the
limits and the states; it computes no features.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from millie.bags.store import BagReader
from millie.config import PredictionConfig
from millie.errors import BundleError, ConfigError
from millie.types import Cell

NO_SIGNAL = "NO_SIGNAL"
INDETERMINATE = "INDETERMINATE"
URGENT = "URGENT_INDETERMINATE"

_URGENT_LABEL = "APL"
_DEFAULT_LIMITS = {"max_smudge_fraction": 0.5}
_LIMITS = frozenset({
    "min_cells", "min_cells_negative", "max_smudge_fraction", "min_sharpness",
    "min_cell_fraction", "max_cell_fraction", "max_distance", "urgent_probability",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class SampleQuality:
    """What the gates look at.

    Attributes:
        n_cells: cells in the bag.
        n_usable: of them with a quality above 0.
        smudge_fraction: share of smudge cells, 0 to 1.
        sharpness: median over cells of the variance of the Laplacian by the variance of the green
            channel; falls with blur, does not depend on the strength of the stain.
        cell_fraction: median share of the crop that the cell covers, 0 to 1; quarters when the
            magnification is half of what it is taken for. NaN where no cell has a mask.
        distance: of the bag's mean features from the training patients, see
            :func:`reference_distance`; None: the bundle has no reference.
    """

    n_cells: int
    n_usable: int
    smudge_fraction: float
    sharpness: float
    cell_fraction: float
    distance: float | None = None


class QualityMeter:
    """Measures a bag that streams past.

    Args:
        cells: of the bag.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._cells = cells
        self._sharpness: list[NDArray[np.float64]] = []
        self._cover: list[NDArray[np.float64]] = []

    def add(self, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> None:
        """Take the next crops (n, S, S, 3) and their masks (n, S, S)."""
        self._sharpness.append(crop_sharpness(images))
        self._cover.append((masks > 0).mean(axis=(1, 2)))

    def result(self, distance: float | None = None) -> SampleQuality:
        """The bag's quality, once all cells have passed.

        Args:
            distance: of its mean features from the training patients, if known.
        """
        cover = np.concatenate([np.zeros(0), *self._cover])
        sharpness = np.concatenate([np.zeros(0), *self._sharpness])
        count = len(self._cells)
        return SampleQuality(
            n_cells=count,
            n_usable=sum(cell.quality > 0 for cell in self._cells),
            smudge_fraction=sum(cell.smudge for cell in self._cells) / max(count, 1),
            sharpness=float(np.median(sharpness)) if count else float("nan"),
            cell_fraction=float(np.median(cover[cover > 0])) if cover.any() else float("nan"),
            distance=distance,
        )


def measure_bag(reader: BagReader, batch_size: int = 64) -> SampleQuality:
    """The quality of a bag by itself, without features; for the limits of a new bundle."""
    meter = QualityMeter(reader.cells)
    for start in range(0, reader.n_cells, batch_size):
        stop = start + batch_size
        meter.add(reader.images(start, stop), reader.masks(start, stop))
    return meter.result()


def crop_sharpness(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Variance of the Laplacian by the variance of the green channel, for each of (n, S, S, 3)."""
    green = images[..., 1].astype(np.float32)
    centre = green[:, 1:-1, 1:-1]
    laplacian = (
        green[:, :-2, 1:-1] + green[:, 2:, 1:-1] + green[:, 1:-1, :-2] + green[:, 1:-1, 2:]
    ) - 4 * centre
    variance = centre.var(axis=(1, 2), dtype=np.float64)
    detail = laplacian.var(axis=(1, 2), dtype=np.float64)
    ratio: NDArray[np.float64] = np.zeros_like(detail)
    np.divide(detail, variance, out=ratio, where=variance > 0)
    return ratio


def quality_limits(samples: Sequence[SampleQuality]) -> dict[str, float]:
    """Limits for a new bundle from the qualities of its training patients.

    All training patients lie within them, with a margin: half the lowest sharpness, and a factor
    of 1.5 on either side of the cells' share of the crop.

    Raises:
        ConfigError: no sample.
    """
    if not samples:
        raise ConfigError("quality limits need at least one training sample")
    covers = [s.cell_fraction for s in samples if np.isfinite(s.cell_fraction)]
    smudge = [_DEFAULT_LIMITS["max_smudge_fraction"], *(s.smudge_fraction for s in samples)]
    limits = {
        "min_sharpness": 0.5 * min(s.sharpness for s in samples),
        "max_smudge_fraction": max(smudge),
    }
    if covers:
        limits["min_cell_fraction"] = min(covers) / 1.5
        limits["max_cell_fraction"] = min(1.0, max(covers) * 1.5)
    return limits


def reference_features(means: Tensor) -> dict[str, Tensor]:
    """What a bundle keeps of its training patients to know a foreign sample.

    Args:
        means: (P, D), mean features of each training patient; P >= 3.

    Returns:
        ``mean`` and ``std`` (D,) over patients, and ``distances`` (P,), each patient's distance
        from the others.

    Raises:
        ConfigError: fewer than three patients.
    """
    if len(means) < 3:
        raise ConfigError(f"reference of {len(means)} patients: expected at least 3")
    means = means.double()
    distances = [
        _distance(means[i], others.mean(dim=0), _spread(others))
        for i in range(len(means))
        for others in [torch.cat([means[:i], means[i + 1 :]])]
    ]
    return {
        "mean": means.mean(dim=0).float(),
        "std": _spread(means).float(),
        "distances": torch.tensor(distances, dtype=torch.float32),
    }


def reference_distance(reference: Mapping[str, Tensor], mean: Tensor) -> float | None:
    """Distance of a bag's mean features (D,) from the training patients.

    The root mean square over features, in standard deviations between patients; 1 is ordinary.

    Returns:
        None if the bundle keeps no reference.
    """
    if not reference:
        return None
    return _distance(mean.double(), reference["mean"].double(), reference["std"].double())


def distance_limit(reference: Mapping[str, Tensor]) -> float:
    """A quarter beyond the farthest training patient."""
    return 1.25 * float(reference["distances"].max())


def failed_gates(
    quality: SampleQuality,
    limits: Mapping[str, float],
    config: PredictionConfig,
    reference: Mapping[str, Tensor] | None = None,
) -> tuple[str, ...]:
    """Why no class may be called; empty if all gates are passed.

    Args:
        quality: of the sample.
        limits: of the bundle (``qc`` of its manifest).
        config: least number of cells.
        reference: of the bundle; gives the limit of the distance where ``limits`` has none.

    Raises:
        BundleError: a limit that this version does not know.
    """
    if unknown := sorted(set(limits) - _LIMITS):
        raise BundleError(
            f"the bundle has limits that this version does not know ({', '.join(unknown)}); "
            f"known: {', '.join(sorted(_LIMITS))}; use the version of millie that made the bundle"
        )
    bounds = {**_DEFAULT_LIMITS, **limits}
    if reference and "max_distance" not in bounds:
        bounds["max_distance"] = distance_limit(reference)
    needed = max(config.min_cells, int(bounds.get("min_cells", 0)))
    reasons = []
    if quality.n_usable < needed:
        reasons.append(
            f"too few cells: {quality.n_usable} usable, at least {needed} needed for a call"
        )
    for measure, name, words in _MEASURES:
        value = getattr(quality, measure)
        bound = bounds.get(name)
        if value is None or bound is None:
            continue
        if not np.isfinite(value):
            reasons.append(f"{words} cannot be measured")
        elif (value < bound) if name.startswith("min_") else (value > bound):
            side = "minimum" if name.startswith("min_") else "maximum"
            reasons.append(f"{words} {value:.3g} ({side} {bound:.3g})")
    return tuple(reasons)


_MEASURES = (
    ("smudge_fraction", "max_smudge_fraction", "too many smudge cells: fraction"),
    ("sharpness", "min_sharpness", "out of focus: sharpness"),
    ("cell_fraction", "min_cell_fraction", "wrong scale, cells too small: fraction of crop"),
    ("cell_fraction", "max_cell_fraction", "wrong scale, cells too large: fraction of crop"),
    (
        "distance",
        "max_distance",
        "unlike the training samples (stain, camera, not blood): distance",
    ),
)


@dataclass(frozen=True, slots=True)
class CallRule:
    """How probabilities become a call.

    Attributes:
        positive: the class that ``threshold`` is about.
        threshold: calibrated probability of ``positive`` from which it is called.
        limits: of the bundle (``qc`` of its manifest).
    """

    positive: str
    threshold: float
    limits: Mapping[str, float]

    def called(self, probabilities: Mapping[str, float]) -> str:
        """The class to call: the positive one from its threshold, else the best of the others."""
        if probabilities[self.positive] >= self.threshold:
            return self.positive
        others = {k: p for k, p in probabilities.items() if k != self.positive}
        return max(others, key=lambda label: others[label])

    @property
    def urgent(self) -> float:
        """Probability from which the class that must not wait is not excluded."""
        return self.limits.get("urgent_probability", self.threshold)

    def must_not_wait(self, labels: Container[str]) -> str:
        """The class that must not wait: APL, else the positive one."""
        return _URGENT_LABEL if _URGENT_LABEL in labels else self.positive


def decide(
    probabilities: Mapping[str, float],
    rule: CallRule,
    quality: SampleQuality,
    failed: Sequence[str],
    config: PredictionConfig,
    ranges: Mapping[str, tuple[float, float]],
    *,
    elsewhere: Sequence[str] = (),
) -> tuple[str, tuple[str, ...]]:
    """The state a prediction ends in, and why.

    A call whose interval crosses a limit is no call: another film of the same patient might have
    ended otherwise.

    Args:
        probabilities: calibrated, by class.
        rule: threshold and limits of the bundle.
        quality: of the sample.
        failed: reasons of :func:`failed_gates`.
        config: least number of cells for NO_SIGNAL, and the labels that mean no disease.
        ranges: ends of each probability's interval, by class; hold the probability.
        elsewhere: why another model rules out all of these diseases. No name is given then, and the
            interval of the class that must not wait is no reason for urgency, its probability is.

    Returns:
        ``NO_SIGNAL``, a disease label (APL as ``APL_SUSPECT``), ``INDETERMINATE`` or
        ``URGENT_INDETERMINATE``; and the reasons, empty for a call.
    """
    urgent = rule.must_not_wait(probabilities)
    called = rule.called(probabilities)
    state = state_of(called, config.negative_labels)
    if elsewhere and probabilities[urgent] < rule.urgent:
        return INDETERMINATE, (*failed, *elsewhere)
    open_ended = urgent_open(probabilities, ranges, rule, called)
    reasons = (*failed, *elsewhere, *open_ended)
    if not reasons and state == NO_SIGNAL:
        reasons = _why_not_negative(probabilities, ranges, quality, rule, config)
    elif not reasons:
        reasons = _why_not_disease(probabilities, ranges, called, config)
    if not reasons:
        return state, ()
    if open_ended or ranges[urgent][1] >= rule.urgent:
        return URGENT, reasons
    return INDETERMINATE, reasons


def urgent_open(
    probabilities: Mapping[str, float],
    ranges: Mapping[str, tuple[float, float]],
    rule: CallRule,
    called: str,
) -> tuple[str, ...]:
    """Why the class that must not wait is neither called nor excluded; empty if it is."""
    urgent = rule.must_not_wait(probabilities)
    low, high = ranges[urgent]
    limit = rule.threshold if urgent == rule.positive else rule.urgent
    between = f"its probability lies between {low:.2f} and {high:.2f} when cells are drawn anew"
    if called == urgent and low < limit:
        return (f"{urgent} is likely but not certain: {between}, called from {limit:.2f}",)
    if called != urgent == max(probabilities, key=lambda label: probabilities[label]):
        return (f"{urgent} is the most likely class but below its threshold",)
    limit = min(rule.urgent, ranges[called][0])
    if called != urgent and high >= limit:
        return (f"{urgent} is not excluded: {between}, excluded below {limit:.2f}",)
    return ()


def _healthy(
    probabilities: Mapping[str, float],
    ranges: Mapping[str, tuple[float, float]],
    negative: Sequence[str],
) -> tuple[float, float] | None:
    """Ends of the probability of no disease; None where the model knows no such class."""
    names = [label for label in probabilities if state_of(label, negative) == NO_SIGNAL]
    if not names:
        return None
    ends = (sum(ranges[label][i] for label in names) for i in (0, 1))
    low, high = (min(1.0, end) for end in ends)
    return low, high


def _why_not_disease(
    probabilities: Mapping[str, float],
    ranges: Mapping[str, tuple[float, float]],
    called: str,
    config: PredictionConfig,
) -> tuple[str, ...]:
    """Why no disease may be named although every gate is passed; empty if it may."""
    healthy = _healthy(probabilities, ranges, config.negative_labels)
    needed = config.min_disease_probability
    if healthy is not None and 1 - healthy[1] < needed:
        between = f"{1 - healthy[1]:.2f} to {1 - healthy[0]:.2f}"
        return (
            f"leukaemia is not certain: probability {between}, at least {needed:.2f} to name one",
        )
    rivals = [label for label in probabilities
              if label != called and ranges[label][1] > ranges[called][0]
              and state_of(label, config.negative_labels) != NO_SIGNAL]  # fmt: skip
    if healthy is None or not rivals:
        return ()
    told = ", ".join(f"{x} {ranges[x][0]:.2f} to {ranges[x][1]:.2f}" for x in (called, *rivals))
    return (f"leukaemia, but which one is not settled: probability of {told}",)


def _why_not_negative(
    probabilities: Mapping[str, float],
    ranges: Mapping[str, tuple[float, float]],
    quality: SampleQuality,
    rule: CallRule,
    config: PredictionConfig,
) -> tuple[str, ...]:
    """Why NO_SIGNAL may not be given although every gate is passed; empty if it may."""
    reasons = []
    needed = max(config.min_cells_negative, int(rule.limits.get("min_cells_negative", 0)))
    if quality.n_usable < needed:
        reasons.append(
            f"too few cells: {quality.n_usable} usable, at least {needed} needed for NO_SIGNAL"
        )
    healthy = _healthy(probabilities, ranges, config.negative_labels)
    least = config.min_negative_probability
    if healthy is not None and healthy[0] <= least:
        reasons.append(
            f"leukaemia is not excluded: probability of no disease {healthy[0]:.2f} to "
            f"{healthy[1]:.2f}, more than {least:.2f} needed for NO_SIGNAL"
        )
    return tuple(reasons)


def state_of(label: str, negative: Sequence[str]) -> str:
    """The state that calls a class; ``negative`` are the labels that mean no disease."""
    if label.casefold() in {name.casefold() for name in negative}:
        return NO_SIGNAL
    return f"{label}_SUSPECT" if label == _URGENT_LABEL else label


def _spread(means: Tensor) -> Tensor:
    """Standard deviation over patients; features that hardly vary count like the median one."""
    std = means.std(dim=0)
    return torch.maximum(std, 0.1 * std.median()).clamp_min(1e-6)


def _distance(value: Tensor, mean: Tensor, std: Tensor) -> float:
    return float(((value - mean) / std).square().mean().sqrt())
