"""A network for the segmentation, in torch.

Owns the layers and their order in the stored weights. One level of the pyramid halves the
resolution: 0.8, 1.6, 3.2 and 6.4 um/px for an input at 0.4.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

WIDTHS = (16, 32, 64, 96)
HEAD = 24
OUTPUTS = 14
"""Nucleus 4 and cell 4 (quarters of a pixel), centre, red cell, platelet, smudge, dx, dy."""


class Block(nn.Sequential):
    """Convolution 3 x 3, normalisation, ReLU."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
        )


class LeukocyteNet(nn.Module):
    """A narrow U-Net whose levels are joined by sums.

    Input (N, 3, H, W), H and W multiples of 16; output (N, 14, H/2, W/2) logits and offsets in
    units of 5 um, and (N, 2, H/16, W/16) log2 of the scale over 0.4 um/px with the log of its
    spread.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.unshuffle = nn.PixelUnshuffle(2)
        self.down = nn.ModuleList(
            [nn.Sequential(Block(12, widths[0]), Block(widths[0], widths[0]))]
        )
        for before, after in pairwise(widths):
            self.down.append(nn.Sequential(Block(before, after, 2), Block(after, after)))
        self.deep = Block(widths[-1], widths[-1])
        self.across = nn.ModuleList()
        self.up = nn.ModuleList()
        for fine, coarse in pairwise(widths):
            self.across.append(nn.Conv2d(coarse, fine, 1))
            self.up.append(Block(fine, HEAD if fine == widths[0] else fine))
        self.head = nn.Conv2d(HEAD, OUTPUTS, 1)
        self.scale = nn.Conv2d(widths[-1], 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        levels = []
        x = self.unshuffle(x)
        for step in self.down:
            x = step(x)
            levels.append(x)
        x = self.deep(x)
        scale = self.scale(x)
        for k in range(len(self.up) - 1, -1, -1):
            x = nn.functional.interpolate(self.across[k](x), scale_factor=2.0, mode="nearest")
            x = self.up[k](x + levels[k])
        return self.head(x), scale
