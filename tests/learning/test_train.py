"""The loop: it learns, stops, restores, resumes to the same weights, refuses what cannot work."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from millie.config import Config
from millie.errors import ConfigError, MissingPackageError, TrainingError
from millie.learning.optimise import class_weights
from millie.learning.sampling import EmbeddedCells, StoredCells, whole_bag
from millie.learning.train import (
    Task,
    bag_logits,
    fixed_vectors,
    threads_for,
    train,
    validation_loss,
)
from millie.models.aggregators import AGGREGATORS
from millie.models.network import MilNetwork, build_network
from millie.models.weights import weights_digest
from millie.statistics.metrics import roc_auc

if TYPE_CHECKING:
    from collections.abc import Callable

    from millie.bags.store import Store
    from millie.models.encoder import Encoder

Toy = tuple[EmbeddedCells, dict[str, str]]


class KilledError(Exception):
    """Stands for kill -9 between two epochs."""


def network_for(source: EmbeddedCells, config: Config, seed: int = 0) -> MilNetwork:
    return build_network(config.model, ("AML", "APL"), feature_dim=source.dim, seed=seed)


def test_finds_the_planted_cells(toy: Toy, toy_task: Task, quick: Config) -> None:
    source, labels = toy
    trained = train(network_for(source, quick), source, toy_task, quick)
    score = [
        float(bag_logits(trained.network, source, whole_bag(source, p), 8).softmax(0)[1])
        for p in toy_task.validation
    ]
    positive = np.array([labels[p] == "APL" for p in toy_task.validation])
    assert roc_auc(positive, np.array(score)) > 0.95


def test_equal_seed_equal_weights(toy: Toy, toy_task: Task, quick: Config) -> None:
    source, _ = toy
    torch.manual_seed(1)
    first = train(network_for(source, quick), source, toy_task, quick)
    torch.manual_seed(2)
    np.random.seed(9)  # noqa: NPY002 - global state must not matter
    again = train(network_for(source, quick), source, toy_task, quick)
    assert weights_digest(first.network) == weights_digest(again.network)
    other = Task(toy_task.classes, toy_task.labels, toy_task.train, toy_task.validation, seed=1)
    third = train(network_for(source, quick), source, other, quick)
    assert weights_digest(first.network) != weights_digest(third.network)


def test_global_generator_is_left_alone(toy: Toy, toy_task: Task, quick: Config) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    train(network_for(toy[0], quick), toy[0], toy_task, quick)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("killed_after", [1, 5])
def test_killed_and_run_again_gives_the_same_weights(
    *, toy: Toy, toy_task: Task, quick: Config, tmp_path: Path, optimiser: str, killed_after: int
) -> None:
    source, _ = toy
    config = quick.with_settings([f"training.optimiser={optimiser}"])
    straight = train(network_for(source, config), source, toy_task, config)
    epochs: list[int] = []

    def kill(_what: str, done: int, _total: int) -> None:
        epochs.append(done)
        if done == killed_after:
            raise KilledError

    def run(progress: Callable[[str, int, int], None]) -> MilNetwork:
        return train(
            network_for(source, config), source, toy_task, config,
            progress=progress, folder=tmp_path, checkpoint_every_s=0,
        ).network  # fmt: skip

    with pytest.raises(KilledError):
        run(kill)
    resumed = run(lambda _what, done, _total: epochs.append(done))
    assert epochs[: killed_after + 1] == list(range(1, killed_after + 2)), "no epoch run twice"
    assert weights_digest(resumed) == weights_digest(straight.network)
    finished: list[int] = []
    again = run(lambda _what, done, _total: finished.append(done))
    assert not finished
    assert weights_digest(again) == weights_digest(straight.network)


def test_a_checkpoint_of_other_settings_or_cells_is_not_used(
    toy: Toy, toy_task: Task, quick: Config, tmp_path: Path
) -> None:
    source, _ = toy
    train(network_for(source, quick), source, toy_task, quick, folder=tmp_path)
    other = quick.with_settings(["training.learning_rate=0.01"])
    fresh = train(network_for(source, other), source, toy_task, other)
    beside = train(network_for(source, other), source, toy_task, other, folder=tmp_path)
    assert weights_digest(beside.network) == weights_digest(fresh.network)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_checkpoint_starts_again(
    toy: Toy, toy_task: Task, quick: Config, tmp_path: Path, damage: str
) -> None:
    source, _ = toy
    config = quick.with_settings(["training.max_epochs=3"])
    first = train(network_for(source, config), source, toy_task, config, folder=tmp_path)
    path = tmp_path / "network.checkpoint.safetensors"
    data = bytearray(path.read_bytes())
    data[-9] ^= 64
    path.write_bytes(
        {"cut": bytes(data[: len(data) // 2]), "flip": bytes(data), "empty": b""}[damage]
    )
    again = train(network_for(source, config), source, toy_task, config, folder=tmp_path)
    assert weights_digest(first.network) == weights_digest(again.network)


def test_best_epoch_is_restored(toy: Toy, toy_task: Task, quick: Config) -> None:
    source, _ = toy
    config = quick.with_settings(["training.learning_rate=0.3", "training.max_epochs=25"])
    trained = train(network_for(source, config), source, toy_task, config)
    losses = [record.validation_loss for record in trained.history]
    assert trained.best_epoch == int(np.argmin(losses)) + 1 < len(losses)
    labels = [toy_task.labels[p] for p in toy_task.train]
    weights = class_weights(labels, toy_task.classes, balanced=True)
    assert validation_loss(trained.network, source, toy_task, weights, 8) == min(losses)
    assert not trained.network.training


def test_patience_stops(toy: Toy, toy_task: Task, quick: Config) -> None:
    config = quick.with_settings(
        ["training.learning_rate=0.5", "training.patience=2", "training.max_epochs=60"]
    )
    trained = train(network_for(toy[0], config), toy[0], toy_task, config)
    assert len(trained.history) == trained.best_epoch + 2 < 60


def test_without_validation_all_epochs_are_run(toy: Toy, quick: Config) -> None:
    source, labels = toy
    task = Task(("AML", "APL"), labels, tuple(sorted(labels)), (), 0)
    trained = train(network_for(source, quick), source, task, quick)
    assert trained.best_epoch == len(trained.history) == quick.training.max_epochs
    assert all(record.validation_loss is None for record in trained.history)


def test_log_has_one_line_an_epoch(toy: Toy, toy_task: Task, quick: Config, tmp_path: Path) -> None:
    trained = train(
        network_for(toy[0], quick), toy[0], toy_task, quick, folder=tmp_path, name="net-0"
    )
    rows = list(csv.DictReader((tmp_path / "net-0.csv").read_text("utf-8-sig").splitlines()))
    assert [int(row["epoch"]) for row in rows] == list(range(1, len(trained.history) + 1))
    assert float(rows[0]["validation_loss"]) == trained.history[0].validation_loss
    assert set(rows[0]) == {"epoch", "train_loss", "validation_loss", "learning_rate", "seconds"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_log(toy: Toy, toy_task: Task, quick: Config, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    config = quick.with_settings(["training.log=tensorboard", "training.max_epochs=2"])
    train(network_for(toy[0], config), toy[0], toy_task, config, folder=tmp_path)
    assert len(list((tmp_path / "tensorboard" / "network").glob("events.*"))) == 1


def test_tensorboard_missing_is_said_before_training(
    toy: Toy, toy_task: Task, quick: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    config = quick.with_settings(["training.log=tensorboard"])
    with pytest.raises(MissingPackageError, match=r"millie\[tensorboard\]"):
        train(network_for(toy[0], config), toy[0], toy_task, config, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_stops_training(toy: Toy, toy_task: Task, quick: Config) -> None:
    features = {p: toy[0].cells(p, np.arange(toy[0].count(p))).numpy() for p in toy[1]}
    features[toy_task.train[0]][0, 0] = np.nan
    source = EmbeddedCells(features)
    with pytest.raises(TrainingError, match=r"loss is nan in epoch 1.*learning_rate"):
        train(network_for(source, quick), source, toy_task, quick)


def test_a_class_without_training_patients_is_named(toy: Toy, quick: Config) -> None:
    task = Task(("AML", "APL"), toy[1], ("aml-00", "aml-01"), ("apl-00",), 0)
    with pytest.raises(TrainingError, match="no training patients with APL"):
        train(network_for(toy[0], quick), toy[0], task, quick)


def test_a_patient_in_both_parts_is_named(toy: Toy, quick: Config) -> None:
    task = Task(("AML", "APL"), toy[1], ("aml-00", "apl-00"), ("apl-00",), 0)
    with pytest.raises(
        TrainingError, match="apl-00 are in both the training and the validation part"
    ):
        train(network_for(toy[0], quick), toy[0], task, quick)


def test_exact_gradient_is_refused_for_other_fusions(
    toy: Toy, toy_task: Task, quick: Config
) -> None:
    config = quick.with_settings(["training.exact_gradient=true", "model.aggregator=mean"])
    with pytest.raises(ConfigError, match=r"only with model\.aggregator=max"):
        train(network_for(toy[0], config), toy[0], toy_task, config)


@pytest.mark.parametrize("exact", ["false", "true"])
def test_end_to_end_learns_and_leaves_batch_statistics(
    toy_store: Store, tiny_encoder: Callable[[], Encoder], quick: Config, exact: str
) -> None:
    source = StoredCells(toy_store)
    labels = {s.patient: str(s.label) for s in toy_store.index()}
    validation = ("aml-05", "apl-05")
    chosen = tuple(p for p in sorted(labels) if p not in validation)
    task = Task(("AML", "APL"), labels, chosen, validation, 0)
    config = quick.with_settings(
        [f"training.exact_gradient={exact}", "training.mode=end_to_end", "training.max_epochs=3"]
    )
    network = build_network(config.model, task.classes, encoder=tiny_encoder())
    before = weights_digest(tiny_encoder())
    trained = train(network, source, task, config)
    assert trained.network.encoder is not None
    assert weights_digest(trained.network.encoder) != before
    assert trained.history[-1].train_loss < trained.history[0].train_loss
    running = dict(trained.network.encoder.named_buffers())["layers.1.running_mean"]
    assert torch.equal(running, dict(tiny_encoder().named_buffers())["layers.1.running_mean"])


def test_end_to_end_resumes_with_the_encoder(
    toy_store: Store, tiny_encoder: Callable[[], Encoder], quick: Config, tmp_path: Path
) -> None:
    source = StoredCells(toy_store)
    labels = {s.patient: str(s.label) for s in toy_store.index()}
    task = Task(("AML", "APL"), labels, tuple(sorted(labels))[1:], (min(labels),), 0)
    config = quick.with_settings(["training.mode=end_to_end", "training.max_epochs=3"])

    def run(folder: Path | None, progress: Callable[[str, int, int], None]) -> str:
        network = build_network(config.model, task.classes, encoder=tiny_encoder())
        return weights_digest(
            train(
                network, source, task, config,
                folder=folder, progress=progress, checkpoint_every_s=0,
            ).network
        )  # fmt: skip

    def kill(_what: str, done: int, _total: int) -> None:
        if done == 2:
            raise KilledError

    with pytest.raises(KilledError):
        run(tmp_path, kill)
    assert run(tmp_path, lambda *_: None) == run(None, lambda *_: None)


@pytest.mark.parametrize(("aggregator", "fixed"), [("max", True), ("mean", True), ("top_k", True),
                                                   ("attention", False)])  # fmt: skip
def test_vectors_that_no_step_changes_are_fused_once(
    toy: Toy, toy_task: Task, quick: Config, aggregator: str, fixed: bool
) -> None:
    source, _ = toy
    config = quick.with_settings([f"model.aggregator={aggregator}"])
    network = network_for(source, config).eval()
    vectors = fixed_vectors(network, source, toy_task.validation)
    assert (vectors is not None) is fixed
    weights = torch.ones(2)
    slow = validation_loss(network, source, toy_task, weights, 8)
    assert validation_loss(network, source, toy_task, weights, 8, vectors) == slow


def test_embeddings_are_trained_in_one_thread_whatever_the_machine(
    toy: Toy, toy_task: Task, quick: Config, toy_store: Store
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen = []
        train(
            network_for(toy[0], quick), toy[0], toy_task, quick,
            progress=lambda *_: seen.append(torch.get_num_threads()),
        )  # fmt: skip
        assert set(seen) == {1}
        assert torch.get_num_threads() == 3
        with threads_for(StoredCells(toy_store)):
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("aggregator", sorted(AGGREGATORS))
def test_bfloat16_is_the_encoders_alone(
    toy_store: Store, tiny_encoder: Callable[[], Encoder], quick: Config, aggregator: str
) -> None:
    """Fusions multiply matrices too; their vectors reach the head in float32 all the same."""
    labels = {s.patient: str(s.label) for s in toy_store.index()}
    task = Task(("AML", "APL"), labels, tuple(sorted(labels)), (), 0)
    words = ["training.mode=end_to_end", "training.max_epochs=1", "training.precision=bfloat16"]
    config = quick.with_settings([*words, f"model.aggregator={aggregator}"])
    network = build_network(config.model, task.classes, encoder=tiny_encoder())
    trained = train(network, StoredCells(toy_store), task, config)
    assert np.isfinite(trained.history[0].train_loss)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_activations_of_an_encoder_may_be_bfloat16(
    toy_store: Store, tiny_encoder: Callable[[], Encoder], quick: Config, precision: str
) -> None:
    labels = {s.patient: str(s.label) for s in toy_store.index()}
    task = Task(("AML", "APL"), labels, tuple(sorted(labels)), (), 0)
    words = ["training.mode=end_to_end", "training.max_epochs=1"]
    config = quick.with_settings([*words, f"training.precision={precision}"])
    kinds = []
    encoder = tiny_encoder()
    last = list(encoder.modules())[-1]
    last.register_forward_hook(lambda _module, _inputs, output: kinds.append(output.dtype))
    network = build_network(config.model, task.classes, encoder=encoder)
    trained = train(network, StoredCells(toy_store), task, config)
    assert set(kinds) == {getattr(torch, precision)}
    assert {p.dtype for p in trained.network.parameters()} == {torch.float32}
    assert all(p.is_contiguous() for p in trained.network.parameters())
