"""Gates: measured qualities of a sample that can only move it towards a person.

A gate compares a quality with a limit that the bundle states (``qc`` in its manifest) or that the
configuration sets. One failed gate and no class is called (:mod:`millie.inference.calls`). This
module owns the limits and the distance from the training patients; what is measured of cells and
images is :mod:`millie.inference.quality`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from millie.config import PredictionConfig
from millie.errors import BundleError, ConfigError
from millie.inference.immature import LIMIT as IMMATURE
from millie.inference.quality import SampleQuality
from millie.inference.reasons import Code, reason
from millie.types import Measure, Reason

_DEFAULT_LIMITS = {"max_smudge_fraction": 0.5}


@dataclass(frozen=True, slots=True)
class _Gate:
    """A measure that forbids a call where it lies beyond a limit.

    Attributes:
        measure: attribute of :class:`SampleQuality`.
        code: of the reason; ``words`` open its text, before the value.
        upper: whether the limit is the greatest value, else the least.
    """

    measure: str
    code: Code
    words: str
    upper: bool = False

    @property
    def limit(self) -> str:
        """Its name in a bundle."""
        return f"{'max' if self.upper else 'min'}_{self.measure}"


_GATES = (
    _Gate("smudge_fraction", Code.SMUDGE_CELLS, "too many smudge cells: fraction", upper=True),
    _Gate("sharpness", Code.OUT_OF_FOCUS, "out of focus: sharpness"),
    _Gate("clipped_fraction", Code.CLIPPED, "over- or underexposed: clipped pixels", upper=True),
    _Gate("stain", Code.STAIN_TOO_WEAK, "stain too weak: optical density of nuclei"),
    _Gate("saturation", Code.COLOURS_TOO_WEAK, "colours too weak: saturation of cells"),
    _Gate(
        "cell_fraction", Code.CELLS_TOO_SMALL, "wrong scale, cells too small: fraction of crop"
    ),
    _Gate(
        "cell_fraction", Code.CELLS_TOO_LARGE, "wrong scale, cells too large: fraction of crop",
        upper=True,
    ),
    _Gate(
        "distance", Code.OTHER_CAMERA_OR_STAIN,
        "unlike the training samples (stain, camera, not blood): distance", upper=True,
    ),
)  # fmt: skip
_INFORMATION = (
    "sharpness_low", "background", "border_fraction", "touching_fraction", "unoutlined_fraction",
    "cells_per_field", "copies", "unused_files",
)  # fmt: skip
"""Measures without a limit: shown, never a reason."""
_LIMITS = frozenset({
    "min_cells", "min_cells_negative", IMMATURE, *(gate.limit for gate in _GATES),
})  # fmt: skip
_MARGINS = {"sharpness": 0.5, "stain": 0.5, "saturation": 0.5}
"""Share of the lowest training patient that still passes; docs/safety.md has what is refused."""
_CLIPPED_MARGIN = 0.05


def quality_limits(samples: Sequence[SampleQuality]) -> dict[str, float]:
    """Limits for a new bundle from the qualities of its training patients.

    All training patients lie within them, with a margin: half the lowest sharpness, stain and
    saturation, a twentieth more clipped pixels, and a factor of 1.5 on either side of the cells'
    share of the crop. What could be measured of no patient has no limit.

    Raises:
        ConfigError: no sample.
    """
    if not samples:
        raise ConfigError("quality limits need at least one training sample")
    limits = {}
    if smudge := _values(samples, "smudge_fraction"):
        limits["max_smudge_fraction"] = max(_DEFAULT_LIMITS["max_smudge_fraction"], *smudge)
    for measure, share in _MARGINS.items():
        if values := _values(samples, measure):
            limits[f"min_{measure}"] = share * min(values)
    if clipped := _values(samples, "clipped_fraction"):
        limits["max_clipped_fraction"] = min(1.0, max(clipped) + _CLIPPED_MARGIN)
    if covers := _values(samples, "cell_fraction"):
        limits["min_cell_fraction"] = min(covers) / 1.5
        limits["max_cell_fraction"] = min(1.0, max(covers) * 1.5)
    return limits


def _values(samples: Sequence[SampleQuality], measure: str) -> list[float]:
    values = (float(getattr(sample, measure)) for sample in samples)
    return [value for value in values if np.isfinite(value)]


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


def measures(
    quality: SampleQuality,
    limits: Mapping[str, float],
    config: PredictionConfig,
    reference: Mapping[str, Tensor] | None = None,
) -> tuple[Measure, ...]:
    """Every quality of a sample beside its limits, in the order of reports.

    Args:
        quality: of the sample.
        limits: of the bundle (``qc`` of its manifest).
        config: least number of cells.
        reference: of the bundle; gives the limit of the distance where ``limits`` has none.

    Raises:
        BundleError: a limit that this version does not know.
    """
    bounds = _bounds(limits, reference)
    needed = max(config.min_cells, int(bounds.get("min_cells", 0)))
    enough = quality.n_usable >= needed
    found = [Measure("usable_cells", quality.n_usable, low=needed, passed=enough)]
    for name in dict.fromkeys([gate.measure for gate in _GATES] + list(_INFORMATION)):
        value = getattr(quality, name)
        if value is not None:
            low, high = bounds.get(f"min_{name}"), bounds.get(f"max_{name}")
            measured = bool(np.isfinite(value))
            if not (measured or quality.pictures):
                low = high = None  # no limit can be kept or broken; see NO_PICTURES
            passed = (low is None or value >= low) and (high is None or value <= high)
            found.append(Measure(name, float(value) if measured else None, low, high, passed))
    return tuple(found)


def failed_gates(
    quality: SampleQuality,
    limits: Mapping[str, float],
    config: PredictionConfig,
    reference: Mapping[str, Tensor] | None = None,
) -> tuple[Reason, ...]:
    """Why no class may be called; empty if all gates are passed.

    Args and errors as :func:`measures`.
    """
    found = {measure.name: measure for measure in measures(quality, limits, config, reference)}
    cells = found["usable_cells"]
    reasons = []
    if not cells.passed:
        text = f"too few cells: {cells.value} usable, at least {cells.low} needed for a call"
        missing = int(cells.low or 0) - quality.n_usable
        reasons.append(reason(Code.TOO_FEW_CELLS, text, missing=missing))
    failed = (_failed(gate, found[gate.measure]) for gate in _GATES if gate.measure in found)
    return (*reasons, *filter(None, failed))


def _failed(gate: _Gate, found: Measure) -> Reason | None:
    bound = found.high if gate.upper else found.low
    if bound is None or found.passed:
        return None
    if found.value is None:
        return reason(Code.NOT_MEASURED, f"{gate.words} cannot be measured")
    if (found.value > bound) if gate.upper else (found.value < bound):
        side = "maximum" if gate.upper else "minimum"
        return reason(gate.code, f"{gate.words} {found.value:.3g} ({side} {bound:.3g})")
    return None


def _bounds(
    limits: Mapping[str, float], reference: Mapping[str, Tensor] | None
) -> dict[str, float]:
    """The limits that hold: of the bundle, else by default, else from its reference."""
    if unknown := sorted(set(limits) - _LIMITS):
        raise BundleError(
            f"the bundle has limits that this version does not know ({', '.join(unknown)}); "
            f"known: {', '.join(sorted(_LIMITS))}; use the version of millie that made the bundle"
        )
    bounds = {**_DEFAULT_LIMITS, **limits}
    if reference and "max_distance" not in bounds:
        bounds["max_distance"] = distance_limit(reference)
    return bounds


def _spread(means: Tensor) -> Tensor:
    """Standard deviation over patients; features that hardly vary count like the median one."""
    std = means.std(dim=0)
    return torch.maximum(std, 0.1 * std.median()).clamp_min(1e-6)


def _distance(value: Tensor, mean: Tensor, std: Tensor) -> float:
    return float(((value - mean) / std).square().mean().sqrt())
