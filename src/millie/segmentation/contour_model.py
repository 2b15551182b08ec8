"""The network that judges whether a cell ends at a place: its weights, and evidence from features.

Owns no feature and no decision. The weights, ``contour_model.npz``, are written by
``benchmarks/train_contours.py`` from even-numbered images of ``pbc_cells`` (Acevedo 2020,
CC BY 4.0), ``bone_marrow_cells`` (TCIA AXH3-T579, CC BY 4.0), ``bccd`` (MIT), ``all_idb1`` and
``wbc_masks``.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from millie.segmentation.stored import stored_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray


@cache
def weights() -> dict[str, NDArray[np.float32]]:
    """Layers of the network."""
    return stored_arrays("contour_model.npz")


def evidence(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log odds, up to a constant of the ray, that a cell ends at a place.

    Args:
        features: float32 (..., F), in the order of ``contours.features``.

    Returns:
        float32 (...).
    """
    w = weights()
    hidden = features @ w["first"]
    hidden += w["first_bias"]
    np.maximum(hidden, 0, out=hidden)
    hidden = hidden @ w["second"]
    hidden += w["second_bias"]
    np.maximum(hidden, 0, out=hidden)
    return np.asarray(hidden @ w["last"] + w["last_bias"], dtype=np.float32)
