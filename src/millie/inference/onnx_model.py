"""A whole bundle as ONNX: the encoder, and behind it fusion, heads and calibration.

Owns the two graphs and their parity with the bundle. Two, because cells are encoded batch by batch
in bounded memory, while the fusion sees all vectors of a patient at once. What a graph cannot hold
is not exported: finding and isolating cells, gates, and the rules that make a call of
probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from millie.errors import BundleError
from millie.inference.alone import cells_of
from millie.inference.runtime import encoder_onnx, import_onnx, onnx_bytes
from millie.models.fusion import Aggregator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from millie.models.bundle import Bundle

TOLERANCE = 1e-3
"""Largest difference of a probability, by both graphs one after the other: a tenth of the last
digit that a page shows. What features may differ by makes 0.0002 of it in `apl-blood`."""
FEATURE_TOLERANCE = 1e-3
"""Of a feature, by the features' deviation: twice what float16, in which they are kept, leaves."""
_CROPS = 23
_SIZES = (1, 2, _CROPS)  # of the bags that are compared
_SEED = 0


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A bundle's graphs.

    Attributes:
        graphs: content of each file by its name: ``encoder.onnx`` (``encoder-1.onnx`` and so on
            where each network has its own) and ``patient.onnx``.
        feature_gap: largest difference of a feature from torch, by the features' deviation.
        probability_gap: largest difference of a probability.
    """

    graphs: Mapping[str, bytes]
    feature_gap: float
    probability_gap: float


class PatientModel(nn.Module):
    """From the vectors of one patient's cells to probabilities.

    Args:
        bundle: whose ensemble and calibration.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.networks = nn.ModuleList(bundle.networks)
        self._bundle = bundle

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (C,) of the patient, and (N, C) of each cell alone.

        Args:
            features: (E, N, D) of all cells, N >= 1, by E encoders: one, or one a network.
        """
        bags, cells = [], []
        for i, network in enumerate(self._bundle.networks):
            vectors = features[i if len(features) > 1 else 0]
            standard = network.standardiser(vectors)
            bags.append(network.head(_fused(network.aggregator, standard[None]))[0])
            cells.append(network.head(_alone(network.aggregator, standard)))
        alone = cells_of(self._bundle, self._calibrated(torch.stack(cells)), features[0])
        return self._calibrated(torch.stack(bags)), alone

    def _calibrated(self, logits: Tensor) -> Tensor:
        """:func:`ensemble_probabilities` without its check, which no graph can hold."""
        log_mean = logits.log_softmax(dim=-1).logsumexp(dim=0)
        return (log_mean / self._bundle.manifest.temperature).softmax(dim=-1)


def export_onnx(bundle: Bundle) -> OnnxModel:
    """Export a bundle and compare the graphs with it.

    Raises:
        BundleError: a graph cannot be made, or differs from the bundle.
        MissingPackageError: the extra ``onnx`` is not installed.
    """
    runtime = import_onnx()
    encoders = bundle.encoders()
    size_px = bundle.manifest.size_px
    several = len(encoders) > 1
    graphs = {
        f"encoder-{number}.onnx" if several else "encoder.onnx": encoder_onnx(encoder, size_px)
        for number, encoder in enumerate(encoders, start=1)
    }
    generator = torch.Generator().manual_seed(_SEED)
    crops = torch.rand(_CROPS, 3, size_px, size_px, generator=generator)
    with torch.inference_mode():
        vectors = torch.stack([encoder.eval()(crops) for encoder in encoders])
    found = torch.stack([_run(runtime, graph, "images", crops)[0] for graph in graphs.values()])
    feature_gap = float((found - vectors).abs().max() / vectors.std())
    graphs["patient.onnx"] = _patient_graph(bundle, vectors)
    probability_gap = _patient_gap(runtime, bundle, graphs["patient.onnx"], (found, vectors))
    if not (feature_gap <= FEATURE_TOLERANCE and probability_gap <= TOLERANCE):
        raise BundleError(
            f"the ONNX graphs of {bundle.name} differ from it: features by {feature_gap:.2g}, "
            f"probabilities by {probability_gap:.2g}, allowed {FEATURE_TOLERANCE:g} and "
            f"{TOLERANCE:g}; nothing was written"
        )
    return OnnxModel(graphs, feature_gap, probability_gap)


def _fused(aggregator: Aggregator, bags: Tensor) -> Tensor:
    """Vectors (B, W) of bags (B, N, D) without padding, unchecked: a graph cannot ask its data."""
    return aggregator.fuse(bags, torch.ones(bags.shape[:2], dtype=torch.bool)).bag


def _alone(aggregator: Aggregator, cells: Tensor) -> Tensor:
    """:meth:`Aggregator.alone` unchecked: most fusions leave a lone cell as it is."""
    if type(aggregator).alone is Aggregator.alone:
        return cells
    return _fused(aggregator, cells[:, None])


def _patient_graph(bundle: Bundle, vectors: Tensor) -> bytes:
    model = PatientModel(bundle)
    try:
        return onnx_bytes(
            model, ("features", vectors.clone(), 1), ["probabilities", "cell_probabilities"]
        )
    except (RuntimeError, TypeError, ValueError) as error:
        raise BundleError(
            f"the fusion '{bundle.config.model.aggregator}' cannot be exported to ONNX "
            f"({type(error).__name__}); use the bundle itself"
        ) from error


def _patient_gap(
    runtime: Any, bundle: Bundle, graph: bytes, vectors: tuple[Tensor, Tensor]
) -> float:
    """Largest difference of a probability, of patients and of cells, over bags of several sizes.

    Args:
        runtime: ONNX Runtime.
        bundle: what is compared with.
        graph: from vectors to probabilities.
        vectors: (E, N, D) by the graphs of the encoders, and by the encoders.
    """
    gaps = []
    for n in _SIZES:
        found = _run(runtime, graph, "features", vectors[0][:, :n])
        inputs = vectors[1][:, :n].expand(len(bundle.networks), -1, -1)
        with torch.inference_mode():
            pairs = list(zip(bundle.networks, inputs, strict=True))
            bags = torch.stack([network.bag_logits(each[None])[0] for network, each in pairs])
            cells = torch.stack([network.cell_logits(each) for network, each in pairs])
        expected = (
            bundle.probabilities(bags),
            cells_of(bundle, bundle.probabilities(cells), inputs[0]),
        )
        gaps += [float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)]
    return max(gaps)


def _run(runtime: Any, graph: bytes, name: str, values: Tensor) -> list[Tensor]:
    session = runtime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(one) for one in session.run(None, {name: values.numpy()})]
