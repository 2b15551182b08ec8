"""Encoders of other people's images by transformers: ViT-B/16 and ConvNeXt-T.

Sources: Dosovitskiy et al., ICLR 2021 (``google/vit-base-patch16-224-in21k``): a cell's vector is
the class token after the last normalisation. Liu et al., CVPR 2022 (``convnext-tiny-224`` of
facebook): it is the mean of the last maps, normalised. Both have learnt from photographs of
everyday things. transformers is imported only where such an encoder is built: it takes seconds.
This module reads no files.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from types import ModuleType

from torch import Tensor

from millie.errors import MissingPackageError
from millie.models.encoder import Encoder
from millie.models.vgg import IMAGENET_MEAN, IMAGENET_STD

INPUT_PX = 224

PREFIX = "model."
"""Of these encoders' names, before those of transformers."""

UNUSED = tuple(
    part + name for part in ("", "vit.", "convnext.") for name in ("pooler.", "classifier.")
)
"""Beginnings of names that only classification needs."""

_HALF = (0.5, 0.5, 0.5)

_NAMES = (
    (r"^(vit|convnext)\.", ""),
    (r"^encoder\.layer\.", "layers."),
    (r"attention\.attention\.(query|key|value)\.", lambda m: f"attention.{m[1][0]}_proj."),
    (r"attention\.output\.dense\.", "attention.o_proj."),
    (r"^(layers\.\d+)\.intermediate\.dense\.", r"\1.mlp.fc1."),
    (r"^(layers\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)
"""Names in the published files, and in transformers 5."""


def transformers_module(package: str, encoder: str) -> ModuleType:
    """A module of transformers.

    Args:
        package: its name, such as ``vit``.
        encoder: that needs it.

    Raises:
        MissingPackageError: transformers is not installed.
    """
    try:
        return importlib.import_module(f"transformers.models.{package}")
    except ImportError as error:
        raise MissingPackageError(
            f"model.encoder={encoder} needs transformers: pip install 'millie[zoo]'"
        ) from error


class Vit(Encoder):
    """A vision transformer with patches of 16 px; the class token (D,) of a cell.

    Args:
        name: as in the table of encoders.
        dim: D.
        heads: of attention.
        depth: layers.

    Raises:
        MissingPackageError: transformers is not installed.
    """

    def __init__(self, name: str, dim: int, heads: int, depth: int = 12) -> None:
        super().__init__(name, dim, INPUT_PX, _HALF, _HALF)
        vit = transformers_module("vit", name)
        config = vit.ViTConfig(
            hidden_size=dim,
            intermediate_size=4 * dim,
            num_attention_heads=heads,
            num_hidden_layers=depth,
            image_size=INPUT_PX,
            patch_size=16,
        )
        self.model = vit.ViTModel(config, add_pooling_layer=False)

    def feature_maps(self, images: Tensor) -> Tensor:
        """The class token as maps (N, D, 1, 1) of images (N, 3, 224, 224)."""
        tokens: Tensor = self.model(images).last_hidden_state
        return tokens[:, 0, :, None, None]


class ConvNext(Encoder):
    """A ConvNeXt; the normalised mean (D,) of the last maps of a cell.

    Args:
        name: as in the table of encoders.
        widths: channels of the four stages; the last is D.
        depths: layers of each.

    Raises:
        MissingPackageError: transformers is not installed.
    """

    def __init__(
        self, name: str, widths: tuple[int, int, int, int], depths: tuple[int, int, int, int]
    ) -> None:
        super().__init__(name, widths[-1], INPUT_PX, IMAGENET_MEAN, IMAGENET_STD)
        convnext = transformers_module("convnext", name)
        config = convnext.ConvNextConfig(hidden_sizes=list(widths), depths=list(depths))
        self.model = convnext.ConvNextModel(config)

    def feature_maps(self, images: Tensor) -> Tensor:
        """The vector as maps (N, D, 1, 1) of images (N, 3, 224, 224)."""
        vectors: Tensor = self.model(images).pooler_output
        return vectors[..., None, None]


def transformers_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a published file under the names of transformers 5; these stay as they are."""
    own: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901
        own[name] = tensor
    return own


def vit_b16() -> Vit:
    """ViT-B/16, 86 million weights."""
    return Vit("vit_b16", 768, 12)


def convnext_t() -> ConvNext:
    """ConvNeXt-T, 28 million weights."""
    return ConvNext("convnext_t", (96, 192, 384, 768), (3, 3, 9, 3))
