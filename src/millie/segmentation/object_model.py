"""The trees that tell leukocytes from platelets and debris: the model, and evidence from features.

Owns no feature and no decision. ``object_model.npz`` is written by ``benchmarks/train_objects.py``
from even-numbered images of ``pbc_cells`` (Acevedo 2020, CC BY 4.0), ``bone_marrow_cells`` (TCIA
AXH3-T579, CC BY 4.0), ``bccd`` (MIT), ``all_idb1`` and ``wbc_masks``.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from millie.segmentation.stored import stored_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray


@cache
def _trees() -> dict[str, NDArray[Any]]:
    trees = stored_arrays("object_model.npz")
    return {k: v.astype(np.float64 if v.dtype.kind == "f" else np.int64) for k, v in trees.items()}


def evidence(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log odds for a leukocyte, the sum over boosted trees.

    Args:
        features: float64 (N, F), in the order of ``objects.FEATURES``.

    Returns:
        float64 (N,).
    """
    w = _trees()
    trees = np.arange(len(w["feature"]))
    objects = np.arange(len(features))[:, None]
    node = np.zeros((len(features), len(trees)), np.int64)
    for _ in range(int(w["depth"])):  # a leaf leads to itself
        left = features[objects, w["feature"][trees, node]] <= w["threshold"][trees, node]
        node = np.where(left, w["left"][trees, node], w["right"][trees, node])
    return np.asarray(w["value"][trees, node].sum(axis=1) + w["bias"])
