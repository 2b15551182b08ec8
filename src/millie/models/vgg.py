"""The convolutional layers of VGG-16 and VGG-19, under torchvision's names.

Source: Simonyan and Zisserman, ICLR 2015, table 1, configurations D and E. The MILLIE paper feeds
"conv layers of VGG-19" into the fusion and does not say how the maps become a vector: here each of
the 512 maps of pool5 is averaged. Flattened, a 200 px crop would give 18,432 features a cell, and
the first FC layer alone 19 million weights for some hundred patients. This module loads no weights.
"""

from __future__ import annotations

from torch import Tensor, nn

from millie.models.encoder import Encoder

INPUT_PX = 200
"""The paper's tile."""

Blocks = tuple[tuple[int, int], ...]
"""Channels and number of 3 x 3 convolutions before each of the five poolings."""

VGG16_BLOCKS: Blocks = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
VGG19_BLOCKS: Blocks = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""RGB intensities 0 to 1, as the torchvision and timm weights expect."""

AUTHORS_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)
AUTHORS_STD = (1 / 255, 1 / 255, 1 / 255)
"""What the authors' own weights expect: 0 to 255 minus the mean pixel. Given in RGB here; they give
it in BGR, so the first layer's channels are turned round where the weights are converted."""


class Vgg(Encoder):
    """A VGG up to pool5; 512 features. ``features.N`` are the names of timm and torchvision.

    Args:
        name: as in the table of encoders.
        blocks: of its configuration.
        offset: see :class:`Encoder`.
        scale: see :class:`Encoder`.
    """

    def __init__(
        self,
        name: str,
        blocks: Blocks,
        offset: tuple[float, float, float],
        scale: tuple[float, float, float],
    ) -> None:
        super().__init__(name, blocks[-1][0], INPUT_PX, offset, scale)
        layers: list[nn.Module] = []
        channels = 3
        for width, repeats in blocks:
            for _ in range(repeats):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2, stride=2))
        self.features = nn.Sequential(*layers)
        for layer in self.features:
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def feature_maps(self, images: Tensor) -> Tensor:
        """Pool5 maps (N, 512, 6, 6) for 200 px."""
        maps: Tensor = self.features(images)
        return maps


def vgg16() -> Vgg:
    """Configuration D, for the authors' weights."""
    return Vgg("vgg16", VGG16_BLOCKS, AUTHORS_MEAN, AUTHORS_STD)


def vgg19() -> Vgg:
    """Configuration E, for the weights of timm and torchvision."""
    return Vgg("vgg19", VGG19_BLOCKS, IMAGENET_MEAN, IMAGENET_STD)
