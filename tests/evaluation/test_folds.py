"""A finished fold is read back only where all that made it is the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

from millie.config import Config
from millie.evaluation.crossval import open_study
from millie.evaluation.folds import fold_digest
from millie.learning.material import participants
from millie.learning.splits import Fold, make_splits
from millie.models.encoder import CellTypes
from millie.models.encoders import new_encoder

if TYPE_CHECKING:
    from pathlib import Path

    from millie.bags.store import Store
    from millie.learning.ensemble import Material

OTHERS = {
    "model.encoder": "vgg19", "model.weights": "w.safetensors", "model.pretrained": False,
    "model.aggregator": "mean", "model.top_k": 6, "model.prototypes": 6,
    "model.subtypes": ["a", "b"],
    "model.hidden": [7], "model.dropout": 0.5, "model.background": "mask",
    "augment.rotation_degrees": 3, "augment.flip": False,
    "augment.scale": 0.2, "augment.hue": 0.1, "augment.saturation": 0.1, "augment.gamma": 0.1,
    "augment.noise": 0.1, "training.mode": "end_to_end", "training.cells_per_step": 3,
    "training.vary_cells": True, "training.patients_per_step": 3, "training.device": "cuda",
    "training.precision": "bfloat16", "training.optimiser": "sgd", "training.learning_rate": 0.1,
    "training.momentum": 0.5, "training.weight_decay": 0.5, "training.max_epochs": 3,
    "training.patience": 2, "training.validation_fraction": 0.3, "training.class_weights": False,
    "training.exact_gradient": True, "training.colour_transfer": True, "training.ensemble": 2,
    "training.soften_only": True, "training.seed": 5, "training.log": "tensorboard",
    "prediction.winners": 3, "prediction.negative_labels": ["AML"],
}  # fmt: skip
"""Another value of each setting that may change a fold."""

WITHOUT_EFFECT = {
    "prediction.batch_size": 5,  # rounding alone
    "prediction.runtime": "onnx",  # its features are among the cells
    "prediction.min_cells": 3,
    "prediction.min_cells_negative": 3,
    "prediction.min_disease_probability": 0.7,
    "prediction.min_negative_probability": 0.7,
    "prediction.operating_point": "specific",
    "prediction.target_sensitivity": 0.9,
}
"""The same of settings that do not: a fold that is there must not be run again for them."""


def digest(store: Store, material: Material, fold: Fold, config: Config) -> str:
    study = open_study(store, participants(store), config, "APL", material=material)
    return fold_digest(study, fold)


def changed(settings: dict[str, Any], name: str) -> Config:
    stage, _, field = name.partition(".")
    content = Config().model_dump(mode="json")
    content[stage][field] = settings[name]
    return Config.model_validate(content)


def test_every_setting_of_a_fold_is_in_one_of_the_two_tables() -> None:
    stages = ("model", "augment", "training", "prediction")
    content = Config().model_dump()
    named = {f"{stage}.{field}" for stage in stages for field in content[stage]}
    assert named == OTHERS.keys() | WITHOUT_EFFECT.keys()


@pytest.mark.parametrize("name", [*OTHERS, *WITHOUT_EFFECT])
def test_a_setting_changes_the_digest_if_it_changes_the_fold(
    name: str, toy_store: Store, toy_material: Material
) -> None:
    fold = make_splits(participants(toy_store).labels, 2, 1, 0).assignments[0]
    config = changed({**OTHERS, **WITHOUT_EFFECT}, name)
    before = digest(toy_store, toy_material, fold, Config())
    assert config != Config()
    assert (digest(toy_store, toy_material, fold, config) != before) == (name in OTHERS)


def test_winners_do_not_matter_to_a_repeat_that_names_none(
    toy_store: Store, toy_material: Material
) -> None:
    fold = make_splits(participants(toy_store).labels, 2, 2, 0).assignments[-1]
    assert fold.repeat == 1
    config = changed(OTHERS, "prediction.winners")
    before = digest(toy_store, toy_material, fold, Config())
    assert digest(toy_store, toy_material, fold, config) == before


def test_other_pretrained_weights_under_the_same_name_are_another_fold(
    toy_store: Store, tmp_path: Path
) -> None:
    """End to end the cells are crops: nothing of the encoder is in them."""
    weights = tmp_path / "encoder.safetensors"
    config = Config().with_settings([
        "model.encoder=resnet_small", f"model.weights={weights}", "training.mode=end_to_end",
    ])  # fmt: skip
    fold = make_splits(participants(toy_store).labels, 2, 1, 0).assignments[0]
    digests = []
    for seed in (0, 0, 1):
        save_file(new_encoder("resnet_small", seed=seed).state_dict(), weights)
        study = open_study(toy_store, participants(toy_store), config, "APL")
        digests.append(fold_digest(study, fold))
    assert digests[0] == digests[1] != digests[2]


def test_another_layer_of_types_over_the_same_embeddings_is_another_fold(
    toy_store: Store, toy_material: Material
) -> None:
    fold = make_splits(participants(toy_store).labels, 2, 1, 0).assignments[0]
    digests = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        material = replace(
            toy_material, types=CellTypes(toy_material.dim, torch.eye(3, 2), torch.zeros(2))
        )
        digests.append(digest(toy_store, material, fold, Config()))
    assert digests[0] == digests[1] != digests[2]
    assert digest(toy_store, toy_material, fold, Config()) not in digests
