"""Measured properties of a cell as an encoder: size, shape, stain density, granularity.

What a haematologist names (size, nuclear outline, ratio of nucleus to cytoplasm, eccentricity,
basophilia, granules) as differentiable image measurements, without a single weight: nothing in it
was learnt from any cohort. It expects the cell alone on white (``model.background = "isolate"``).
Optical density follows Beer-Lambert; the nucleus is the darker of two classes of the cell's
pixels (iterated means, Ridler and Calvard 1978). This module owns the measurements.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from millie.errors import ConfigError
from millie.models.encoder import Encoder

INPUT_PX = 128
CROP_UM = 25.0
WHITE = 245 / 255
"""Intensity of the empty background after white balance; also the fill outside the cell."""

_SIGMAS_PX = (0.6, 1.2, 2.4, 4.8)  # 0.12 to 0.94 um: from fine granules to coarse chromatin
_CELL_DENSITY, _CELL_EDGE = 0.04, 0.01
_NUCLEUS_EDGE = 0.02
_NUCLEUS_DENSITY = (0.08, 0.6)
_N_FEATURES = 82

Moments = tuple[Tensor, Tensor, Tensor]


class MorphologyEncoder(Encoder):
    """82 measurements of a cell on white; lengths assume a crop of 25 um."""

    grid: Tensor

    def __init__(self) -> None:
        super().__init__("morphology", _N_FEATURES, INPUT_PX, (0.0,) * 3, (1.0,) * 3)
        self._um_px = CROP_UM / INPUT_PX
        kernels = {f"gauss{i}": _gaussian(sigma) for i, sigma in enumerate(_SIGMAS_PX)}
        self.kernels = nn.ModuleDict({name: _Blur(kernel) for name, kernel in kernels.items()})
        axis = torch.arange(INPUT_PX).float()
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        # Without weights the digest would not tell one definition from the next.
        self.register_buffer("definition", torch.tensor([1.0]))
        self.register_buffer("grid", torch.stack([rows, columns])[None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Vectors (N, 82) of crops (N, 3, S, S) float32 in 0 to 1.

        Raises:
            ConfigError: the shape is not (N, 3, S, S) or the type not floating point.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ConfigError(
                f"crops {images.dtype} {tuple(images.shape)}: expected float (N, 3, S, S), 0 to 1"
            )
        return self.feature_maps(self.resize(images)).flatten(1)

    def feature_maps(self, images: Tensor) -> Tensor:
        """The measurements as maps (N, 82, 1, 1)."""
        density = (-torch.log10(images.clamp(min=0.016) / WHITE)).clamp(-0.02, 1.6)
        cell, nucleus = self.regions(density)
        cytoplasm = (cell - nucleus).clamp(min=0)
        # A rim of one or two pixels around each border holds mixed colours: left out.
        inner = cytoplasm * _eroded(cell, 5) * (1 - functional.max_pool2d(nucleus, 3, 1, 1))
        features = [
            *self._forms(cell, nucleus, inner),
            *_stains(density, nucleus, inner, cytoplasm),
            *self._textures(density, nucleus, inner, cytoplasm),
        ]
        return torch.cat(features, dim=1)[..., None, None]

    def regions(self, density: Tensor) -> tuple[Tensor, Tensor]:
        """Soft masks (N, 1, S, S), 0 to 1, of cell and nucleus, of densities (N, 3, S, S)."""
        soft = self.kernels["gauss1"](density)
        darkest = soft.amax(dim=1, keepdim=True)
        cell = torch.sigmoid((darkest - _CELL_DENSITY) / _CELL_EDGE)
        red = soft[:, :1]
        threshold = (red * cell).sum((2, 3), keepdim=True) / (cell.sum((2, 3), keepdim=True) + 1)
        dark = threshold
        for _ in range(6):
            above = (red > threshold).float()
            dark = _mean_under(red, above * cell)
            threshold = (dark + _mean_under(red, (1 - above) * cell)) / 2
        # Without visible cytoplasm the two means lie close: then all that is dark is nucleus.
        threshold = torch.minimum(threshold, 0.72 * dark).clamp(*_NUCLEUS_DENSITY)
        return cell, torch.sigmoid((red - threshold) / _NUCLEUS_EDGE) * cell

    def _forms(self, cell: Tensor, nucleus: Tensor, inner: Tensor) -> list[Tensor]:
        """Sizes, ratios, outlines and the nucleus's offset."""
        size, centre, *outline = self._shape(cell)
        size_n, centre_n, *outline_n = self._shape(nucleus)
        offset = ((centre - centre_n) ** 2).sum(dim=1, keepdim=True).sqrt() * self._um_px
        ratio = torch.exp((size_n - size).clamp(-5, 0))
        share = inner.sum((2, 3)) / (cell.sum((2, 3)) + 1)
        relative = offset / torch.exp(size / 2)
        return [size, size_n, ratio, share, *outline, *outline_n, offset, relative]

    def _shape(self, mask: Tensor) -> tuple[Tensor, ...]:
        """Log area (um2), centre (px), ratio of axes, spread and roughness against a disc."""
        area = mask.sum((2, 3)) + 1.0
        centre = (mask * self.grid).sum((2, 3)) / area
        away = self.grid - centre[..., None, None]
        rows, columns = away[:, :1], away[:, 1:]
        yy, xx, xy = ((mask * p).sum((2, 3)) / area for p in (rows**2, columns**2, rows * columns))
        trace = yy + xx
        root = ((trace / 2) ** 2 - (yy * xx - xy**2).clamp(min=1e-3)).clamp(min=0).sqrt()
        axes = ((trace / 2 - root).clamp(min=1e-3) / (trace / 2 + root + 1e-3)).sqrt()
        spread = torch.log(2 * math.pi * trace / area + 1e-3)
        down = mask[:, :, 1:, :-1] - mask[:, :, :-1, :-1]
        right = mask[:, :, :-1, 1:] - mask[:, :, :-1, :-1]
        edge = torch.sqrt(down**2 + right**2 + 1e-12).sum((2, 3))
        rough = torch.log(edge**2 / (4 * math.pi * area) + 1e-3)
        return torch.log(area * self._um_px**2), centre, axes, spread, rough

    def _textures(
        self, density: Tensor, nucleus: Tensor, inner: Tensor, cytoplasm: Tensor
    ) -> list[Tensor]:
        """Contrast and skew of three bands of detail, relative to the density around them."""
        red = density[:, 1:2] - density[:, :1]
        planes = torch.cat([density.mean(dim=1, keepdim=True), red], dim=1)
        levels = [blur(planes) for blur in self.kernels.values()]
        bands = torch.cat([a - b for a, b in pairwise(levels)], dim=1)
        in_nucleus, in_inner, in_cytoplasm = (
            _moments(bands, region) for region in (_eroded(nucleus, 5), inner, cytoplasm)
        )
        dark_n, dark_c = _darkness(density, nucleus), _darkness(density, inner)
        return [
            _log(in_nucleus[1] / dark_n),
            _log(in_inner[1] / dark_c),
            _log(in_cytoplasm[1] / dark_c),
            in_nucleus[2].clamp(-4, 4),
            in_inner[2].clamp(-4, 4),
        ]


