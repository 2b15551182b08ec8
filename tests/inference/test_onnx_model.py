"""What is exported is the bundle's own arithmetic, for every fusion and several networks."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from millie.errors import MissingPackageError
from millie.inference.alone import cells_alone
from millie.inference.immature import immature_cells
from millie.inference.onnx_model import PatientModel, export_onnx
from millie.models.aggregators import AGGREGATORS
from millie.models.bundle import Bundle, load_bundle

from .conftest import DIM


@pytest.mark.parametrize("aggregator", AGGREGATORS)
@pytest.mark.parametrize("own_encoders", [False, True])
def test_the_graph_computes_what_the_bundle_does(
    aggregator: str, own_encoders: bool, make_bundle: Callable[..., Bundle]
) -> None:
    bundle = make_bundle(aggregator, networks=3, temperature=1.7)
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3 if own_encoders else 1, 9, DIM, generator=generator)
    with torch.no_grad():
        whole, alone = PatientModel(bundle)(features)
        pairs = list(zip(bundle.networks, features.expand(3, -1, -1), strict=True))
        bags = torch.stack([network.bag_logits(one[None])[0] for network, one in pairs])
        cells = torch.stack([network.cell_logits(one) for network, one in pairs])
    torch.testing.assert_close(whole.double(), bundle.probabilities(bags), atol=1e-6, rtol=0)
    torch.testing.assert_close(alone.double(), bundle.probabilities(cells), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["acute-leukaemia", "apl-blood"])
def test_the_graph_weighs_a_cell_alone_as_the_bundle_does(name: str) -> None:
    bundle = load_bundle(name)
    network = bundle.networks[0]
    unlike = torch.randn(200, network.dim, generator=torch.Generator().manual_seed(3))
    features = network.standardiser.mean + 40 * network.standardiser.std * unlike
    with torch.no_grad():
        _, alone = PatientModel(bundle)(features[None])
        lone = torch.stack([one.cell_logits(features) for one in bundle.networks])
    immature = immature_cells(network, "blood_cell", features)
    assert immature is not None
    assert immature.min() < 0.1
    assert immature.max() > 0.9
    negative = bundle.config.prediction.negative_labels
    expected = cells_alone(bundle.probabilities(lone), immature, bundle.labels, negative)
    torch.testing.assert_close(alone.double(), expected, atol=1e-4, rtol=0)


def test_without_its_packages_it_says_what_to_install(
    make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError, match=r"millie\[onnx\]"):
        export_onnx(make_bundle())
