"""Every setting of the model changes something."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from millie.config import ModelConfig
from millie.models.encoders import build_encoder, new_encoder, weights_digest
from millie.models.network import build_network

ELSEWHERE = {"background"}
"""Applied to the crops where bags become tensors."""

BASE = ModelConfig(encoder="efficientnet_lite0", aggregator="top_k", hidden=(4,), dropout=0.25)
CHANGES: dict[str, object] = {
    "encoder": "resnet_small",
    "weights": "weights.safetensors",
    "pretrained": False,
    "aggregator": "mean",
    "top_k": 2,
    "prototypes": 2,
    "subtypes": ("AML", "ALL"),
    "hidden": (3,),
    "dropout": 0.5,
}


def logits(config: ModelConfig) -> Tensor:
    network = build_network(config, ("AML", "APL"), 6).train()
    torch.manual_seed(0)
    with torch.no_grad():
        return network(torch.randn(1, 9, 6, generator=torch.Generator().manual_seed(1)))


def test_every_field_is_listed() -> None:
    assert set(CHANGES) | ELSEWHERE == set(ModelConfig.model_fields)


@pytest.mark.parametrize("field", ["aggregator", "top_k", "hidden", "dropout"])
def test_fields_of_the_network_change_its_output(field: str) -> None:
    changed = BASE.model_copy(update={field: CHANGES[field]})
    assert not torch.equal(logits(changed), logits(BASE))


def test_the_number_of_prototypes_changes_the_fusion_that_has_them() -> None:
    base = BASE.model_copy(update={"aggregator": "ghost_vlad"})
    changed = base.model_copy(update={"prototypes": CHANGES["prototypes"]})
    assert not torch.equal(logits(changed), logits(base))


def test_the_subtypes_change_the_head_that_has_them() -> None:
    base = BASE.model_copy(update={"aggregator": "type_shares"})
    changed = base.model_copy(update={"subtypes": CHANGES["subtypes"]})
    assert not torch.equal(logits(changed), logits(base))


@pytest.mark.parametrize("field", ["encoder", "weights", "pretrained"])
def test_fields_of_the_encoder_change_its_weights(field: str, tmp_path: Path) -> None:
    value = CHANGES[field]
    if field == "weights":
        value = tmp_path / str(value)
        save_file(new_encoder("efficientnet_lite0", seed=4).state_dict(), value)
    changed = BASE.model_copy(update={field: value})
    if field == "encoder":
        changed = changed.model_copy(update={"pretrained": False})
    assert weights_digest(build_encoder(changed)) != weights_digest(build_encoder(BASE))
