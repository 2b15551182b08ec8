"""Gates: measured qualities of a sample that can only move it towards a person.

A gate compares a quality with a limit that the bundle states (``qc`` in its manifest) or that the
configuration sets. One failed gate and no class is called (:mod:`millie.inference.calls`). This
module owns the measures and the limits; it computes no features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from millie.bags.store import BagReader
from millie.config import PredictionConfig
from millie.errors import BundleError, ConfigError
from millie.inference.reasons import Code, reason
from millie.types import Cell, Reason

_DEFAULT_LIMITS = {"max_smudge_fraction": 0.5}
_LIMITS = frozenset({
    "min_cells", "min_cells_negative", "max_smudge_fraction", "min_sharpness",
    "min_cell_fraction", "max_cell_fraction", "max_distance",
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
) -> tuple[Reason, ...]:
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
    if (missing := needed - quality.n_usable) > 0:
        text = f"too few cells: {quality.n_usable} usable, at least {needed} needed for a call"
        reasons.append(reason(Code.TOO_FEW_CELLS, text, missing=missing))
    for measure, name, code, words in _MEASURES:
        value = getattr(quality, measure)
        bound = bounds.get(name)
        if value is None or bound is None:
            continue
        if not np.isfinite(value):
            reasons.append(reason(Code.NOT_MEASURED, f"{words} cannot be measured"))
        elif (value < bound) if name.startswith("min_") else (value > bound):
            side = "minimum" if name.startswith("min_") else "maximum"
            reasons.append(reason(code, f"{words} {value:.3g} ({side} {bound:.3g})"))
    return tuple(reasons)


_MEASURES = (
    (
        "smudge_fraction", "max_smudge_fraction", Code.SMUDGE_CELLS,
        "too many smudge cells: fraction",
    ),
    ("sharpness", "min_sharpness", Code.OUT_OF_FOCUS, "out of focus: sharpness"),
    (
        "cell_fraction", "min_cell_fraction", Code.CELLS_TOO_SMALL,
        "wrong scale, cells too small: fraction of crop",
    ),
    (
        "cell_fraction", "max_cell_fraction", Code.CELLS_TOO_LARGE,
        "wrong scale, cells too large: fraction of crop",
    ),
    (
        "distance", "max_distance", Code.OTHER_CAMERA_OR_STAIN,
        "unlike the training samples (stain, camera, not blood): distance",
    ),
)  # fmt: skip


def _spread(means: Tensor) -> Tensor:
    """Standard deviation over patients; features that hardly vary count like the median one."""
    std = means.std(dim=0)
    return torch.maximum(std, 0.1 * std.median()).clamp_min(1e-6)


def _distance(value: Tensor, mean: Tensor, std: Tensor) -> float:
    return float(((value - mean) / std).square().mean().sqrt())