class _Blur(nn.Module):
    """A separable Gaussian on each plane, edges repeated."""

    kernel: Tensor

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, planes: Tensor) -> Tensor:
        """(N, C, h, w) -> the same shape."""
        n, channels, height, width = planes.shape
        reach = len(self.kernel) // 2
        flat = planes.reshape(n * channels, 1, height, width)
        flat = functional.pad(flat, (reach, reach, 0, 0), mode="replicate")
        flat = functional.conv2d(flat, self.kernel.view(1, 1, 1, -1))
        flat = functional.pad(flat, (0, 0, reach, reach), mode="replicate")
        flat = functional.conv2d(flat, self.kernel.view(1, 1, -1, 1))
        return flat.reshape(n, channels, height, width)


def _gaussian(sigma: float) -> Tensor:
    reach = max(1, int(3 * sigma + 0.5))
    kernel = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * sigma**2))
    return kernel / kernel.sum()


def _stains(density: Tensor, nucleus: Tensor, inner: Tensor, cytoplasm: Tensor) -> list[Tensor]:
    """Densities by channel and region, their spread, and ratios without the stain's strength."""
    red = density[:, 1:2] - density[:, :1]
    blue = density[:, 2:] - density[:, 1:2]
    channels = torch.cat([density, red, blue], dim=1)
    mean_n, spread_n, _ = _moments(channels, nucleus)
    mean_i, spread_i, skew_i = _moments(channels, inner)
    mean_c, spread_c, _ = _moments(channels, cytoplasm)
    green_n, green_i = mean_n[:, 1:2] + 0.05, mean_i[:, 1:2] + 0.05
    ratios = torch.cat(
        [
            mean_n[:, :1] / green_n,
            mean_n[:, 2:3] / green_n,
            mean_i[:, :1] / green_i,
            mean_i[:, 2:3] / green_i,
            _darkness(density, inner) / _darkness(density, nucleus),
        ],
        dim=1,
    )
    skew = skew_i.clamp(-4, 4)
    return [mean_n, spread_n, mean_i, spread_i, skew, mean_c, spread_c, ratios]


def _moments(planes: Tensor, weights: Tensor) -> Moments:
    """Mean, deviation and skewness, each (N, C), of planes (N, C, h, w) under (N, 1, h, w)."""
    total = weights.sum((2, 3)) + 1e-3
    mean = (planes * weights).sum((2, 3)) / total
    away = planes - mean[..., None, None]
    spread = ((away * away * weights).sum((2, 3)) / total + 1e-6).sqrt()
    skew = (away**3 * weights).sum((2, 3)) / total / (spread**3 + 1e-5)
    return mean, spread, skew


def _darkness(density: Tensor, region: Tensor) -> Tensor:
    """Mean density (N, 1) over channels and region, never zero."""
    return _moments(density, region)[0].mean(dim=1, keepdim=True) + 0.05


def _mean_under(plane: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum((2, 3), keepdim=True) + 1e-3
    return (plane * weights).sum((2, 3), keepdim=True) / total


def _eroded(mask: Tensor, side: int) -> Tensor:
    return -functional.max_pool2d(-mask, side, 1, side // 2)


def _log(values: Tensor) -> Tensor:
    return torch.log(values + 1e-3)
