"""Measurements of drawn cells: what a haematologist would read off them."""

from __future__ import annotations

import warnings

import numpy as np
import openvino
import pytest
import torch

from millie.models.morphology import INPUT_PX, MorphologyEncoder
from millie.synthetic import CellType

from .conftest import isolated

SIZE, NUCLEUS_SIZE, RATIO = 0, 1, 2


@pytest.fixture(scope="module")
def encoder() -> MorphologyEncoder:
    return MorphologyEncoder().eval()


@torch.no_grad()
def test_a_promyelocyte_is_larger_than_a_lymphocyte(encoder: MorphologyEncoder) -> None:
    large = torch.cat([encoder(isolated(CellType.APL_PROMYELOCYTE, i)) for i in range(4)])
    small = torch.cat([encoder(isolated(CellType.LYMPHOCYTE, i)) for i in range(4)])
    assert large[:, SIZE].min() > small[:, SIZE].max()
    area_um2 = small[:, SIZE].exp().mean()
    assert 25 < area_um2 < 140


@torch.no_grad()
def test_a_lymphoblast_has_little_cytoplasm(encoder: MorphologyEncoder) -> None:
    blast = torch.cat([encoder(isolated(CellType.LYMPHOBLAST, i)) for i in range(4)])
    monocyte = torch.cat([encoder(isolated(CellType.MONOCYTE, i)) for i in range(4)])
    assert blast[:, RATIO].mean() > monocyte[:, RATIO].mean() + 0.1


@torch.no_grad()
def test_turning_and_mirroring_change_nothing(encoder: MorphologyEncoder) -> None:
    cell = isolated(CellType.MYELOBLAST)
    found = encoder(cell)
    for turned in (cell.flip(3), cell.flip(2)):
        torch.testing.assert_close(encoder(turned), found, atol=0.06, rtol=0.02)


@torch.no_grad()
def test_size_does_not_follow_the_resolution(encoder: MorphologyEncoder) -> None:
    coarse = encoder(isolated(CellType.LYMPHOBLAST, side_px=INPUT_PX))
    fine = encoder(isolated(CellType.LYMPHOBLAST, side_px=2 * INPUT_PX))
    assert abs(float(coarse[0, SIZE] - fine[0, SIZE])) < 0.35


@torch.no_grad()
def test_openvino_measures_the_same(encoder: MorphologyEncoder) -> None:
    cells = torch.cat([isolated(kind) for kind in CellType])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO 2026.4 traces with torch.jit, deprecated
        shape = [-1, *cells.shape[1:]]
        model = openvino.convert_model(encoder, example_input=cells, input=shape)
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled(cells.numpy())[0], encoder(cells), atol=2e-3, rtol=1e-3)


@torch.no_grad()
def test_an_empty_crop_is_finite(encoder: MorphologyEncoder) -> None:
    assert bool(encoder(torch.full((1, 3, 64, 64), 245 / 255)).isfinite().all())
    assert bool(encoder(torch.zeros(1, 3, 64, 64)).isfinite().all())
