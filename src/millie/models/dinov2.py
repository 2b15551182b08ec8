"""DINOv2 vision transformers with patches of 14 px, as transformers implements them.

Source: Oquab et al., DINOv2, TMLR 2024; its small and base networks, on 224 px as DinoBloom has
them (Koch et al., MICCAI 2024: DINOv2 trained further on single white cells). A cell's vector is
the class token after the last normalisation, which is what both papers evaluate. transformers is
imported only where such an encoder is built: it takes seconds. This module reads no files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from millie.models.encoder import Encoder
from millie.models.vgg import IMAGENET_MEAN, IMAGENET_STD
from millie.models.vision import transformers_module

INPUT_PX = 224
PATCH_PX = 14

PREFIX = "model."
"""Of this encoder's names, before those of transformers."""

UNUSED = tuple(
    part + name for part in ("", "backbone.") for name in ("dino_head.", "ibot_head.", "mask_token")
)
"""Beginnings of names that only DINOv2's own training needs."""

_NAMES = (
    (r"^backbone\.", ""),
    (r"^(cls_token)$", r"embeddings.\1"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^blocks\.(\d+)\.", r"encoder.layer.\1."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.ls(\d)\.gamma$", r".layer_scale\1.lambda1"),
    (r"^norm\.", "layernorm."),
)
"""Names in the DINOv2 repository (its checkpoints put ``backbone.`` before) and in transformers."""


class Dinov2(Encoder):
    """A DINOv2 transformer; the class token (D,) of a cell.

    Args:
        name: as in the table of encoders.
        dim: D.
        heads: of attention.
        depth: layers.

    Raises:
        MissingPackageError: transformers is not installed.
    """

    def __init__(self, name: str, dim: int, heads: int, depth: int = 12) -> None:
        super().__init__(name, dim, INPUT_PX, IMAGENET_MEAN, IMAGENET_STD)
        dinov2 = transformers_module("dinov2", name)
        self.model = dinov2.Dinov2Model(
            dinov2.Dinov2Config(
                hidden_size=dim,
                num_attention_heads=heads,
                num_hidden_layers=depth,
                image_size=INPUT_PX,
                patch_size=PATCH_PX,
                use_mask_token=False,
            )
        )

    def feature_maps(self, images: Tensor) -> Tensor:
        """The class token as maps (N, D, 1, 1) of images (N, 3, 224, 224)."""
        token: Tensor = self.model(images).pooler_output
        return token[..., None, None]


def transformers_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under transformers' names; others than the DINOv2 repository's stay as they are.

    Args:
        tensors: of a checkpoint of the DINOv2 repository or of DinoBloom, without :data:`UNUSED`.
    """
    own: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901
        if ".attn.qkv." in name:  # one matrix there: queries, keys and values under each other
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                own[name.replace(".attn.qkv.", f".attention.{part}_proj.")] = third
        else:
            own[name] = tensor
    return own


def dinobloom_s() -> Dinov2:
    """DINOv2's small network, 22 million weights."""
    return Dinov2("dinobloom_s", 384, 6)


def dinobloom_b() -> Dinov2:
    """DINOv2's base network, 86 million weights."""
    return Dinov2("dinobloom_b", 768, 12)
