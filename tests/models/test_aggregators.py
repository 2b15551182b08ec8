"""Every fusion keeps the same contract: padding, order, single cells, streams, gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from millie.config import ModelConfig
from millie.errors import ConfigError, NoCellsError
from millie.models.aggregators import (
    AGGREGATORS,
    GeneralisedMeanAggregator,
    LogSumExpAggregator,
    MaxAggregator,
    TopKAggregator,
    build_aggregator,
)
from millie.models.fusion import Aggregator

D = 6
every_aggregator = pytest.mark.parametrize("name", list(AGGREGATORS))


def build(name: str, seed: int = 0) -> Aggregator:
    torch.manual_seed(seed)
    return build_aggregator(ModelConfig(aggregator=name, top_k=3), D).double()


def cells(n: int, seed: int = 1, bags: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(bags, n, D, generator=generator, dtype=torch.float64)


@every_aggregator
def test_the_table_names_what_it_builds(name: str) -> None:
    spec = AGGREGATORS[name]
    assert spec.name == name
    assert spec.description
    assert spec.source


@every_aggregator
@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 9), padding=st.integers(0, 5), seed=st.integers(0, 99))
def test_padded_equals_unpadded(name: str, n: int, padding: int, seed: int) -> None:
    aggregator, x = build(name), cells(n, seed)
    padded = torch.cat([x, torch.full((1, padding, D), torch.nan, dtype=x.dtype)], dim=1)
    mask = torch.arange(n + padding)[None] < n
    plain, fused = aggregator(x), aggregator(padded, mask)
    torch.testing.assert_close(fused.bag, plain.bag)
    torch.testing.assert_close(fused.scores[:, :n], plain.scores)
    assert torch.count_nonzero(fused.scores[:, n:]) == 0


@every_aggregator
def test_bags_of_a_batch_do_not_meet(name: str) -> None:
    aggregator, x = build(name), cells(7, bags=3)
    mask = torch.tensor([[True] * 7, [True] * 2 + [False] * 5, [False, True] + [False] * 5])
    together = aggregator(x, mask)
    for b in range(3):
        alone = aggregator(x[b][mask[b]][None])
        torch.testing.assert_close(together.bag[b], alone.bag[0])
        torch.testing.assert_close(together.scores[b][mask[b]], alone.scores[0])


@every_aggregator
def test_order_of_cells_does_not_matter(name: str) -> None:
    aggregator, x = build(name), cells(8)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    plain, shuffled = aggregator(x), aggregator(x[:, order])
    torch.testing.assert_close(shuffled.bag, plain.bag)
    torch.testing.assert_close(shuffled.scores, plain.scores[:, order])


@every_aggregator
def test_a_bag_of_one_cell_is_that_cell(name: str) -> None:
    x = cells(1)
    aggregator = build(name)
    fused = aggregator(x)
    torch.testing.assert_close(fused.bag, aggregator.alone(x[0]))
    if aggregator.width(D) == D:
        torch.testing.assert_close(fused.bag, x[:, 0])
    torch.testing.assert_close(fused.scores, torch.ones(1, 1, dtype=x.dtype))


@every_aggregator
def test_scores_are_shares(name: str) -> None:
    scores = build(name)(cells(9, bags=4)).scores
    assert scores.min() >= 0
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(4, dtype=scores.dtype))


@every_aggregator
@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_a_stream_equals_plain_fusion(name: str, sizes: list[int], seed: int) -> None:
    aggregator = build(name)
    x = cells(max(1, sum(sizes)), seed)[0]
    stream = aggregator.stream()
    state = stream.init()
    for chunk in torch.split(x, sizes) if sum(sizes) else (x,):
        state = stream.update(state, chunk)
    torch.testing.assert_close(stream.finish(state), aggregator(x[None]).bag[0])


@every_aggregator
def test_the_state_of_a_stream_does_not_grow(name: str) -> None:
    aggregator, state = build(name), ()
    for seed in range(4):
        state = aggregator.update(state, cells(50, seed)[0])
    assert sum(part.numel() for part in state) <= max(3 * D + 2, aggregator.width(D) + D)


@every_aggregator
def test_gradients_are_right(name: str) -> None:
    aggregator = build(name)
    x = cells(5).requires_grad_()
    mask = torch.tensor([[True, True, True, True, False]])
    assert torch.autograd.gradcheck(lambda v: aggregator(v, mask).bag, (x,))
    aggregator(x, mask).bag.sum().backward()
    assert x.grad is not None
    assert torch.count_nonzero(x.grad[:, 4]) == 0
    for weight in aggregator.parameters():
        assert weight.grad is not None
        assert weight.grad.isfinite().all()


@every_aggregator
def test_large_values_stay_finite(name: str) -> None:
    aggregator = build(name).float()
    x = torch.tensor([[[300.0] * D, [-300.0] * D, [0.0] * D]])
    state = aggregator.update((), x[0])
    assert aggregator(x).bag.isfinite().all()
    assert aggregator.finish(state).isfinite().all()


@every_aggregator
def test_empty_bags_are_refused(name: str) -> None:
    aggregator = build(name)
    with pytest.raises(NoCellsError, match="at least one real cell"):
        aggregator(cells(2), torch.zeros(1, 2, dtype=torch.bool))
    with pytest.raises(NoCellsError, match="no cell was given"):
        aggregator.finish(aggregator.update(aggregator.init(), cells(3)[0, :0]))


@pytest.mark.parametrize(
    ("shape", "mask", "message"),
    [
        ((3, D), None, r"expected \(B, N, D\)"),
        ((1, 3, D), torch.ones(1, 4, dtype=torch.bool), r"shape \(1, 4\)"),
        ((1, 3, D), torch.ones(1, 3), "float32"),
    ],
)
def test_wrong_shapes_are_refused(
    shape: tuple[int, ...], mask: Tensor | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        MaxAggregator()(torch.zeros(shape), mask)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'median' is unknown; known: max, mean"):
        build_aggregator(ModelConfig(aggregator="median"), D)


def test_max_against_a_loop() -> None:
    x = cells(6, bags=2)
    expected = torch.stack([torch.stack([max(row) for row in bag.T]) for bag in x])
    fused = MaxAggregator()(x)
    torch.testing.assert_close(fused.bag, expected)
    winners = MaxAggregator.winners(x)
    torch.testing.assert_close(x.gather(1, winners[:, None])[:, 0], expected)
    counts = torch.stack([(winners == i).double().mean(dim=1) for i in range(6)], dim=1)
    torch.testing.assert_close(fused.scores, counts)


def test_max_passes_its_gradient_to_the_winners_alone() -> None:
    x = cells(5).requires_grad_()
    MaxAggregator()(x).bag.sum().backward()
    assert x.grad is not None
    expected = torch.zeros_like(x).scatter_(1, MaxAggregator.winners(x)[:, None], 1.0)
    torch.testing.assert_close(x.grad, expected)


def test_cells_that_tie_share_the_maximum() -> None:
    fused = MaxAggregator()(torch.ones(1, 4, D))
    torch.testing.assert_close(fused.scores, torch.full((1, 4), 0.25))


def test_top_k_lies_between_max_and_mean() -> None:
    x = cells(6)
    torch.testing.assert_close(TopKAggregator(1)(x).bag, x.amax(dim=1))
    torch.testing.assert_close(TopKAggregator(6)(x).bag, x.mean(dim=1))
    torch.testing.assert_close(TopKAggregator(9)(x).bag, x.mean(dim=1))
    by_hand = x.sort(dim=1, descending=True).values[:, :2].mean(dim=1)
    torch.testing.assert_close(TopKAggregator(2)(x).bag, by_hand)


def test_smooth_maxima_go_from_mean_to_max() -> None:
    x = cells(6)
    torch.testing.assert_close(
        LogSumExpAggregator(1e-6).double()(x).bag, x.mean(dim=1), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        LogSumExpAggregator(1e4).double()(x).bag, x.amax(dim=1), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(
        GeneralisedMeanAggregator(1e4).double()(x).bag, x.amax(dim=1), atol=5e-3, rtol=0
    )


@pytest.mark.parametrize("name", ["attention", "gated_attention"])
def test_attention_against_its_equation(name: str) -> None:
    aggregator, x = build(name), cells(4)[0]
    value, weight = aggregator.value, aggregator.weight
    hidden = torch.tanh(value.weight @ x.T + value.bias[:, None])
    if name == "gated_attention":
        gate = aggregator.gate
        hidden = hidden * torch.sigmoid(gate.weight @ x.T + gate.bias[:, None])
    energy = (weight.weight @ hidden)[0]
    a = energy.exp() / energy.exp().sum()
    fused = aggregator(x[None])
    torch.testing.assert_close(fused.scores[0], a)
    torch.testing.assert_close(fused.bag[0], a @ x)


@pytest.mark.parametrize("name", sorted(AGGREGATORS))
def test_pooling_alone_gives_the_same_vector_and_gradient(name: str) -> None:
    aggregator = build_aggregator(ModelConfig(aggregator=name), 6).eval()
    torch.manual_seed(3)
    cells = torch.randn(3, 7, 6)
    mask = torch.arange(7)[None] < torch.tensor([7, 3, 1])[:, None]
    gradients = []
    for vectors in (aggregator.pool, lambda *a: aggregator(*a).bag):
        leaf = cells.clone().requires_grad_()
        bag = vectors(leaf, mask)
        torch.autograd.backward(bag.square().sum())
        gradients.append((bag.detach(), leaf.grad))
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert torch.equal(gradients[0][1], gradients[1][1])
