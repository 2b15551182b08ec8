"""The blood-cell encoder: what its weights know, and what must not matter to it."""

from __future__ import annotations

import warnings

import numpy as np
import openvino
import pytest
import torch
from safetensors.torch import load_file

from millie.config import ModelConfig
from millie.models.blood_cell import (
    INPUT_PX,
    WEIGHTS_SHA256,
    BloodCellEncoder,
    packaged_weights,
)
from millie.models.encoder import Encoder
from millie.models.encoders import ENCODERS, build_encoder
from millie.models.network import parameter_count
from millie.synthetic import CellType

from .conftest import isolated


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build_encoder(ModelConfig(encoder="blood_cell"))


def test_it_is_small() -> None:
    fresh = BloodCellEncoder()
    assert parameter_count(fresh) < 2_000_000
    assert packaged_weights().stat().st_size < 6_000_000


def test_packaged_weights_are_pinned_and_the_network_is_half_precision(encoder: Encoder) -> None:
    stored = load_file(packaged_weights())
    network = [n for n in stored if n.startswith(("stem.", "blocks."))]
    assert network
    assert {stored[name].dtype for name in network} == {torch.float16}
    assert all(p.dtype == torch.float32 for p in encoder.parameters())
    assert ENCODERS["blood_cell"].sha256 == WEIGHTS_SHA256
    assert "CC BY 4.0" in ENCODERS["blood_cell"].licence


@torch.no_grad()
def test_drawn_kinds_lie_apart(encoder: Encoder) -> None:
    """A lymphocyte is nearer to the other lymphocytes than to neutrophils, and the reverse."""
    kinds = (CellType.LYMPHOCYTE, CellType.SEGMENTED_NEUTROPHIL)
    first, second = (torch.cat([encoder(isolated(k, i)) for i in range(6)]) for k in kinds)
    apart = (first.mean(0) - second.mean(0)).norm()
    for own in (first, second):
        assert (own - own.mean(0)).norm(dim=1).mean() < apart


@torch.no_grad()
def test_a_change_of_stain_moves_less_than_a_change_of_kind(encoder: Encoder) -> None:
    lymphocytes = torch.cat([isolated(CellType.LYMPHOCYTE, i) for i in range(6)])
    neutrophils = torch.cat([isolated(CellType.SEGMENTED_NEUTROPHIL, i) for i in range(6)])
    density = -(lymphocytes * 255 / 245).clamp(min=0.02).log()
    gain = torch.tensor([1.15, 1.0, 0.85]).view(1, 3, 1, 1)
    stained = (-density * gain).exp() * 245 / 255
    kept, restained, other = (encoder(x).mean(0) for x in (lymphocytes, stained, neutrophils))
    assert (kept - restained).norm() < (kept - other).norm()


@torch.no_grad()
def test_turning_and_mirroring_change_little(encoder: Encoder) -> None:
    """In the learnt features; the map after them enlarges what single cells differ in."""
    cell = isolated(CellType.MONOCYTE)
    found = encoder.feature_maps((cell - 0.75) / 0.25).mean(dim=(2, 3))
    for turned in (cell.flip(3), cell.flip(2), cell.rot90(1, (2, 3))):
        again = encoder.feature_maps((turned - 0.75) / 0.25).mean(dim=(2, 3))
        assert float((again - found).norm() / found.norm()) < 0.3


@torch.no_grad()
def test_learnt_features_do_not_see_the_rim_of_the_crop(encoder: Encoder) -> None:
    cell = torch.rand(1, 3, INPUT_PX, INPUT_PX)
    changed = cell.clone()
    changed[..., :6, :] = 0
    changed[..., -6:] = 1
    torch.testing.assert_close(encoder.feature_maps(changed), encoder.feature_maps(cell))


@torch.no_grad()
def test_openvino_gives_the_same(encoder: Encoder) -> None:
    cells = torch.cat([isolated(kind) for kind in CellType])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO 2026.4 traces with torch.jit, deprecated
        shape = [-1, *cells.shape[1:]]
        model = openvino.convert_model(encoder, example_input=cells, input=shape)
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    # In units of what a change of stain does to a patient: a twentieth of it.
    np.testing.assert_allclose(compiled(cells.numpy())[0], encoder(cells), atol=0.05)
