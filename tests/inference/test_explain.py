from __future__ import annotations

import numpy as np
import pytest
import torch

from millie.config import ModelConfig
from millie.inference import explain
from millie.inference.explain import StreamedBag, class_evidence, find_winners
from millie.models.aggregators import AGGREGATORS
from millie.models.ghost_vlad import GhostVladAggregator
from millie.models.network import MilNetwork, build_network
from millie.models.type_shares import TypeSharesAggregator

N, DIM = 23, 12
LABELS = ("ALL", "AML", "APL")


def network_of(aggregator: str, seed: int = 0) -> MilNetwork:
    config = ModelConfig(aggregator=aggregator, hidden=(8,), top_k=3)
    network = build_network(config, LABELS, DIM, seed=seed).eval()
    others = torch.randn(50, DIM, generator=torch.Generator().manual_seed(9))
    network.standardiser.fit(others)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.aggregator.fit([network.standardiser(others)])
    return network


def cells() -> torch.Tensor:
    return torch.randn(N, DIM, generator=torch.Generator().manual_seed(1))


def streamed(network: MilNetwork, features: torch.Tensor, batch: int) -> StreamedBag:
    bag = StreamedBag(network, len(features))
    for start in range(0, len(features), batch):
        bag.add(start, features[start : start + batch])
    return bag


def plain_contributions(network: MilNetwork, features: torch.Tensor) -> np.ndarray:
    """The obvious way: the whole bag in memory, gradient x feature by autograd."""
    if isinstance(network.aggregator, GhostVladAggregator):
        return contributions_by_kind(network, network.aggregator, features)
    if isinstance(network.aggregator, TypeSharesAggregator):
        return contributions_by_absence(network, features)
    inputs = network.standardiser(features).detach().requires_grad_()
    fused = network.aggregator(inputs[None]).bag
    evidence = class_evidence(network.head(fused)[0])
    return np.stack(
        [
            (torch.autograd.grad(e, inputs, retain_graph=True)[0] * inputs).sum(1).detach().numpy()
            for e in evidence
        ],
        axis=1,
    )


def contributions_by_kind(
    network: MilNetwork, aggregator: GhostVladAggregator, features: torch.Tensor
) -> np.ndarray:
    """Gradient x deviation from the centre of the kind, with the number of each kind as it is."""
    cells = network.standardiser(features)
    shares = aggregator.shares(cells)
    terms = shares[..., None] * (cells[:, None] - aggregator.centres)
    terms = (terms / (1 + shares.sum(dim=0))[:, None]).flatten(1).detach().requires_grad_()
    evidence = class_evidence(network.head(terms.sum(dim=0)[None])[0])
    return np.stack(
        [
            (torch.autograd.grad(e, terms, retain_graph=True)[0] * terms).sum(1).detach().numpy()
            for e in evidence
        ],
        axis=1,
    )


@torch.no_grad()
def contributions_by_absence(network: MilNetwork, features: torch.Tensor) -> np.ndarray:
    """The evidence of the bag less that of the bag without the cell."""
    whole = class_evidence(network.bag_logits(features[None])[0])
    rest = [torch.cat([features[:i], features[i + 1 :]]) for i in range(len(features))]
    without = [class_evidence(network.bag_logits(bag[None])[0]) for bag in rest]
    return np.stack([(whole - own).numpy() for own in without])


@pytest.mark.parametrize("aggregator", AGGREGATORS)
@pytest.mark.parametrize("chunk", [4, 1024])
def test_streamed_contributions_equal_the_plain_ones(
    aggregator: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "_CHUNK", chunk)
    network, features = network_of(aggregator), cells()
    found = streamed(network, features, 5).contributions()
    assert found.shape == (N, 3)
    np.testing.assert_allclose(found, plain_contributions(network, features), atol=2e-6)


@pytest.mark.parametrize("aggregator", AGGREGATORS)
@pytest.mark.parametrize("batch", [1, 7, N])
def test_streamed_logits_equal_the_plain_ones(aggregator: str, batch: int) -> None:
    network, features = network_of(aggregator), cells()
    bag = StreamedBag(network, N)
    alone = torch.cat([bag.add(i, features[i : i + batch]) for i in range(0, N, batch)])
    with torch.no_grad():
        torch.testing.assert_close(bag.logits(), network.bag_logits(features[None])[0])
        torch.testing.assert_close(alone, network.cell_logits(features))


