"""The blood-cell encoder: a small residual network trained on leukocytes, beside measurements.

*Supervised variant*: the network's weights come from types of normal blood under strong changes of
stain and camera, from blasts as diagnoses tell them, and from the likeness of two views of
unlabelled cells (``benchmarks/training/``). It expects the cell alone on white
(``model.background = "isolate"``) in a crop of 25 um. Batch normalisation is folded into the
convolutions, so a cell's vector depends on that cell alone. This module owns the architecture.

Source: He et al., CVPR 2016 (basic blocks).
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from millie.models.encoder import CellTypes, Encoder
from millie.models.morphology import MorphologyEncoder

INPUT_PX = 128
"""A 25 um crop at 0.195 um/px, as the measurements expect it."""

LICENCE = (
    "Apache-2.0 (part of this package); trained on types of normal cells of PBC (Acevedo et al. "
    "2020, doi 10.17632/snkd93bnjr.1, CC BY 4.0), of AML-Cytomorphology LMU and the bone-marrow "
    "set MLL (TCIA, CC BY 4.0) and BCISC (Apache-2.0); on diagnoses and unlabelled cells of "
    "DeepAPL, ALL-IDB, B-ALL (Aria et al.), BCCD, TXL-PBC, Raabin, Zheng 2018 and LMU; research "
    "use only"
)
WEIGHTS_SHA256 = "411168dd7578996effb6523a7d250ee8ae3809dc026c8a4d780fc6a1013cdb83"
"""Of ``blood_cell.safetensors``."""

_SEEN_PX = 112  # 0.22 um/px for the network: granules of 0.5 um have two pixels
_MARGIN_PX = 8  # of that, seen are the central 21.4 um
_FARTHEST = 5.0  # standard deviations of a measurement
_STEM, _WIDTHS = 32, (48, 96, 192, 192)

TYPES = (
    "segmented neutrophil", "band neutrophil", "metamyelocyte", "myelocyte", "promyelocyte",
    "eosinophil", "basophil", "monocyte", "lymphocyte", "erythroblast", "no leukocyte",
    "lymphoblast", "myeloblast",
)  # fmt: skip
"""Types of normal cells as experts named them; the blasts are learnt from diagnoses."""

LINES = {
    "neutrophil": ("segmented neutrophil", "band neutrophil"),
    "immature granulocyte": ("metamyelocyte", "myelocyte", "promyelocyte"),
    "monocyte": ("monocyte",),
    "lymphocyte": ("lymphocyte",),
    "blast": ("lymphoblast", "myeloblast"),
}
"""Lines that hardly a patient has none of, and blasts; eosinophils, basophils and erythroblasts are
too rare among fifty cells to be described by a mean of their own."""

IMMATURE = ("promyelocyte", "lymphoblast", "myeloblast")
"""Types that healthy blood hardly shows, and acute leukaemia does."""

MATURE = ("neutrophil", "lymphocyte")
"""A patient's own reference: what changes these as well is the film rather than the disease."""


class FoldedBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, normalisation folded in.

    Args:
        channels: of the input.
        width: of the output; more channels than before come with half the side.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        stride = 1 if width == channels else 2
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            self.shortcut = nn.Conv2d(channels, width, 1, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, h, w) -> (N, width, h, w), or half of h and w."""
        out = self.conv2(functional.relu(self.conv1(maps)))
        return functional.relu(out + self.shortcut(maps))


class BloodCellEncoder(Encoder):
    """192 learnt features and 82 measurements, mixed so that nuisance is small; 274 features.

    ``types`` reads from a vector which type of cell it looks like. The last map was
    fitted without diagnoses: after it, what another stain, camera or outline does
    to the mean vector of a patient's cells is small and equal in every direction (within-class
    covariance normalisation, Hatch et al., Interspeech 2006).
    """

    measured_mean: Tensor
    measured_std: Tensor

    def __init__(self) -> None:
        measurements = MorphologyEncoder()
        dim = _WIDTHS[-1] + measurements.dim
        super().__init__("blood_cell", dim, INPUT_PX, (0.75,) * 3, (0.25,) * 3)
        self.stem = nn.Conv2d(3, _STEM, 5, 2, 2)
        widths = (_STEM, *_WIDTHS)
        self.blocks = nn.Sequential(*(FoldedBlock(*pair) for pair in pairwise(widths)))
        self.measurements = measurements
        self.register_buffer("measured_mean", torch.zeros(measurements.dim))
        self.register_buffer("measured_std", torch.ones(measurements.dim))
        self.whitening = nn.Linear(dim, dim)
        lines = [[float(name in types) for types in LINES.values()] for name in TYPES]
        mature = torch.tensor([float(name in MATURE) for name in LINES])
        self.types = CellTypes(dim, torch.tensor(lines), mature, TYPES)

    def forward(self, images: Tensor) -> Tensor:
        """Vectors (N, 274), centred on blood cells.

        Raises:
            ConfigError: the shape is not (N, 3, S, S) or the type not floating point.
        """
        vectors: Tensor = self.whitening(self.parts(images))
        return vectors

    def parts(self, images: Tensor) -> Tensor:
        """Learnt features, then standardised measurements (N, 274), before they are mixed."""
        learnt = super().forward(images)
        measured = (self.measurements(self.resize(images)) - self.measured_mean) / self.measured_std
        return torch.cat([learnt, measured.clamp(-_FARTHEST, _FARTHEST)], dim=1)

    def feature_maps(self, images: Tensor) -> Tensor:
        """Maps (N, 192, 6, 6) of the centre of normalised images."""
        seen = functional.interpolate(
            images, size=(_SEEN_PX, _SEEN_PX), mode="bilinear", antialias=True, align_corners=False
        )
        centre = seen[..., _MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX]
        maps: Tensor = self.blocks(functional.relu(self.stem(centre)))
        return maps


def packaged_weights() -> Path:
    """The weights file beside this module."""
    return Path(__file__).with_name("blood_cell.safetensors")
