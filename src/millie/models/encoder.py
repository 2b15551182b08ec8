"""What every encoder is: a module from crops to one vector a cell.

Resizing and normalisation lie inside, so a converted encoder (OpenVINO, ONNX) takes the same crops.
A cell's vector never depends on the other cells of its batch: normalisation over batches is absent
or frozen. This module knows no particular architecture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from millie.errors import ConfigError


class CellTypes(nn.Linear):
    """Linear map from a cell's vector (D,) to the logits of types of cell, and each type's line.

    Args:
        dim: features D.
        lines: (T, K), 1 where a type belongs to a line of blood cells; a type of none of them (rare
            ones, red cells) has a row of zeros.
        mature: (K,), 1 for lines of mature cells that hardly a patient has none of.
        names: of the T types, for people; may be missing.
    """

    lines: Tensor
    mature: Tensor

    def __init__(
        self, dim: int, lines: Tensor, mature: Tensor, names: tuple[str, ...] = ()
    ) -> None:
        super().__init__(dim, len(lines))
        self.names = names
        self.register_buffer("lines", lines, persistent=False)
        self.register_buffer("mature", mature, persistent=False)
        self.requires_grad_(requires_grad=False)

    @property
    def mature_names(self) -> tuple[str, ...]:
        """Types of mature cells."""
        mature = (self.lines @ self.mature > 0).tolist()
        return tuple(name for name, own in zip(self.names, mature, strict=False) if own)

    @torch.no_grad()
    def looks_like(self, vectors: Tensor) -> tuple[str, ...]:
        """The type that each cell (N, D) looks most like; nothing where types have no names."""
        if not self.names:
            return ()
        return tuple(self.names[i] for i in self(vectors).argmax(dim=1).tolist())


class Encoder(nn.Module, ABC):
    """Crops (N, 3, S, S) float32 in 0 to 1 -> vectors (N, D).

    When an encoder is traced, the decision whether to resize is frozen for the size S of the
    example: fix S in the converted model's input and leave only N free.

    Args:
        name: as in the table of encoders.
        dim: D.
        input_px: side of the image that the convolutions see; other sizes are resized.
        offset: subtracted from RGB intensities 0 to 1, one value a channel.
        scale: then divided by.

    Attributes:
        types: types of cell that the encoder has learnt to tell; None: none.
    """

    offset: Tensor
    scale: Tensor

    def __init__(
        self,
        name: str,
        dim: int,
        input_px: int,
        offset: tuple[float, float, float],
        scale: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.name = name
        self.dim = dim
        self.types: CellTypes | None = None
        self.input_px = input_px
        self.register_buffer("offset", torch.tensor(offset).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(scale).view(1, 3, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the encoder lies, with or without weights."""
        return self.offset.device

    def forward(self, images: Tensor) -> Tensor:
        """Vectors (N, D), global average of the last feature maps.

        Raises:
            ConfigError: the shape is not (N, 3, S, S) or the type not floating point.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ConfigError(
                f"crops {images.dtype} {tuple(images.shape)}: expected float (N, 3, S, S), 0 to 1"
            )
        return self.feature_maps((self.resize(images) - self.offset) / self.scale).mean(dim=(2, 3))

    def resize(self, images: Tensor) -> Tensor:
        """Images (N, 3, input_px, input_px); averaged over the area where they shrink.

        Training may call it before the augmentation, which then works on fewer pixels.
        """
        side = self.input_px
        if images.shape[2] == side and images.shape[3] == side:
            return images
        return functional.interpolate(
            images, size=(side, side), mode="bilinear", antialias=True, align_corners=False
        )

    @abstractmethod
    def feature_maps(self, images: Tensor) -> Tensor:
        """Maps (N, D, h, w) of normalised images (N, 3, input_px, input_px)."""
