"""What is exported is the bundle's own arithmetic, for every fusion and several networks."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from millie.errors import MissingPackageError
from millie.inference.onnx_model import PatientModel, export_onnx
from millie.models.aggregators import AGGREGATORS
from millie.models.bundle import Bundle

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
        whole, alone = PatientModel(bundle.networks, bundle.manifest.temperature)(features)
        pairs = list(zip(bundle.networks, features.expand(3, -1, -1), strict=True))
        bags = torch.stack([network.bag_logits(one[None])[0] for network, one in pairs])
        cells = torch.stack([network.cell_logits(one) for network, one in pairs])
    torch.testing.assert_close(whole.double(), bundle.probabilities(bags), atol=1e-6, rtol=0)
    torch.testing.assert_close(alone.double(), bundle.probabilities(cells), atol=1e-6, rtol=0)


def test_without_its_packages_it_says_what_to_install(
    make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError, match=r"millie\[onnx\]"):
        export_onnx(make_bundle())
