"""A small residual network of dense convolutions that trains from scratch on a CPU.

Source: He et al., CVPR 2016 (basic blocks), with group normalisation (Wu and He, ECCV 2018), so
that a cell's vector does not depend on the other cells of the step: the exact two-pass gradient
of maximum fusion needs that. This module owns the architecture; there are no published weights.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from millie.models.encoder import Encoder

INPUT_PX = 96
"""A 25 um crop at 0.26 um/px: granules of 0.5 um still have two pixels."""

_WIDTHS = (32, 64, 128, 256)
_GROUP_CHANNELS = 16


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut.

    Args:
        channels: of the input.
        width: of the output.
        stride: of the first convolution.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(width // _GROUP_CHANNELS, width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(width // _GROUP_CHANNELS, width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, h, w) -> (N, width, h / stride, w / stride)."""
        out = functional.relu(self.norm1(self.conv1(maps)))
        return functional.relu(self.norm2(self.conv2(out)) + self.shortcut(maps))


class ResnetSmall(Encoder):
    """A stem and four residual blocks, 32 to 256 channels; 256 features."""

    def __init__(self) -> None:
        super().__init__("resnet_small", _WIDTHS[-1], INPUT_PX, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        self.stem = nn.Conv2d(3, _WIDTHS[0], 5, stride=2, padding=2, bias=False)
        self.norm = nn.GroupNorm(_WIDTHS[0] // _GROUP_CHANNELS, _WIDTHS[0])
        channels, blocks = _WIDTHS[0], []
        for width in _WIDTHS:
            blocks.append(ResidualBlock(channels, width, stride=2))
            channels = width
        self.blocks = nn.Sequential(*blocks)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def feature_maps(self, images: Tensor) -> Tensor:
        """Maps (N, 256, 3, 3)."""
        maps: Tensor = self.blocks(functional.relu(self.norm(self.stem(images))))
        return maps
