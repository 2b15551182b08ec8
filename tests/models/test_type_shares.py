"""Shares of types tell the disease, deviations the subtype; and neither can do the other's work."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from millie.config import ModelConfig
from millie.inference.explain import StreamedBag, class_evidence
from millie.models.encoder import CellTypes
from millie.models.network import MilNetwork, build_network
from millie.models.type_shares import CascadeHead, TypeSharesAggregator

D, T, K = 6, 4, 2
CLASSES = ("ALL", "AML", "APL", "normal")
SETTINGS = ModelConfig(aggregator="type_shares", prototypes=K)


def types() -> CellTypes:
    """Type t is what is large in feature t; the first two types are lines of their own."""
    layer = CellTypes(D, torch.eye(T, K), torch.tensor([1.0, 0.0]))
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, :T] = 12 * torch.eye(T)
        layer.bias.zero_()
    return layer


def cells(*counts: int, seed: int = 0) -> Tensor:
    """So many cells of each type."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    found = 0.05 * torch.randn(len(kinds), D, generator=generator)
    found[torch.arange(len(kinds)), kinds] += 1
    return found


def fitted() -> TypeSharesAggregator:
    aggregator = TypeSharesAggregator(D, K, T)
    aggregator.fit([cells(20, 20, 20, 20)], types())
    return aggregator


def network() -> MilNetwork:
    net = build_network(SETTINGS, CLASSES, D, types=T, seed=3)
    net.aggregator.fit([cells(20, 20, 20, 20)], types())
    return net.eval()


def test_the_first_values_are_log_shares_of_types() -> None:
    bag = fitted().pool(cells(30, 10, 0, 0)[None])[0]
    shares = bag[:T].exp() / T
    torch.testing.assert_close(shares, torch.tensor([0.738, 0.25, 0.006, 0.006]), atol=3e-3, rtol=0)
    assert len(bag) == fitted().width(D) == T + K * D


def test_equally_frequent_types_are_zero() -> None:
    torch.testing.assert_close(
        fitted().pool(cells(9, 9, 9, 9)[None])[0, :T], torch.zeros(T), atol=2e-3, rtol=0
    )


def test_the_number_of_cells_hardly_changes_a_mixture() -> None:
    few, many = (fitted().pool(cells(3 * n, n, n, n)[None])[0, :T] for n in (20, 200))
    assert (few - many).abs().max() < 0.02


def test_diseases_do_not_see_how_cells_look() -> None:
    """Features that no type reads move subtypes alone: a stain can't make a disease."""
    net, bag = network(), cells(10, 10, 10, 10)
    changed = bag.clone()
    changed[10:, T:] += 3
    before, after = (net.bag_logits(b[None]).softmax(1)[0] for b in (bag, changed))
    disease = [0, 3]
    torch.testing.assert_close(before[disease], after[disease])
    torch.testing.assert_close(before[1] + before[2], after[1] + after[2])
    assert (before[1] - after[1]).abs() > 1e-3


def test_what_changes_the_own_mature_cells_as_well_is_no_deviation() -> None:
    """A film that moves every cell alike leaves the other kind's deviation where it was."""
    aggregator = fitted()
    plain, moved = cells(300, 300, 0, 0), cells(300, 300, 0, 0)
    moved[:, T:] += 2.0
    before, after = (aggregator.pool(bag[None])[0, T:].view(K, D) for bag in (plain, moved))
    torch.testing.assert_close(before[1, T:], after[1, T:], atol=0.02, rtol=0)
    torch.testing.assert_close(after[0], torch.zeros(D))  # the reference itself
    other = cells(300, 300, 0, 0)
    other[300:, T:] += 2.0
    assert (aggregator.pool(other[None])[0, T:].view(K, D)[1, T:] > 1.9).all()


def test_mature_cells_are_a_reference_and_no_evidence() -> None:
    """Neutrophils that move away from the lymphocytes leave nothing but their mean behind."""
    layer = CellTypes(D, torch.eye(T, 3), torch.tensor([1.0, 1.0, 0.0]))
    with torch.no_grad():
        layer.weight.copy_(types().weight)
        layer.bias.zero_()
    aggregator = TypeSharesAggregator(D, 3, T)
    aggregator.fit([cells(20, 20, 20, 20)], layer)
    bag = cells(300, 300, 300, 0)
    bag[:300, T:] += 2.0
    deviations = aggregator.pool(bag[None])[0, T:].view(3, D)
    torch.testing.assert_close(deviations[:2], torch.zeros(2, D))
    torch.testing.assert_close(deviations[2, T:], torch.full((D - T,), -1.0), atol=0.02, rtol=0)


def test_subtypes_do_not_depend_on_what_else_could_be() -> None:
    """P(APL | AML or APL) is the softmax of the subtypes' own layer."""
    net, bag = network(), cells(10, 10, 10, 10)
    fused = net.fuse(bag[None]).bag
    assert isinstance(net.head, CascadeHead)
    assert net.head.subtypes is not None
    wanted = net.head.subtypes(fused[:, T:]).softmax(1)[0]
    found = net.bag_logits(bag[None]).softmax(1)[0, 1:3]
    torch.testing.assert_close(found / found.sum(), wanted)


def test_two_subtypes_alone_are_told_by_deviations() -> None:
    head = CascadeHead(T, K * D, ("AML", "APL"), ("AML", "APL"))
    fused = torch.randn(3, T + K * D)
    changed = fused.clone()
    changed[:, :T] += torch.randn(3, T)
    torch.testing.assert_close(head(fused).softmax(1), head(changed).softmax(1))


@pytest.mark.parametrize("classes", [("ALL", "normal"), ("APL", "normal"), ("a", "b", "c")])
def test_without_two_subtypes_every_class_is_a_disease(classes: tuple[str, ...]) -> None:
    head = CascadeHead(T, K * D, classes, ("AML", "APL"))
    assert head.subtypes is None
    assert head(torch.randn(2, T + K * D)).shape == (2, len(classes))


def test_what_a_cell_contributes_is_what_its_absence_takes() -> None:
    net, bag = network(), cells(6, 5, 4, 3)
    streamed = StreamedBag(net, len(bag))
    streamed.add(0, bag[:7])
    streamed.add(7, bag[7:])
    found = streamed.contributions()
    whole = class_evidence(net.bag_logits(bag[None])[0])
    for i in (0, 8, 17):
        rest = torch.cat([bag[:i], bag[i + 1 :]])
        wanted = whole - class_evidence(net.bag_logits(rest[None])[0])
        torch.testing.assert_close(torch.from_numpy(found[i]), wanted, atol=1e-4, rtol=0)


def test_a_single_cell_loses_everything() -> None:
    net = network()
    streamed = StreamedBag(net, 1)
    streamed.add(0, cells(1))
    assert torch.isfinite(torch.from_numpy(streamed.contributions())).all()
