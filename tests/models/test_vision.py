"""ViT-B/16 and ConvNeXt-T: published files, loaded by us and by transformers' own loader."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from millie.config import ModelConfig
from millie.errors import BundleError, MissingPackageError, MissingWeightsError
from millie.models import vision
from millie.models.encoder import Encoder
from millie.models.encoders import ENCODERS, build_encoder, new_encoder

HEADS = 3
WIDTHS, DEPTHS = (8, 16, 24, 32), (1, 2, 1, 1)
SMALL: dict[str, Callable[[], Encoder]] = {
    "vit_b16": lambda: vision.Vit("vit_b16", 24, HEADS, 2),
    "convnext_t": lambda: vision.ConvNext("convnext_t", WIDTHS, DEPTHS),
}
every = pytest.mark.parametrize("name", SMALL)
small = pytest.mark.usefixtures("_small")


@pytest.fixture(scope="module", autouse=True)
def _transformers() -> None:
    pytest.importorskip("transformers", reason="pip install 'millie[zoo]'")


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of smaller networks."""
    for name, build in SMALL.items():
        row = dataclasses.replace(ENCODERS[name], dim=build().dim, build=build)
        monkeypatch.setitem(ENCODERS, name, row)


def published(name: str) -> dict[str, Tensor]:
    """Random weights under the names that the files on the Hub have."""
    drawn = torch.Generator().manual_seed(0)
    found = {}
    for own, tensor in new_encoder(name).state_dict().items():
        old = own.removeprefix("model.")
        if name == "vit_b16":
            old = re.sub(r"^layers\.", "encoder.layer.", old)
            for letter, word in (("q", "query"), ("k", "key"), ("v", "value")):
                old = old.replace(f"attention.{letter}_proj", f"attention.attention.{word}")
            old = old.replace("attention.o_proj", "attention.output.dense")
            old = old.replace("mlp.fc1", "intermediate.dense").replace("mlp.fc2", "output.dense")
        found[old] = 0.3 * torch.randn(tensor.shape, generator=drawn)
    return found


def by_transformers(name: str, weights: dict[str, Tensor], folder: Path) -> Any:
    """The model as transformers itself reads a published folder."""
    transformers = importlib.import_module("transformers")
    told: dict[str, Any] = {
        "model_type": "vit", "hidden_size": 24, "intermediate_size": 96, "image_size": 224,
        "num_attention_heads": HEADS, "num_hidden_layers": 2, "patch_size": 16,
    }  # fmt: skip
    if name == "convnext_t":
        told = {"model_type": "convnext", "hidden_sizes": WIDTHS, "depths": DEPTHS}
    (folder / "config.json").write_text(json.dumps(told))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    if name == "convnext_t":
        return transformers.ConvNextModel.from_pretrained(folder)
    return transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False)


def crops(n: int, side: int = 224) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1))


@small
@every
def test_a_published_file_gives_what_transformers_gives(name: str, tmp_path: Path) -> None:
    weights = published(name)
    reference = by_transformers(name, weights, tmp_path).eval()
    encoder = build_encoder(ModelConfig(encoder=name, weights=tmp_path / "model.safetensors"))
    mean, std = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)) if name == "vit_b16" else (
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )  # fmt: skip
    x = (crops(2) - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.no_grad():
        made, found = reference(x), encoder(crops(2))
        alone = encoder(crops(2)[1:])
    wanted = made.last_hidden_state[:, 0] if name == "vit_b16" else made.pooler_output
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1:], alone, atol=1e-4, rtol=1e-4)
    assert found.std() > 0.01


@small
@every
def test_a_classifier_in_the_file_is_left_out_and_a_missing_weight_is_named(
    name: str, tmp_path: Path
) -> None:
    model = "vit" if name == "vit_b16" else "convnext"
    weights = published(name)
    whole = {f"{model}.{key}": tensor for key, tensor in weights.items()}
    torch.save(whole | {"classifier.weight": torch.zeros(5, 24)}, tmp_path / "classes.bin")
    save_file(weights, tmp_path / "plain.safetensors")
    both = [
        build_encoder(ModelConfig(encoder=name, weights=tmp_path / file))
        for file in ("classes.bin", "plain.safetensors")
    ]
    with torch.no_grad():
        assert torch.equal(both[0](crops(1)), both[1](crops(1)))
    weights.pop("layernorm.bias")
    save_file(weights, tmp_path / "less.safetensors")
    with pytest.raises(BundleError, match=r"layernorm\.bias"):
        build_encoder(ModelConfig(encoder=name, weights=tmp_path / "less.safetensors"))


@pytest.mark.parametrize(("name", "weights"), [("vit_b16", 85_798_656), ("convnext_t", 27_820_128)])
def test_the_rows_say_what_is_built(name: str, weights: int) -> None:
    """Counts of the papers' networks without their classifiers."""
    spec = ENCODERS[name]
    with torch.device("meta"):
        encoder = spec.build()
    assert (encoder.name, encoder.dim, encoder.input_px) == (name, spec.dim, spec.input_px)
    assert sum(p.numel() for p in encoder.parameters()) == weights


@small
@every
def test_without_a_file_or_transformers_it_says_what_to_do(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingWeightsError, match=r"Hugging Face Hub.*model\.weights=FILE"):
        build_encoder(ModelConfig(encoder=name))
    for package in ("vit", "convnext"):
        monkeypatch.setitem(sys.modules, f"transformers.models.{package}", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'millie\[zoo\]'"):
        new_encoder(name)
