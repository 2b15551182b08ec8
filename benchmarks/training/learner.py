"""The network that learns the encoder `blood_cell`, its running average, and the folding of both.

This module owns the architecture as it is trained (with batch normalisation); as it is used, it
stands in ``millie.models.blood_cell``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from cell_views import plain
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

TYPES = (
    "segmented neutrophil", "band neutrophil", "metamyelocyte", "myelocyte", "promyelocyte",
    "eosinophil", "basophil", "monocyte", "lymphocyte", "erythroblast", "no leukocyte",
)  # fmt: skip
BLASTS = ("lymphoblast", "myeloblast")
"""Types of the second training (``blasts.py``), from diagnoses."""
WIDTHS, BLOCKS, STEM = (48, 96, 192), (1, 1, 2), 32


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al., CVPR 2016)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False) if stride > 1 else None
        self.norm3 = nn.BatchNorm2d(width) if stride > 1 else None

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, h, w) -> (N, width, h, w), or half of h and w."""
        out = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(maps)))))
        if self.shortcut is not None and self.norm3 is not None:
            maps = self.norm3(self.shortcut(maps))
        return functional.relu(out + maps)


class Learner(nn.Module):
    """The encoder with batch normalisation, a layer of types and a projection for the contrast."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, STEM, 5, 2, 2, bias=False)
        self.norm = nn.BatchNorm2d(STEM)
        blocks, channels = [], STEM
        for width, number in zip(WIDTHS, BLOCKS, strict=True):
            for i in range(number):
                blocks.append(Block(channels, width, 2 if i == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.types = nn.Linear(channels, len(TYPES))
        self.projection = nn.Sequential(
            nn.Linear(channels, channels), nn.BatchNorm1d(channels), nn.ReLU(),
            nn.Linear(channels, 96),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Vectors (N, 192) of views (N, 3, 96, 96)."""
        maps = (images - 0.75) / 0.25
        maps = self.blocks(functional.relu(self.norm(self.stem(maps))))
        pooled: Tensor = maps.mean(dim=(2, 3))
        return pooled

    @torch.no_grad()
    def widen(self, more: int) -> None:
        """Add types, as unlikely as the mean one at first."""
        before = self.types
        self.types = nn.Linear(before.in_features, before.out_features + more)
        self.types.weight.copy_(torch.cat([before.weight, torch.zeros(more, before.in_features)]))
        self.types.bias.copy_(torch.cat([before.bias, before.bias.mean().expand(more)]))

    def project(self, vectors: Tensor) -> Tensor:
        """Unit vectors (N, 96) for the contrast."""
        return functional.normalize(self.projection(vectors), dim=1)


class Teacher:
    """Running average of a learner's weights; sees batches as the learner does."""

    def __init__(self, learner: Learner) -> None:
        self.network = copy.deepcopy(learner).requires_grad_(requires_grad=False)
        self.steps = 0

    def follow(self, learner: Learner) -> None:
        """Move a little towards the learner."""
        self.steps += 1
        keep = min(0.997, (1 + self.steps) / (10 + self.steps))
        for mine, new in zip(self.network.parameters(), learner.parameters(), strict=True):
            mine.lerp_(new.detach(), 1 - keep)

    @torch.no_grad()
    def project(self, images: Tensor) -> Tensor:
        """Unit vectors (N, 96); the running statistics follow the views."""
        self.network.train()
        return self.network.project(self.network(images))

    @torch.no_grad()
    def scores(self, planes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities of the types of unchanged cells."""
        self.network.eval()
        chunks = [plain(planes[i : i + 128]) for i in range(0, len(planes), 128)]
        logits = [self.network.types(self.network(chunk)) for chunk in chunks]
        return np.asarray(torch.cat(logits).softmax(1).numpy())


def _pairs(network: Learner) -> dict[str, tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions with their normalisation under the package's names, in the order of the pass."""
    pairs = {"stem": (network.stem, network.norm)}
    for i, block in enumerate(network.blocks):
        pairs |= {f"blocks.{i}.conv{n}": (getattr(block, f"conv{n}"), getattr(block, f"norm{n}"))
                  for n in (1, 2)}  # fmt: skip
        if block.shortcut is not None:
            pairs[f"blocks.{i}.shortcut"] = (block.shortcut, block.norm3)
    return pairs


@torch.no_grad()
def resume_folded(network: Learner, tensors: Mapping[str, Tensor], images: Tensor) -> None:
    """Give a network the function of folded weights; normalisation is set to undo itself.

    Args:
        network: changed in place.
        tensors: of the package's encoder.
        images: typical views (N, 3, 96, 96), from which the statistics are taken.
    """
    network.eval()
    seen: dict[str, Tensor] = {}
    for name, (conv, norm) in _pairs(network).items():
        conv.weight.copy_(tensors[f"{name}.weight"])
        hook = conv.register_forward_hook(lambda _m, _i, out: seen.update(out=out))
        network(images)
        hook.remove()
        norm.running_mean.copy_(seen["out"].mean((0, 2, 3)))
        norm.running_var.copy_(seen["out"].var((0, 2, 3)))
        norm.weight.copy_((norm.running_var + norm.eps).sqrt())
        norm.bias.copy_(norm.running_mean + tensors[f"{name}.bias"])


def folded(network: Learner) -> dict[str, Tensor]:
    """Weights (float16) of the package's encoder: normalisation folded into the convolutions."""
    network.eval()
    tensors = {}
    for name, (conv, norm) in _pairs(network).items():
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        tensors[f"{name}.weight"] = conv.weight * gain[:, None, None, None]
        tensors[f"{name}.bias"] = norm.bias - norm.running_mean * gain
    return {k: v.detach().to(torch.float16).contiguous() for k, v in tensors.items()}
