"""The network that judges a pair of pieces: its weights, and evidence from features.

Owns no feature and no decision. The weights, ``lobe_model.npz``, are written by
``benchmarks/train_lobes.py`` from even-numbered images of ``pbc_cells`` (Acevedo 2020, CC BY 4.0),
``bone_marrow_cells`` (TCIA AXH3-T579, CC BY 4.0), ``bccd`` (MIT), ``all_idb1`` and ``wbc_masks``.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from millie.segmentation.stored import stored_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FARTHEST = 4.0  # standard deviations beyond which a feature says no more


@cache
def _weights() -> dict[str, NDArray[np.float64]]:
    return {k: v.astype(np.float64) for k, v in stored_arrays("lobe_model.npz").items()}


def evidence(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log odds for one cell, the mean of several networks of two hidden layers.

    Args:
        features: float64 (..., F), in the order of ``lobes.FEATURES``.

    Returns:
        float64 (...).
    """
    w = _weights()
    values = (features.reshape(-1, features.shape[-1]) - w["mean"]) / w["scale"]
    values = np.minimum(np.maximum(values, -_FARTHEST), _FARTHEST)
    hidden = np.maximum(values @ w["first"] + w["first_bias"][:, None], 0)  # (networks, n, h)
    hidden = np.maximum(hidden @ w["second"] + w["second_bias"][:, None], 0)
    odds = (hidden @ w["last"][:, :, None])[:, :, 0] + w["last_bias"][:, None]
    return np.asarray(odds.mean(axis=0).reshape(features.shape[:-1]))
