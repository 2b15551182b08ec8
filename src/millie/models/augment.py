"""Random augmentation of crops: draw parameters, apply them, keep the record.

A :class:`Draw` says all that happens to one crop; applying it again gives the same crop on any
machine, alone or in a batch. Geometry is one resampling, colour one 3 x 3 matrix and an exponent.
This module owns no random state and chooses no crops.

Source: Manescu et al. 2023, Methods: random rotation, flips, hue, gamma and noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from millie.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from millie.config import AugmentConfig

_RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
"""Luminance and two axes of chroma (NTSC 1953); hue is the angle in the plane of the two."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What happens to one crop, in this order.

    Attributes:
        rotation_degrees: counter-clockwise.
        mirror_x: left and right change places (before the rotation).
        mirror_y: top and bottom change places.
        zoom: above 1 enlarges; what enters at the border is reflected.
        hue: turn of the colour circle, 1 is a full turn.
        saturation: factor of the chroma; 0 is grey.
        gamma: exponent of intensities 0 to 1.
        noise_sd: of Gaussian noise, intensity 1.
        noise_seed: of that noise.
    """

    rotation_degrees: float = 0.0
    mirror_x: bool = False
    mirror_y: bool = False
    zoom: float = 1.0
    hue: float = 0.0
    saturation: float = 1.0
    gamma: float = 1.0
    noise_sd: float = 0.0
    noise_seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """A record read back.

        Raises:
            ConfigError: an unknown name.
        """
        if unknown := sorted(values.keys() - cls.__dataclass_fields__.keys()):
            raise ConfigError(f"record of an augmentation: unknown '{unknown[0]}'")
        return cls(**values)


def draw(config: AugmentConfig, rng: np.random.Generator) -> Draw:
    """Parameters for one crop.

    Every call takes the same number of values from the generator, so that a changed range leaves
    the other parameters as they were.
    """
    u = rng.uniform(-1.0, 1.0, size=5)
    mirror = rng.random(size=2) < 0.5
    return Draw(
        rotation_degrees=float(u[0] * config.rotation_degrees),
        mirror_x=bool(config.flip and mirror[0]),
        mirror_y=bool(config.flip and mirror[1]),
        zoom=float(1.0 + u[1] * config.scale),
        hue=float(u[2] * config.hue),
        saturation=float(1.0 + u[3] * config.saturation),
        gamma=float((1.0 + config.gamma) ** u[4]),
        noise_sd=float(rng.random() * config.noise),
        noise_seed=int(rng.integers(2**31)),
    )


def apply(images: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Augmented crops; the input is left as it was.

    Args:
        images: (N, 3, H, W) float in 0 to 1.
        draws: one a crop.

    Returns:
        (N, 3, H, W) in 0 to 1. A crop whose draw is ``Draw()`` comes back unchanged.

    Raises:
        ConfigError: wrong shape or type, or another number of draws than crops.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ConfigError(
            f"crops {images.dtype} {tuple(images.shape)}: expected float (N, 3, H, W), 0 to 1"
        )
    if len(draws) != len(images):
        raise ConfigError(f"{len(draws)} draws for {len(images)} crops: expected one a crop")
    out = images.clone()
    for step in (_geometry, _colour, _gamma, _noise):
        step(out, draws)
    return out


def _chosen(draws: Sequence[Draw], neutral: Draw, *fields: str) -> list[int]:
    """Indices of the draws that differ from the neutral one in a field."""
    return [
        i for i, d in enumerate(draws) if any(getattr(d, f) != getattr(neutral, f) for f in fields)
    ]


def _column(images: Tensor, values: Sequence[float]) -> Tensor:
    return images.new_tensor(values).view(-1, 1, 1)


def _geometry(images: Tensor, draws: Sequence[Draw]) -> None:
    """Rotate, mirror and zoom around the centre, bilinear, reflecting at the border."""
    chosen = _chosen(draws, Draw(), "rotation_degrees", "mirror_x", "mirror_y", "zoom")
    if not chosen:
        return
    picked = [draws[i] for i in chosen]
    height, width = images.shape[2:]
    # Pixel centres relative to the image's centre, in pixels: rotations stay rotations where
    # the image is not square.
    y = (torch.arange(height, device=images.device, dtype=images.dtype) - (height - 1) / 2)[:, None]
    x = (torch.arange(width, device=images.device, dtype=images.dtype) - (width - 1) / 2)[None, :]
    angles = [math.radians(d.rotation_degrees) for d in picked]
    cosine = _column(images, [math.cos(a) / d.zoom for a, d in zip(angles, picked, strict=True)])
    sine = _column(images, [math.sin(a) / d.zoom for a, d in zip(angles, picked, strict=True)])
    from_x = (cosine * x - sine * y) * _column(
        images, [-1.0 if d.mirror_x else 1.0 for d in picked]
    )
    from_y = (sine * x + cosine * y) * _column(
        images, [-1.0 if d.mirror_y else 1.0 for d in picked]
    )
    grid = torch.stack((from_x * (2 / width), from_y * (2 / height)), dim=-1)
    images[chosen] = functional.grid_sample(
        images[chosen], grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def _colour(images: Tensor, draws: Sequence[Draw]) -> None:
    """Turn the hue and stretch the chroma at constant luminance."""
    chosen = _chosen(draws, Draw(), "hue", "saturation")
    if not chosen:
        return
    to_yiq = torch.tensor(_RGB_TO_YIQ, dtype=torch.float64)
    turns = torch.stack([_chroma_matrix(draws[i]) for i in chosen])
    matrices = (torch.linalg.inv(to_yiq) @ turns @ to_yiq).to(images)
    pixels = images[chosen]
    # Written out channel by channel: a batched product may round differently by batch size.
    mixed = matrices[:, :, 0, None, None] * pixels[:, None, 0]
    for channel in (1, 2):
        mixed.addcmul_(matrices[:, :, channel, None, None], pixels[:, None, channel])
    images[chosen] = mixed.clamp_(0.0, 1.0)


def _chroma_matrix(one: Draw) -> Tensor:
    """Rotation and scaling of the chroma plane of YIQ, (3, 3)."""
    angle = 2 * math.pi * one.hue
    cosine, sine = one.saturation * math.cos(angle), one.saturation * math.sin(angle)
    return torch.tensor(
        ((1.0, 0.0, 0.0), (0.0, cosine, -sine), (0.0, sine, cosine)), dtype=torch.float64
    )


def _gamma(images: Tensor, draws: Sequence[Draw]) -> None:
    """Raise intensities to a power."""
    chosen = _chosen(draws, Draw(), "gamma")
    if chosen:
        exponents = _column(images, [draws[i].gamma for i in chosen])[..., None]
        images[chosen] = images[chosen] ** exponents


def _noise(images: Tensor, draws: Sequence[Draw]) -> None:
    """Add noise from each draw's own seed, on the CPU so that every device gives the same."""
    for i in _chosen(draws, Draw(), "noise_sd"):
        generator = torch.Generator().manual_seed(draws[i].noise_seed)
        noise = torch.randn(images.shape[1:], generator=generator).to(images)
        images[i] = (images[i] + noise * draws[i].noise_sd).clamp(0.0, 1.0)
