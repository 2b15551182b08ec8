"""Held-out shares, calibration inside the training part, and scores that agree with prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from millie.config import Config
from millie.errors import TrainingError
from millie.learning import ensemble
from millie.learning.ensemble import (
    Cast,
    Material,
    Scored,
    calibrate,
    fit_ensemble,
    fresh_network,
    hold_out,
    score_bag,
    score_parts,
)
from millie.learning.sampling import DrawnBag, EmbeddedCells, StoredCells, whole_bag
from millie.learning.train import Task, bag_logits
from millie.models.encoder import CellTypes
from millie.models.fusion import Aggregator
from millie.models.network import MilNetwork, build_network
from millie.models.weights import weights_digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from millie.bags.store import Store
    from millie.models.encoder import Encoder

CLASSES = ("AML", "APL")
Toy = tuple[EmbeddedCells, dict[str, str]]


def cast_of(labels: dict[str, str], seed: int = 0) -> Cast:
    return Cast(CLASSES, "APL", labels, tuple(sorted(labels)), seed)


@pytest.mark.parametrize("networks", [2, 3, 5])
def test_every_training_patient_is_held_out_once(toy: Toy, quick: Config, networks: int) -> None:
    config = quick.with_settings([f"training.ensemble={networks}"])
    shares = hold_out(cast_of(toy[1]), config)
    assert len(shares) == networks
    assert sorted(p for share in shares for p in share) == sorted(toy[1])
    assert all({toy[1][p] for p in share} == set(CLASSES) for share in shares)


def test_more_networks_than_patients_of_a_class_share_the_shares(toy: Toy, quick: Config) -> None:
    labels = {p: x for p, x in toy[1].items() if x == "AML" or p < "apl-03"}
    shares = hold_out(cast_of(labels), quick.with_settings(["training.ensemble=5"]))
    assert len(shares) == 5
    assert shares[3] == shares[0]
    for share in shares:
        assert any(labels[p] == "APL" for p in labels if p not in share)


def test_one_network_holds_out_the_validation_fraction(toy: Toy, quick: Config) -> None:
    (share,) = hold_out(cast_of(toy[1]), quick.with_settings(["training.validation_fraction=0.25"]))
    assert len(share) == 6
    (none,) = hold_out(cast_of(toy[1]), quick.with_settings(["training.validation_fraction=0"]))
    assert none == ()


def test_one_patient_of_a_class_is_refused(toy: Toy, quick: Config) -> None:
    labels = {p: x for p, x in toy[1].items() if x == "AML" or p == "apl-00"}
    with pytest.raises(TrainingError, match=r"too few patients .*\{'APL': 1\}"):
        hold_out(cast_of(labels), quick)


def test_out_of_fold_probabilities_come_from_the_network_that_held_out(
    toy: Toy, quick: Config
) -> None:
    source, labels = toy
    config = quick.with_settings(["training.ensemble=3", "training.max_epochs=4"])
    ensemble = fit_ensemble(Material(source, source.dim), cast_of(labels), config)
    assert ensemble.out_of_fold.keys() == labels.keys()
    for member, share in zip(ensemble.members, ensemble.held_out, strict=True):
        for patient in share:
            logits = bag_logits(member.network, source, whole_bag(source, patient), 8)
            np.testing.assert_allclose(
                ensemble.out_of_fold[patient], logits.softmax(0).numpy(), atol=1e-6
            )


def test_without_validation_fraction_all_epochs_are_run_but_shares_still_calibrate(
    toy: Toy, quick: Config
) -> None:
    source, labels = toy
    config = quick.with_settings([
        "training.ensemble=2", "training.validation_fraction=0", "training.max_epochs=3",
        "training.patience=1",
    ])  # fmt: skip
    ensemble = fit_ensemble(Material(source, source.dim), cast_of(labels), config)
    assert [len(m.history) for m in ensemble.members] == [3, 3]
    assert len(ensemble.out_of_fold) == len(labels)


def test_networks_of_an_ensemble_differ_and_seeds_repeat(toy: Toy, quick: Config) -> None:
    source, labels = toy
    config = quick.with_settings(["training.ensemble=2", "training.max_epochs=2"])

    def digests(seed: int) -> list[str]:
        material = Material(source, source.dim)
        fitted = fit_ensemble(material, cast_of(labels, seed), config)
        return [weights_digest(network) for network in fitted.networks]

    first = digests(0)
    assert first[0] != first[1]
    assert first == digests(0)
    assert first != digests(1)


def test_calibration_without_held_out_patients_is_neutral(toy: Toy) -> None:
    assert calibrate({}, cast_of(toy[1]), soften_only=False) == (1.0, 0.5)
    one_class = {"aml-00": np.array([0.8, 0.2]), "aml-01": np.array([0.7, 0.3])}
    assert calibrate(one_class, cast_of(toy[1]), soften_only=False)[1] == 0.5


def test_calibration_may_be_told_never_to_sharpen(toy: Toy) -> None:
    """Patients of one cohort that are told apart without doubt may say too much of the next one."""
    labels = toy[1]
    sure = {p: np.array([0.7, 0.3] if labels[p] == "AML" else [0.3, 0.7]) for p in labels}
    assert calibrate(sure, cast_of(labels), soften_only=True)[0] == 1.0
    assert calibrate(sure, cast_of(labels), soften_only=False)[0] < 1.0
    wrong = {p: np.array([0.01, 0.99] if i % 2 else [0.99, 0.01]) for i, p in enumerate(labels)}
    assert calibrate(wrong, cast_of(labels), soften_only=True)[0] > 1.5


def test_threshold_separates_held_out_patients(toy: Toy) -> None:
    p = {"aml-00": [0.9, 0.1], "aml-01": [0.8, 0.2], "apl-00": [0.65, 0.35], "apl-01": [0.4, 0.6]}
    held = {k: np.array(v) for k, v in p.items()}
    temperature, threshold = calibrate(held, cast_of(toy[1]), soften_only=False)
    log_odds = np.log(threshold / (1 - threshold)) * temperature
    assert np.log(0.2 / 0.8) < log_odds < np.log(0.35 / 0.65)


def test_embeddings_are_centred_and_scaled_by_one_number(toy: Toy, quick: Config) -> None:
    source, labels = toy
    task = Task(CLASSES, labels, tuple(sorted(labels))[:20], (), 0)
    network = fresh_network(Material(source, source.dim), task, quick)
    cells = torch.cat([source.cells(p, whole_bag(source, p).indices) for p in task.train])
    torch.testing.assert_close(network.standardiser.mean, cells.mean(dim=0))
    assert len(network.standardiser.std.unique()) == 1
    scaled = network.standardiser(cells)
    assert float(scaled.var(dim=0, correction=0).mean()) == pytest.approx(1, rel=1e-4)


def features_of(source: EmbeddedCells, labels: dict[str, str]) -> dict[str, np.ndarray]:
    return {p: source.cells(p, whole_bag(source, p).indices).numpy() for p in labels}


@pytest.mark.parametrize("known", [True, False], ids=["encoder", "k-means"])
def test_prototypes_come_from_the_training_cells_alone(
    toy: Toy, quick: Config, known: bool
) -> None:
    """Neither a patient who is left out nor a diagnosis has a part in a fresh network."""
    features, labels = features_of(*toy), toy[1]
    config = quick.with_settings(["model.aggregator=ghost_vlad", "model.prototypes=2"])
    train = tuple(p for p in sorted(labels) if p not in {"aml-03", "apl-05"})
    torch.manual_seed(0)
    types = CellTypes(toy[0].dim, torch.eye(3, 2), torch.zeros(2)) if known else None

    def fresh(labels: dict[str, str], **changed: np.ndarray) -> str:
        source = EmbeddedCells({**features, **{p.replace("_", "-"): c for p, c in changed.items()}})
        task = Task(CLASSES, labels, train, (), 0)
        return weights_digest(
            fresh_network(Material(source, source.dim, types=types), task, config)
        )

    found = fresh(labels)
    assert fresh(labels, aml_03=features["aml-03"] + 90, apl_05=features["apl-05"][:2]) == found
    assert fresh({p: {"AML": "APL", "APL": "AML"}[own] for p, own in labels.items()}) == found
    assert fresh(labels, aml_04=features["aml-04"] + 1) != found


@pytest.mark.parametrize("known", [True, False], ids=["encoder", "k-means"])
def test_nobody_outside_the_training_part_changes_an_ensemble(
    toy: Toy, quick: Config, known: bool
) -> None:
    features, labels = features_of(*toy), toy[1]
    config = quick.with_settings([
        "model.aggregator=ghost_vlad", "model.prototypes=2", "training.ensemble=2",
        "training.max_epochs=2",
    ])  # fmt: skip
    torch.manual_seed(0)
    types = CellTypes(toy[0].dim, torch.eye(3, 2), torch.zeros(2)) if known else None
    part = tuple(p for p in sorted(labels) if not p.endswith(("05", "07")))

    def fitted(shift: float) -> tuple[list[str], float, float]:
        moved = {p: cells if p in part else cells + shift for p, cells in features.items()}
        material = Material(EmbeddedCells(moved), toy[0].dim, types=types)
        found = fit_ensemble(material, Cast(CLASSES, "APL", labels, part, 0), config)
        return [weights_digest(n) for n in found.networks], found.temperature, found.threshold

    assert fitted(0) == fitted(50)


def test_of_very_many_cells_every_nth_makes_the_prototypes(
    toy: Toy, quick: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, labels = toy
    seen: list[int] = []
    monkeypatch.setattr(
        Aggregator, "fit", lambda _self, chunks, _types=None: seen.extend(map(len, chunks))
    )
    monkeypatch.setattr(ensemble, "_PROTOTYPE_CELLS", 100)
    task = Task(CLASSES, labels, tuple(sorted(labels)), (), 0)
    fresh_network(Material(source, source.dim), task, quick)
    step = -(-sum(map(source.count, labels)) // 100)
    assert step > 1
    assert seen == [-(-source.count(p) // step) for p in task.train]


def test_an_encoder_that_is_trained_keeps_its_own_scale(
    toy_store: Store, tiny_encoder: Callable[[], Encoder], quick: Config
) -> None:
    source = StoredCells(toy_store)
    material = Material(source, 6, lambda _seed: tiny_encoder())
    task = Task(CLASSES, {"aml-00": "AML"}, ("aml-00",), (), 0)
    standardiser = fresh_network(material, task, quick).standardiser
    assert not standardiser.mean.any()
    assert (standardiser.std == 1).all()


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_scores_of_crops_do_not_depend_on_the_batch(
    toy_store: Store, tiny_encoder: Callable[[], Encoder], quick: Config, batch_size: int
) -> None:
    source = StoredCells(toy_store)
    networks = [
        build_network(quick.model, CLASSES, encoder=tiny_encoder(), seed=s).eval() for s in (0, 1)
    ]
    bag = whole_bag(source, "apl-01")

    def scored(size: int):  # type: ignore[no-untyped-def]
        config = quick.with_settings([f"prediction.batch_size={size}"]).prediction
        return score_bag(networks, source, bag, CLASSES, temperature=1.5, encoder="", config=config)

    found, expected = scored(batch_size), scored(7)
    np.testing.assert_allclose(found.bag, expected.bag, atol=1e-6)
    np.testing.assert_allclose(found.cells, expected.cells, atol=1e-6)
    assert found.cells.shape == (len(bag), 2)
    assert found.bag.sum() == pytest.approx(1)
    assert {w.cell for own in found.winners.values() for w in own} <= set(range(len(bag)))


def test_a_cell_alone_counts_as_far_as_it_is_immature_and_no_gradient_is_kept(
    toy_store: Store, tiny_encoder: Callable[[], Encoder], quick: Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    source = StoredCells(toy_store)
    networks = [
        build_network(quick.model, CLASSES, encoder=tiny_encoder(), seed=s).eval() for s in (0, 1)
    ]
    bag = whole_bag(source, "apl-01")
    config = quick.with_settings(["prediction.batch_size=4"]).prediction

    def scored() -> Scored:
        return score_bag(
            networks, source, bag, CLASSES, temperature=1.5, encoder="tiny", config=config
        )

    plain = scored()
    first: list[torch.Tensor] = []

    def told(network: MilNetwork, encoder: str, cells: torch.Tensor) -> torch.Tensor:
        assert encoder == "tiny"
        assert not cells.requires_grad
        share = cells[:, 0].double().sigmoid()
        first.extend([share] if network is networks[0] else [])
        return share

    monkeypatch.setattr(ensemble, "immature_cells", told)
    found = scored()
    immature = torch.cat(first).numpy()
    assert len(immature) == len(bag) > 4
    np.testing.assert_allclose(found.cells, plain.cells * immature[:, None], atol=1e-6)
    np.testing.assert_array_equal(found.bag, plain.bag)


@pytest.mark.parametrize("aggregator", ["max", "mean", "ghost_vlad"])
@pytest.mark.parametrize("images", [False, True])
def test_parts_of_a_bag_are_scored_as_bags_of_their_own(
    toy_store: Store, toy_material: Material, tiny_encoder: Callable[[], Encoder], quick: Config,
    images: bool, aggregator: str,
) -> None:  # fmt: skip
    config = quick.with_settings([f"model.aggregator={aggregator}"])
    source = StoredCells(toy_store) if images else toy_material.source
    ways = {"encoder": tiny_encoder()} if images else {"feature_dim": toy_material.dim}
    networks = [build_network(config.model, CLASSES, **ways, seed=s).eval() for s in (0, 1)]
    parts = [np.array([0, 2, 3]), np.array([5]), np.array([1, 2, 3, 5])]
    found = score_parts(networks, source, "apl-01", parts, temperature=1.5, batch_size=2)
    assert found.shape == (3, 2)
    for part, probabilities in zip(parts, found, strict=True):
        bag = DrawnBag("apl-01", part)
        alone = score_bag(
            networks, source, bag, CLASSES, temperature=1.5, encoder="",
            config=config.prediction, explain=False,
        )  # fmt: skip
        np.testing.assert_allclose(probabilities, alone.bag, atol=1e-6)
