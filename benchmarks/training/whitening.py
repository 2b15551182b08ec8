"""The last step of the encoder `blood_cell`: a linear map that makes nuisance small.

Nuisance is what a patient's mean vector does although the cells are the same: another stain,
camera, focus, scale or outline (one random change for a whole bag), and other cells of the same
patient (their covariance, a 30th of it: the mean of 30 cells). No diagnosis and no cell type is
used. Source: within-class covariance normalisation, Hatch et al., Interspeech 2006.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from cell_views import Cells, changed, whole, zoomed
from learner import Learner
from numpy.typing import NDArray
from torch import Tensor

from millie.models.blood_cell import BloodCellEncoder

Floats = NDArray[np.float64]

ZOOMS, CELLS_OF_A_KIND = (0.82, 0.88, 0.94, 1.06, 1.13, 1.2), 80
_SIZE_RIDGE = 10.0
"""Times the mean variance by size over all directions: only the few that carry it are shrunk."""

KEPT, CHANGES, CELLS = 4000, 240, 32
"""Cells looked at, random changes, and the cells that each change is tried on."""
_USUAL_CELLS, _RIDGE = 30, 1e-5
_CHANGED_SHARE = 0.3
"""Weight of the changes, which are stronger than those between laboratories."""


def whitened(
    network: Mapping[str, Tensor], cells: Cells, rng: np.random.Generator
) -> dict[str, Tensor]:
    """All weights of the package's encoder; the network's stay float16, the map is float32."""
    encoder = BloodCellEncoder().eval()
    encoder.load_state_dict({k: v.float() for k, v in network.items()}, strict=False)
    chosen = rng.permutation(len(cells))[:KEPT]
    planes, bags = cells.planes[chosen], np.array(cells.bags)[chosen]
    measured = vectors_of(encoder.measurements, planes)
    encoder.measured_mean.copy_(torch.from_numpy(measured.mean(0)))
    encoder.measured_std.copy_(torch.from_numpy(measured.std(0).clip(1e-6)))
    vectors = vectors_of(encoder.parts, planes)
    noise = nuisance(encoder, planes, bags, vectors, rng)
    values, directions = np.linalg.eigh(noise)
    weight = (directions / np.sqrt(values)).T
    state = dict(encoder.state_dict()) | dict(network)
    state["whitening.weight"] = torch.from_numpy(weight).float().contiguous()
    state["whitening.bias"] = torch.from_numpy(-weight @ vectors.mean(0)).float()
    return state


def types_of(network: Learner, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's layer of types as a map of the encoder's final vectors: the same logits."""
    own = torch.zeros(network.types.out_features, len(tensors["whitening.bias"])).double()
    own[:, : network.types.in_features] = network.types.weight.detach()
    whole = own @ torch.linalg.inv(tensors["whitening.weight"].double())
    bias = network.types.bias.detach() - whole @ tensors["whitening.bias"].double()
    return {"types.weight": whole.float().contiguous(), "types.bias": bias.float()}


def evened(
    tensors: Mapping[str, Tensor], cells: Cells, rng: np.random.Generator
) -> dict[str, Tensor]:
    """The same weights with directions shrunk in which a wrong size of all cells moves a type.

    Args:
        tensors: all weights, the layer of types among them.
        cells: of any store; no diagnosis is used.
        rng: chooses cells.
    """
    encoder = BloodCellEncoder().eval()
    encoder.load_state_dict({k: v.float() for k, v in tensors.items()})
    planes = cells.planes[rng.permutation(len(cells))[: KEPT // 3]]
    vectors = vectors_of(encoder, planes)
    layer, offset = (tensors[f"types.{name}"].double().numpy() for name in ("weight", "bias"))
    lines = encoder.types.lines.numpy()[(vectors @ layer.T + offset).argmax(axis=1)]
    moved = []
    for line in lines.T:
        own = np.flatnonzero(line)[:CELLS_OF_A_KIND]
        before = vectors[own].mean(0)
        moved += [_mean(encoder, zoomed(planes[own], zoom)) - before for zoom in ZOOMS]
    size = np.stack(moved).T @ np.stack(moved) / len(moved)
    ridge = _SIZE_RIDGE * np.trace(size) / len(size)
    values, directions = np.linalg.eigh(size / ridge + np.eye(len(size)))
    shrink = directions @ np.diag(values**-0.5) @ directions.T
    mapped = {
        "whitening.weight": shrink @ tensors["whitening.weight"].double().numpy(),
        "whitening.bias": shrink @ tensors["whitening.bias"].double().numpy(),
        "types.weight": layer @ np.linalg.inv(shrink),
    }
    return dict(tensors) | {k: torch.from_numpy(v).float().contiguous() for k, v in mapped.items()}


@torch.no_grad()
def _mean(encoder: BloodCellEncoder, images: Tensor) -> Floats:
    return np.asarray(encoder(images).double().mean(0).numpy())


@torch.no_grad()
def vectors_of(part: Callable[[Tensor], Tensor], planes: NDArray[np.uint8]) -> Floats:
    """Features (N, D) of unchanged cells."""
    chunks = [planes[i : i + 32] for i in range(0, len(planes), 32)]
    return np.concatenate([part(whole(chunk)).double().numpy() for chunk in chunks])


def nuisance(
    encoder: BloodCellEncoder,
    planes: NDArray[np.uint8],
    bags: NDArray[np.str_],
    vectors: Floats,
    rng: np.random.Generator,
) -> Floats:
    """Covariance (274, 274) of what does not matter in a patient's mean vector."""
    within = np.zeros((vectors.shape[1],) * 2)
    for bag in np.unique(bags):
        own = vectors[bags == bag] - vectors[bags == bag].mean(0)
        within += own.T @ own / len(vectors)
    moved = np.stack([_moved(encoder, planes, vectors, rng) for _ in range(CHANGES)])
    ridge = _RIDGE * np.trace(within) / len(within)
    total: Floats = within / _USUAL_CELLS + ridge * np.eye(len(within))
    return total + _CHANGED_SHARE * moved.T @ moved / CHANGES


@torch.no_grad()
def _moved(
    encoder: BloodCellEncoder,
    planes: NDArray[np.uint8],
    vectors: Floats,
    rng: np.random.Generator,
) -> Floats:
    """What one change of stain and camera does to the mean vector of some cells."""
    chosen = rng.choice(len(vectors), min(CELLS, len(vectors)), replace=False)
    images = changed(planes[chosen], int(rng.integers(2**31)))
    after = encoder.parts(images).double().numpy()
    return np.asarray(after.mean(0) - vectors[chosen].mean(0))
