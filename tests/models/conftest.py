"""A drawn cell as an encoder of isolated cells sees it."""

from __future__ import annotations

import numpy as np
import torch

from millie.bags.loading import apply_background, to_tensor
from millie.models.morphology import CROP_UM
from millie.synthetic import CellType, PatientStyle, draw_cell


def isolated(kind: CellType, seed: int = 0, side_px: int = 224) -> torch.Tensor:
    """The cell on white in a crop of 25 um; (1, 3, side_px, side_px)."""
    style = PatientStyle()
    rng = np.random.default_rng(seed)
    drawn = draw_cell(kind, CROP_UM / side_px, side_px, rng, style)
    middle = drawn.cell_labels[side_px // 2, side_px // 2]
    mask = (drawn.cell_labels == middle).astype(np.uint8)[None]
    colours = np.array([style.background_rgb()], np.float32)
    return to_tensor(apply_background(drawn.image[None], mask, "isolate", colours))
