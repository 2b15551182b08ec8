"""Magnification: were a sample's images taken at a scale that the model has seen?

Where images state no scale, it is read from the cells in them, and crops are cut by the reading: a
film seen through another objective gives cells of the right size, and no other gate speaks. But
nothing vouches for the reading, and images of half the resolution show less of each cell. So a
scale that was only read must be one that enough of the training patients had. A stated scale is
believed, unless the red cells beside the leukocytes contradict it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from millie.bags.store import BagReader
from millie.inference.reasons import Code, reason
from millie.segmentation import is_contradicted
from millie.types import Reason

UM_PX = "um_px"
"""Name of the training patients' scales (P,), um/px, among a bundle's reference tensors."""

FACTOR = 1.3
"""Scales farther apart are different: what is read from 16 crops of a patient is off by up to 1.17
of what CellaVision states (82 patients), and by 1.21 in other sets (docs/segmentation.md)."""

LEAST_SHARE = 0.05
"""Of the training patients, that makes a scale a familiar one."""

_BY_RED_CELLS = frozenset({"sample", "red cells"})
_READ = _BY_RED_CELLS | {"leukocyte"}


def bag_um_px(reader: BagReader) -> float:
    """um/px of the images that the middle one of a bag's cells comes from; NaN: unknown."""
    scales = _of_cells(reader, [_um_px(s.um_px, s.diagnostics) for s in reader.sources])
    return float(np.sort(scales)[(len(scales) - 1) // 2]) if len(scales) else float("nan")


def read_um_px(reader: BagReader) -> float | None:
    """The same where at least half of the cells come from images that state no scale, else None."""
    read = [float(s.diagnostics.get("scale_source") in _READ) for s in reader.sources]
    if reader.n_cells == 0 or float(_of_cells(reader, read).mean()) < 0.5:
        return None
    um_px = bag_um_px(reader)
    return um_px if np.isfinite(um_px) else None


def doubtful_scale(reader: BagReader, reference: Mapping[str, Tensor]) -> tuple[Reason, ...]:
    """Reasons to doubt the size of a sample's cells: its scale is contradicted, or unfamiliar.

    Args:
        reader: an open bag.
        reference: of the bundle.
    """
    contradicted = contradicted_scale(bag_over_stated(reader))
    return contradicted + unfamiliar_magnification(read_um_px(reader), reference)


def bag_over_stated(reader: BagReader) -> float | None:
    """What red cells say over the stated scale; None: for most cells nothing is known of that."""
    told = [s.diagnostics.get("over_stated") for s in reader.sources]
    factors = _of_cells(reader, [f if isinstance(f, float) else np.nan for f in told])
    return float(np.median(factors)) if 2 * len(factors) > reader.n_cells else None


def red_cells_um_px(reader: BagReader) -> float | None:
    """um/px that red cells show where no scale is stated; None: one is, or they are too few."""
    by_red_cells = [s.diagnostics.get("scale_source") in _BY_RED_CELLS for s in reader.sources]
    if not by_red_cells or not all(by_red_cells):
        return None
    return read_um_px(reader)


def contradicted_scale(over_stated: float | None) -> tuple[Reason, ...]:
    """A reason if the red cells say that the scale is not the one that is stated.

    Args:
        over_stated: see :func:`bag_over_stated`.
    """
    if over_stated is None or not is_contradicted(over_stated):
        return ()
    text = (
        f"the stated scale is contradicted: by the red cells in the images, a pixel covers "
        f"{over_stated:.2g} times the um/px that is stated"
    )
    return (reason(Code.SCALE_CONTRADICTED, text),)


def unfamiliar_magnification(
    um_px: float | None, reference: Mapping[str, Tensor]
) -> tuple[Reason, ...]:
    """A reason if too few of the training patients had a scale that was only read.

    Args:
        um_px: of the sample, see :func:`read_um_px`; None: it is stated, or unknown.
        reference: of the bundle; without ``um_px`` nothing is known, and there is no reason.
    """
    if um_px is None or UM_PX not in reference:
        return ()
    known = reference[UM_PX].double().numpy()
    if (np.abs(np.log(known / um_px)) <= np.log(FACTOR)).mean() >= LEAST_SHARE:
        return ()
    text = (
        f"unfamiliar magnification: {um_px:.3g} um/px, read from the cells because the images "
        f"state no scale; the training images had {np.median(known):.3g} (median)"
    )
    return (reason(Code.UNFAMILIAR_MAGNIFICATION, text),)


def _of_cells(reader: BagReader, of_sources: list[float]) -> NDArray[np.float64]:
    """Values of the images, for each cell; those that are not finite are left out."""
    values = np.array(of_sources, np.float64)[reader.sources_of(0, reader.n_cells)]
    return values[np.isfinite(values)]


def _um_px(applied: float | None, diagnostics: Mapping[str, object]) -> float:
    """The scale that was used, else the guess that was not: a crop is then taken as it is."""
    guess = diagnostics.get("um_px") if diagnostics.get("scale_source") in _READ else None
    return float(applied or (guess if isinstance(guess, float) else float("nan")))
