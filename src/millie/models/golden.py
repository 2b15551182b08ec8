"""The golden sample of a bundle: a small bag and the probabilities that it must give.

It shows that weights, code and machine together still do what they did when the bundle was made.
This module owns the ensemble's probabilities too, because the sample is stated in them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import torch
from safetensors.torch import save
from torch import Tensor

from millie.errors import BundleError, ConfigError
from millie.models.network import MilNetwork
from millie.models.weights import check_tensors

TOLERANCE = 1e-4
"""Of a probability: float32 on another CPU or with other kernels stays well below it."""

_CELLS = 8
_SEED = 2562
_INPUTS = ("embeddings", "images")


def ensemble_probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities (..., C), float64, from logits (networks, ..., C).

    The networks' probabilities are averaged; their logarithm is divided by the temperature and
    normalised again.

    Source: Guo et al., ICML 2017, section 4.2, on the ensemble's mean.

    Raises:
        BundleError: one of them is not finite, which must reach no table.
    """
    members = logits.double().log_softmax(dim=-1)
    log_mean = members.logsumexp(dim=0) - torch.tensor(float(len(logits))).double().log()
    probabilities = (log_mean / temperature).softmax(dim=-1)
    if not bool(probabilities.isfinite().all()):
        raise BundleError(
            "the model gives probabilities that are not finite: its weights or its temperature "
            "are out of range; fetch or train the bundle again"
        )
    return probabilities


def draw_input(network: MilNetwork, *, trained: bool) -> Tensor:
    """Cells for the sample from a fixed seed, so that no patient's data is in a bundle.

    Args:
        network: one of the ensemble.
        trained: True: images uint8 (n, 3, S, S) of noise; False: embeddings (n, D) distributed
            like the training cells.
    """
    generator = torch.Generator().manual_seed(_SEED)
    if trained and network.encoder is not None:
        side = network.encoder.input_px
        return torch.randint(0, 256, (_CELLS, 3, side, side), generator=generator).byte()
    noise = torch.randn(_CELLS, network.dim, generator=generator)
    return network.standardiser.mean.cpu() + network.standardiser.std.cpu() * noise


def golden_sample(
    networks: Sequence[MilNetwork], temperature: float, cells: Tensor
) -> dict[str, Tensor]:
    """What goes in and what comes out on this machine.

    Args:
        networks: the ensemble.
        temperature: of the calibration.
        cells: embeddings float32 (n, D), or images uint8 (n, 3, S, S).

    Raises:
        ConfigError: neither of the two.
    """
    kind = {(torch.float32, 2): "embeddings", (torch.uint8, 4): "images"}.get(
        (cells.dtype, cells.ndim)
    )
    if kind is None:
        raise ConfigError(
            f"golden sample {cells.dtype} {tuple(cells.shape)}: expected embeddings float32 (n, D) "
            "or images uint8 (n, 3, S, S)"
        )
    sample = {kind: cells.detach().cpu().contiguous()}
    return {**sample, "probabilities": _probabilities(sample, networks, temperature)}


def golden_file(sample: Mapping[str, Tensor], labels: Sequence[str]) -> bytes:
    """The sample as safetensors; the header names the classes of its probabilities."""
    return save(dict(sample), {"labels": json.dumps(list(labels))})


def check_classes(data: bytes, labels: Sequence[str]) -> None:
    """Compare the classes that a sample names with those of its bundle.

    Samples of earlier versions name none. Training has always put classes in the order of their
    names, so that is what such a sample means.

    Args:
        data: a file that can be read as safetensors.
        labels: in the order of the probabilities.

    Raises:
        BundleError: they are others, or in another order.
    """
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    named = (header.get("__metadata__") or {}).get("labels", json.dumps(sorted(labels)))
    if named != json.dumps(list(labels)):
        raise BundleError(
            f"the classes are {json.dumps(list(labels))}, those of the golden sample {named}"
        )


def golden_gap(
    sample: Mapping[str, Tensor], networks: Sequence[MilNetwork], temperature: float
) -> float:
    """Largest difference between the expected and the computed probabilities.

    Raises:
        BundleError: the sample has another form, or a probability is not finite.
    """
    _check_form(sample, networks[0])
    found = _probabilities(sample, networks, temperature)
    return float((found - sample["probabilities"]).abs().max())


def _check_form(sample: Mapping[str, Tensor], network: MilNetwork) -> None:
    kinds = [name for name in _INPUTS if name in sample]
    if len(kinds) != 1 or (kinds == ["images"] and network.encoder is None):
        raise BundleError(
            f"golden sample with {sorted(sample)}: expected probabilities and one of {_INPUTS}, "
            "images only where the networks have an encoder"
        )
    shape = sample[kinds[0]].shape
    count, side = max([1, *shape[:1]]), max([1, *shape[-1:]])
    with torch.device("meta"):
        cells = {
            "embeddings": torch.empty(count, network.dim),
            "images": torch.empty(count, 3, side, side, dtype=torch.uint8),
        }
        classes = torch.empty(network.n_classes, dtype=torch.float64)
    expected = {kinds[0]: cells[kinds[0]], "probabilities": classes}
    check_tensors(sample, expected, "golden sample")


def _probabilities(
    sample: Mapping[str, Tensor], networks: Sequence[MilNetwork], temperature: float
) -> Tensor:
    """Probabilities (C,) of the sample's bag."""
    logits = []
    for network in networks:
        training, device = network.training, network.standardiser.mean.device
        network.eval()
        with torch.no_grad():
            if "images" in sample:
                cells = network.embed(sample["images"].to(device).float() / 255)
            else:
                cells = sample["embeddings"].to(device)
            logits.append(network.bag_logits(cells[None])[0].cpu())
        network.train(training)
    return ensemble_probabilities(torch.stack(logits), temperature)
