"""The convolutional layers of VGG-19, with the names of the published ImageNet weights.

Source: Simonyan and Zisserman, ICLR 2015, table 1, configuration E. The MILLIE paper feeds "conv
layers of VGG-19" into the fusion and does not say how the maps become a vector: here each of the
512 maps of pool5 is averaged. Flattened, a 200 px crop would give 18,432 features a cell, and the
first FC layer alone 19 million weights for some hundred patients. This module loads no weights.
"""

from __future__ import annotations

from torch import Tensor, nn

from millie.models.encoder import Encoder

INPUT_PX = 200
"""The paper's tile."""

_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and number of 3 x 3 convolutions before each of the five poolings."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""RGB intensities 0 to 1, as the torchvision and timm weights expect."""


class Vgg19(Encoder):
    """VGG-19 up to pool5; 512 features. ``features.N`` are the names of timm and torchvision."""

    def __init__(self) -> None:
        super().__init__("vgg19", 512, INPUT_PX, IMAGENET_MEAN, IMAGENET_STD)
        layers: list[nn.Module] = []
        channels = 3
        for width, repeats in _BLOCKS:
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