def test_cells_alone_pass_the_head_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bags of one are K times as wide as a cell: those of a large bag would not fit together."""
    monkeypatch.setattr(explain, "_CHUNK", 4)
    network, rows = network_of("ghost_vlad"), []
    network.head.register_forward_hook(lambda _head, inputs, _logits: rows.append(len(inputs[0])))
    alone = StreamedBag(network, N, explained=False).add(0, cells())
    assert rows == [4, 4, 4, 4, 4, 3]
    torch.testing.assert_close(alone, network.cell_logits(cells()))


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_every_feature_is_won_once(aggregator: str) -> None:
    features = cells()
    won = streamed(network_of(aggregator), features, 4).features_won()
    assert won.tolist() == np.bincount(features.argmax(dim=0), minlength=N).tolist()
    assert won.sum() == DIM


def test_under_max_a_feature_goes_to_its_cell_alone() -> None:
    bag = streamed(network_of("max"), cells(), 4)
    parts, won = bag.contributions(), bag.features_won()
    assert (parts[won == 0] == 0).all()
    assert (parts[won > 0] != 0).any()


def test_of_cells_that_tie_the_first_wins() -> None:
    features = torch.ones(6, DIM)
    for batch in (1, 2, 6):
        assert streamed(network_of("max"), features, batch).features_won().tolist() == [
            DIM, 0, 0, 0, 0, 0,
        ]  # fmt: skip


def test_evidence_is_the_log_odds() -> None:
    logits = torch.tensor([1.0, -2.0, 0.5])
    p = logits.softmax(0)
    torch.testing.assert_close(class_evidence(logits), (p / (1 - p)).log())


@pytest.mark.parametrize("aggregator", AGGREGATORS)
@pytest.mark.parametrize("networks", [1, 3])
def test_winners_are_ordered_shares(aggregator: str, networks: int) -> None:
    bags = [streamed(network_of(aggregator, seed), cells(), 8) for seed in range(networks)]
    winners = find_winners(bags, LABELS, N)
    assert tuple(winners) == LABELS
    for found in winners.values():
        shares = [winner.contribution for winner in found]
        assert shares == sorted(shares, reverse=True)
        assert all(share > 0 for share in shares)
        assert sum(shares) == pytest.approx(1, abs=1e-6)
        assert len({winner.cell for winner in found}) == len(found)
    few = find_winners(bags, LABELS, 2)
    assert all(few[label] == winners[label][:2] for label in LABELS)


def test_the_order_of_cells_only_renames_the_winners() -> None:
    features, order = cells(), torch.randperm(N, generator=torch.Generator().manual_seed(3))
    for aggregator in AGGREGATORS:
        network = network_of(aggregator)
        one = find_winners([streamed(network, features, 4)], LABELS, 5)
        two = find_winners([streamed(network, features[order], 6)], LABELS, 5)
        for label in LABELS:
            assert [w.cell for w in one[label]] == [int(order[w.cell]) for w in two[label]]
            for a, b in zip(one[label], two[label], strict=True):
                assert a.contribution == pytest.approx(b.contribution, abs=1e-5)
                assert a.features == b.features


def test_a_planted_cell_is_found() -> None:
    network, features = network_of("max"), cells()
    direction = torch.autograd.grad(
        class_evidence(network.head(torch.zeros(1, DIM))[0])[2], [*network.head.parameters()]
    )
    assert direction
    probe = torch.zeros(1, DIM, requires_grad=True)
    (gradient,) = torch.autograd.grad(class_evidence(network.head(probe)[0])[2], probe)
    features[11] = network.standardiser.mean + 6 * gradient[0].sign() * network.standardiser.std
    (first, *_) = find_winners([streamed(network, features, 4)], LABELS, 5)["APL"]
    assert first.cell == 11
    assert first.contribution > 0.5
