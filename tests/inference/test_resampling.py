"""The interval of a call under resampling of the patient's cells."""

from __future__ import annotations

import torch
from torch import Tensor

from millie.config import ModelConfig
from millie.inference.resampling import probability_ranges
from millie.models.golden import ensemble_probabilities
from millie.models.network import MilNetwork, build_network

LABELS = ("AML", "APL")
D = 5


def networks(count: int = 2) -> list[MilNetwork]:
    config = ModelConfig(aggregator="mean")
    return [build_network(config, LABELS, D, seed=i).eval() for i in range(count)]


def probabilities(logits: Tensor) -> Tensor:
    return ensemble_probabilities(logits, 1.0)


def ranges(cells: Tensor) -> dict[str, tuple[float, float]]:
    nets = networks()
    with torch.no_grad():
        whole = probabilities(torch.stack([n.bag_logits(cells[None])[0] for n in nets]))
    point = dict(zip(LABELS, whole.tolist(), strict=True))
    found = probability_ranges(nets, [cells], probabilities, point)
    assert all(found[name][0] <= point[name] <= found[name][1] for name in LABELS)
    return found


def cells(n: int, spread: float = 3.0) -> Tensor:
    return spread * torch.randn(n, D, generator=torch.Generator().manual_seed(n))


def test_equal_cells_leave_no_doubt() -> None:
    low, high = ranges(torch.ones(20, D))["APL"]
    assert high - low < 1e-6


def test_few_cells_leave_more_doubt_than_many() -> None:
    few, many = (ranges(cells(n))["APL"] for n in (8, 800))
    assert few[1] - few[0] > 3 * (many[1] - many[0])


def test_the_order_of_the_cells_does_not_count() -> None:
    bag = cells(40)
    shuffled = bag[torch.randperm(40, generator=torch.Generator().manual_seed(1))]
    for name in LABELS:
        torch.testing.assert_close(ranges(bag)[name], ranges(shuffled)[name])


def test_two_classes_mirror_each_other() -> None:
    found = ranges(cells(30))
    torch.testing.assert_close(found["AML"][0], 1 - found["APL"][1], atol=1e-6, rtol=0)
