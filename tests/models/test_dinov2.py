"""DINOv2 encoders: checkpoints under the names of its repository, against its equations."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from millie.config import ModelConfig
from millie.errors import BundleError, MissingPackageError, MissingWeightsError
from millie.models import dinov2
from millie.models.encoders import ENCODERS, build_encoder, new_encoder

DIM, HEADS, DEPTH = 24, 3, 2


@pytest.fixture(scope="module", autouse=True)
def _transformers() -> None:
    pytest.importorskip("transformers", reason="pip install 'millie[zoo]'")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    """A row like DinoBloom's, of a smaller network."""
    row = dataclasses.replace(
        ENCODERS["dinobloom_s"],
        dim=DIM,
        build=lambda: dinov2.Dinov2("dinobloom_s", DIM, HEADS, DEPTH),
    )
    monkeypatch.setitem(ENCODERS, "dinobloom_s", row)
    return "dinobloom_s"


@pytest.fixture
def published() -> dict[str, Tensor]:
    """Random weights under the names and shapes of the DINOv2 repository."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, DIM),
        "pos_embed": (1, 257, DIM),
        "mask_token": (1, DIM),
        "patch_embed.proj.weight": (DIM, 3, 14, 14),
        "patch_embed.proj.bias": (DIM,),
        "norm.weight": (DIM,),
        "norm.bias": (DIM,),
    }
    layers = {"attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM)}
    layers |= {"mlp.fc1": (4 * DIM, DIM), "mlp.fc2": (DIM, 4 * DIM)}
    for block in range(DEPTH):
        for name, shape in layers.items():
            shapes[f"blocks.{block}.{name}.weight"] = shape
            shapes[f"blocks.{block}.{name}.bias"] = shape[:1]
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[f"blocks.{block}.{name}"] = (DIM,)
        shapes[f"blocks.{block}.ls1.gamma"] = shapes[f"blocks.{block}.ls2.gamma"] = (DIM,)
    drawn = torch.Generator().manual_seed(0)
    return {name: 0.3 * torch.randn(shape, generator=drawn) for name, shape in shapes.items()}


def class_tokens(crops: Tensor, w: dict[str, Tensor]) -> Tensor:
    """The forward pass as the paper and its repository have it: the class tokens (N, D)."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (dinov2.IMAGENET_MEAN, dinov2.IMAGENET_STD))
    x = functional.conv2d(
        (crops - mean) / std, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=14
    )
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], dim=1) + w["pos_embed"]

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, (DIM,), w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6)

    def linear(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    for block in (f"blocks.{i}" for i in range(DEPTH)):
        n, tokens, _ = x.shape
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = qkv.reshape(n, tokens, 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-2, -1) * (DIM // HEADS) ** -0.5).softmax(dim=-1)
        mixed = (attention @ v).transpose(1, 2).reshape(n, tokens, DIM)
        x = x + w[f"{block}.ls1.gamma"] * linear(mixed, f"{block}.attn.proj")
        hidden = functional.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
        x = x + w[f"{block}.ls2.gamma"] * linear(hidden, f"{block}.mlp.fc2")
    return norm(x, "norm")[:, 0]


def crops(n: int, side: int = 224) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layout", ["Zenodo", "Hub"])
def test_checkpoints_give_the_class_token_of_the_paper(
    layout: str, small: str, published: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "DinoBloom-S.pth"
    content: object = published
    if layout == "Zenodo":
        teacher = {f"backbone.{name}": tensor for name, tensor in published.items()}
        content = {"teacher": teacher | {"dino_head.mlp.0.bias": torch.zeros(2)}}
    torch.save(content, path)
    encoder = build_encoder(ModelConfig(encoder=small, weights=path))
    with torch.no_grad():
        found, alone = encoder(crops(2)), encoder(crops(2)[1:])
    torch.testing.assert_close(found, class_tokens(crops(2), published), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[1:], alone, atol=1e-4, rtol=1e-4)
    torch.save(encoder.state_dict(), path)
    again = build_encoder(ModelConfig(encoder=small, weights=path))
    with torch.no_grad():
        assert torch.equal(again(crops(2)), found)


def test_positions_for_other_sizes_are_refused(
    small: str, published: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "dinov2_vits14_pretrain.pth"  # of 518 px: 37 x 37 places and the class token
    torch.save(published | {"pos_embed": torch.zeros(1, 1370, DIM)}, path)
    with pytest.raises(BundleError, match=r"\(1, 1370, 24\), expected torch.float32 \(1, 257, 24"):
        build_encoder(ModelConfig(encoder=small, weights=path))


def test_every_weight_learns_and_openvino_gives_the_same(small: str) -> None:
    encoder, x = new_encoder(small), crops(2, 120)
    encoder(x).square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO traces with torch.jit, deprecated
        model = openvino.convert_model(encoder, example_input=x, input=[-1, 3, 120, 120])
    compiled = openvino.compile_model(
        model, "CPU", {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    )
    with torch.no_grad():
        expected = encoder(crops(3, 120)).numpy()
    np.testing.assert_allclose(compiled(crops(3, 120).numpy())[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "published"), [("dinobloom_s", 22_056_576), ("dinobloom_b", 86_580_480)]
)
def test_the_rows_say_what_is_built(name: str, published: int) -> None:
    spec = ENCODERS[name]
    # DINOv2's counts have 37 x 37 places, where DinoBloom has 16 x 16, and a mask token.
    expected = published - (37**2 - 16**2 + 1) * spec.dim
    with torch.device("meta"):
        encoder = spec.build()
    assert (encoder.name, encoder.dim, encoder.input_px) == (name, spec.dim, spec.input_px)
    assert encoder.get_parameter("model.layernorm.weight").shape == (spec.dim,)
    assert sum(p.numel() for p in encoder.parameters()) == expected


def test_without_a_file_dinobloom_says_where_it_is(small: str) -> None:
    with pytest.raises(MissingWeightsError, match=r"Zenodo record 10908163.*model\.weights=FILE"):
        build_encoder(ModelConfig(encoder=small))


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers.models.dinov2", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'millie\[zoo\]'"):
        new_encoder("dinobloom_s")
