"""Named tensors: their digest, and the comparison of what was read with what is expected.

This module reads no files and knows no network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor, nn

from millie.errors import BundleError


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over name, type, shape and bytes of each tensor, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def weights_digest(module: nn.Module) -> str:
    """SHA-256 (hex) over all weights and buffers of a module: equal weights, equal digest."""
    return tensors_digest(module.state_dict())


def check_tensors(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], owner: str
) -> None:
    """Compare names, shapes and types with those expected, and refuse values that are not finite.

    Args:
        tensors: as they were read.
        expected: of the right shapes and types; the device ``meta`` spares their memory.
        owner: named in errors.

    Raises:
        BundleError: naming what differs.
    """
    if missing := sorted(expected.keys() - tensors.keys()):
        raise BundleError(f"{owner}: lacking {missing[:3]}, {len(missing)} names in all")
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise BundleError(f"{owner}: unknown {unknown[:3]}, {len(unknown)} names in all")
    for name, want in expected.items():
        tensor = tensors[name]
        if tensor.shape != want.shape or tensor.dtype != want.dtype:
            raise BundleError(
                f"{owner}: '{name}' is {tensor.dtype} {tuple(tensor.shape)}, "
                f"expected {want.dtype} {tuple(want.shape)}"
            )
        if not bool(tensor.isfinite().all()):
            raise BundleError(f"{owner}: '{name}' has values that are not finite")
