"""The blood-cell encoder: what its weights know, and what must not matter to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from millie.bags.loading import apply_background, to_tensor
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
from millie.synthetic import CellType, PatientStyle, draw_cell


def _isolated(kind: CellType, seed: int = 0) -> torch.Tensor:
    """A drawn cell on white in a crop of 25 um, as the encoder sees it."""
    side = 224
    style = PatientStyle()
    drawn = draw_cell(kind, 25 / side, side, np.random.default_rng(seed), style)
    middle = drawn.cell_labels[side // 2, side // 2]
    mask = (drawn.cell_labels == middle).astype(np.uint8)[None]
    colours = np.array([style.background_rgb()], np.float32)
    return to_tensor(apply_background(drawn.image[None], mask, "isolate", colours))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build_encoder(ModelConfig(encoder="blood_cell"))


def test_it_is_small() -> None:
    fresh = BloodCellEncoder()
    assert parameter_count(fresh) < 2_000_000
    assert packaged_weights().stat().st_size < 6_000_000


def test_packaged_weights_are_half_precision_and_pinned(encoder: Encoder) -> None:
    stored = load_file(packaged_weights())
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert all(p.dtype == torch.float32 for p in encoder.parameters())
    assert ENCODERS["blood_cell"].sha256 == WEIGHTS_SHA256
    assert "CC BY 4.0" in ENCODERS["blood_cell"].licence


@torch.no_grad()
def test_drawn_kinds_lie_apart(encoder: Encoder) -> None:
    """A lymphocyte is nearer to the other lymphocytes than to neutrophils, and the reverse."""
    kinds = (CellType.LYMPHOCYTE, CellType.SEGMENTED_NEUTROPHIL)
    first, second = (torch.cat([encoder(_isolated(k, i)) for i in range(6)]) for k in kinds)
    apart = (first.mean(0) - second.mean(0)).norm()
    for own in (first, second):
        assert (own - own.mean(0)).norm(dim=1).mean() < apart


@torch.no_grad()
def test_a_change_of_stain_moves_less_than_a_change_of_kind(encoder: Encoder) -> None:
    lymphocytes = torch.cat([_isolated(CellType.LYMPHOCYTE, i) for i in range(6)])
    neutrophils = torch.cat([_isolated(CellType.SEGMENTED_NEUTROPHIL, i) for i in range(6)])
    density = -(lymphocytes * 255 / 245).clamp(min=0.02).log()
    gain = torch.tensor([1.15, 1.0, 0.85]).view(1, 3, 1, 1)
    stained = (-density * gain).exp() * 245 / 255
    kept, restained, other = (encoder(x).mean(0) for x in (lymphocytes, stained, neutrophils))
    assert (kept - restained).norm() < (kept - other).norm()


@torch.no_grad()
def test_turning_and_mirroring_change_little(encoder: Encoder) -> None:
    cell = _isolated(CellType.MONOCYTE)
    found = encoder(cell)
    for turned in (cell.flip(3), cell.flip(2), cell.rot90(1, (2, 3))):
        assert float((encoder(turned) - found).norm() / found.norm()) < 0.25


@torch.no_grad()
def test_the_rim_of_the_crop_is_not_seen(encoder: Encoder) -> None:
    cell = torch.rand(1, 3, INPUT_PX, INPUT_PX)
    changed = cell.clone()
    changed[..., :8, :] = 0
    changed[..., -8:] = 1
    torch.testing.assert_close(encoder(changed), encoder(cell))
