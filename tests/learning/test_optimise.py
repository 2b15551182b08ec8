"""The exact gradient of maximum fusion equals the plain one."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from millie.bags.loading import collate
from millie.config import Config, ModelConfig
from millie.errors import ConfigError
from millie.learning.optimise import (
    Step,
    build_optimiser,
    class_weights,
    exact_backward,
    plain_backward,
    targets_of,
)
from millie.learning.sampling import (
    EmbeddedCells,
    StoredCells,
    draw_steps,
    load_cells,
    whole_bag,
)
from millie.models.network import MilNetwork, build_network

if TYPE_CHECKING:
    from collections.abc import Callable

    from millie.bags.store import Store
    from millie.models.encoder import Encoder

CLASSES = ("AML", "APL")
LABELS = {f"{c.lower()}-{i:02d}": c for c in CLASSES for i in range(6)}


def end_to_end(build: Callable[[], Encoder], aggregator: str = "max") -> MilNetwork:
    config = ModelConfig(hidden=(8,), dropout=0.3, aggregator=aggregator)
    network = build_network(config, CLASSES, encoder=build())
    network.standardiser.std.fill_(0.5)
    network.train()
    network.encoder.eval()  # type: ignore[union-attr]
    return network


def one_step(source: StoredCells) -> Step:
    bags = next(draw_steps(source, sorted(LABELS)[3:9], Config(), np.random.default_rng(2)))
    weights = torch.tensor([0.7, 1.6])
    return Step(tuple(bags), targets_of(bags, LABELS, CLASSES), weights)


def gradients(network: MilNetwork) -> dict[str, torch.Tensor]:
    return {k: p.grad for k, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("chunk_size", [1, 3, 64])
def test_exact_gradient_equals_the_plain_one(
    toy_store: Store, tiny_encoder: Callable[[], Encoder], chunk_size: int
) -> None:
    source = StoredCells(toy_store)
    step = one_step(source)
    plain, exact = end_to_end(tiny_encoder), end_to_end(tiny_encoder)
    statistics = copy.deepcopy(dict(plain.encoder.named_buffers()))  # type: ignore[union-attr]
    torch.manual_seed(3)
    loss = plain_backward(plain, source, step)
    torch.manual_seed(3)
    assert exact_backward(exact, source, step, chunk_size) == pytest.approx(loss, rel=1e-5)
    wanted, found = gradients(plain), gradients(exact)
    assert wanted.keys() == found.keys() == dict(plain.named_parameters()).keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
        assert value.abs().max() > 0
    for name, value in exact.encoder.named_buffers():  # type: ignore[union-attr]
        assert torch.equal(value, statistics[name]), "batch statistics must stay frozen"


def test_exact_gradient_never_holds_more_than_a_chunk(
    toy_store: Store, tiny_encoder: Callable[[], Encoder]
) -> None:
    source = StoredCells(toy_store)
    network = end_to_end(tiny_encoder)
    seen: list[int] = []
    assert network.encoder is not None
    network.encoder.register_forward_pre_hook(lambda _module, args: seen.append(len(args[0])))
    exact_backward(network, source, one_step(source), chunk_size=3)
    assert max(seen) <= 3


def test_exact_gradient_on_embeddings(toy) -> None:  # type: ignore[no-untyped-def]
    source, labels = toy
    bags = next(draw_steps(source, sorted(labels), Config(), np.random.default_rng(2)))
    step = Step(tuple(bags), targets_of(bags, labels, CLASSES), torch.ones(2))
    config = ModelConfig(aggregator="max", hidden=(), dropout=0)
    plain, exact = (build_network(config, CLASSES, feature_dim=source.dim) for _ in range(2))
    assert exact_backward(exact, source, step, 4) == pytest.approx(
        plain_backward(plain, source, step)
    )
    for name, value in gradients(plain).items():
        torch.testing.assert_close(gradients(exact)[name], value)


def test_identical_cells_do_not_change_the_gradient(
    tiny_encoder: Callable[[], Encoder], toy_store: Store
) -> None:
    """Ties: the plain gradient splits evenly, the exact one takes the first; the sum is equal."""
    source = StoredCells(toy_store)
    step = one_step(source)
    bag = step.bags[0]
    twice = type(bag)(bag.patient, np.repeat(bag.indices, 2), tuple(np.repeat(bag.draws, 2)))
    doubled = Step((twice, *step.bags[1:]), step.targets, step.weights)
    assert len(load_cells(source, twice)) == 2 * len(bag)
    plain, exact = end_to_end(tiny_encoder), end_to_end(tiny_encoder)
    torch.manual_seed(0)
    plain_backward(plain, source, doubled)
    torch.manual_seed(0)
    exact_backward(exact, source, doubled, 4)
    for name, value in gradients(plain).items():
        torch.testing.assert_close(gradients(exact)[name], value, rtol=1e-4, atol=1e-6)


def test_other_fusions_are_refused(toy_store: Store, tiny_encoder: Callable[[], Encoder]) -> None:
    source = StoredCells(toy_store)
    with pytest.raises(ConfigError, match=r"only with model\.aggregator=max"):
        exact_backward(end_to_end(tiny_encoder, "mean"), source, one_step(source), 4)


def test_class_weights_make_a_patient_weigh_one_on_average() -> None:
    labels = ["APL"] * 5 + ["AML"] * 15
    weights = class_weights(labels, CLASSES, balanced=True)
    assert weights.tolist() == pytest.approx([20 / 30, 2.0])
    assert sum(weights[CLASSES.index(x)] for x in labels) == pytest.approx(20)
    assert class_weights(labels, CLASSES, balanced=False).tolist() == [1, 1]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_optimisers_take_their_settings(name: str) -> None:
    network = build_network(ModelConfig(), CLASSES, feature_dim=4)
    config = Config().with_settings([
        f"training.optimiser={name}", "training.learning_rate=0.5", "training.weight_decay=0.25",
        "training.momentum=0.75",
    ]).training  # fmt: skip
    group = build_optimiser(network, config).param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)
    assert group.get("momentum", 0.75) == 0.75


@pytest.mark.parametrize("aggregator", ["max", "mean", "attention"])
def test_maximum_of_embeddings_before_standardising_gives_the_same_bits(aggregator: str) -> None:
    rng = np.random.default_rng(4)
    cells = {p: rng.normal(size=(n, 6)).astype(np.float32) for p, n in (("a", 1), ("b", 7))}
    source = EmbeddedCells(cells)
    config = ModelConfig(hidden=(5,), dropout=0.0, aggregator=aggregator)
    network = build_network(config, CLASSES, feature_dim=6)
    network.standardiser.fit(torch.from_numpy(np.concatenate(list(cells.values()))))
    bags = tuple(whole_bag(source, p) for p in cells)
    step = Step(bags, torch.tensor([0, 1]), torch.ones(2))
    loss = plain_backward(network, source, step)
    found = gradients(network)
    network.zero_grad()
    embeddings, mask = collate([torch.from_numpy(own) for own in cells.values()])
    slow = torch.nn.functional.cross_entropy(network.bag_logits(embeddings, mask), step.targets)
    torch.autograd.backward(slow)
    assert loss == float(slow.detach())
    for name, value in gradients(network).items():
        assert torch.equal(found[name], value)
