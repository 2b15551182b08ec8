"""Fusion by kinds of cell: it forgets the mixture and keeps what lies within a kind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from millie.config import Config, ModelConfig
from millie.errors import ConfigError
from millie.learning.ensemble import Material, fresh_network
from millie.learning.sampling import EmbeddedCells
from millie.learning.train import Task
from millie.models.blood_cell import LINES, TYPES
from millie.models.encoder import CellTypes
from millie.models.encoders import new_encoder
from millie.models.ghost_vlad import GhostVladAggregator

D, K = 5, 2
FAR = 20.0


def two_kinds(n: int, share: float, seed: int = 0, shift: float = 0.0) -> Tensor:
    """Cells around two distant centres; ``shift`` moves the first kind along the second axis."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randn(n, D, generator=generator)
    first = torch.arange(n) < round(share * n)
    cells[first, 0] += FAR
    cells[first, 1] += shift
    cells[~first, 0] -= FAR
    return cells


def layer(*, ghost: float = -50.0) -> CellTypes:
    kinds = CellTypes(D, torch.eye(K + 1, K), torch.zeros(K))
    with torch.no_grad():
        kinds.weight.zero_()
        kinds.bias.zero_()
        kinds.weight[0, 0], kinds.weight[1, 0], kinds.bias[2] = 1.0, -1.0, ghost
    return kinds


def fitted(kinds: CellTypes | None = None) -> GhostVladAggregator:
    torch.manual_seed(0)
    aggregator = GhostVladAggregator(D, K)
    aggregator.fit([two_kinds(200, 0.5, seed) for seed in range(3)], kinds)
    return aggregator


@pytest.mark.parametrize("kinds", [None, layer()], ids=["k-means", "encoder"])
def test_the_mixture_of_kinds_is_forgotten(kinds: CellTypes | None) -> None:
    """Between bags of 10 % and of 90 % the mean moves by 1.6 FAR, this vector by noise alone."""
    aggregator = fitted(kinds)
    few, many = (aggregator.pool(two_kinds(2000, share)[None])[0] for share in (0.1, 0.9))
    assert (few - many).abs().max() < 0.3
    means = [two_kinds(2000, share).mean(dim=0) for share in (0.1, 0.9)]
    assert (means[0] - means[1]).abs().max() > FAR


@pytest.mark.parametrize("kinds", [None, layer()], ids=["k-means", "encoder"])
def test_a_change_of_one_kind_shows_in_its_part_alone(kinds: CellTypes | None) -> None:
    aggregator = fitted(kinds)
    plain, moved = (
        aggregator.pool(two_kinds(2000, 0.5, shift=s)[None])[0].view(K, D) for s in (0, 3)
    )
    change = (moved - plain).abs()
    touched = int(change[:, 1].argmax())
    assert change[touched, 1] == pytest.approx(3, abs=0.05)
    assert change[1 - touched].max() < 1e-3


def test_cells_of_no_kind_are_left_out() -> None:
    aggregator = fitted(layer(ghost=10.0))
    strangers = torch.zeros(500, D)
    strangers[:, 2] = 9.0
    cells = two_kinds(400, 0.5)
    with_them = aggregator.pool(torch.cat([cells, strangers])[None])
    torch.testing.assert_close(with_them, aggregator.pool(cells[None]), atol=0.05, rtol=0)


def test_cells_of_a_bag_of_strangers_share_it_equally() -> None:
    """So far from every kind that no share is above zero in single precision."""
    fused = fitted(layer(ghost=500.0))(two_kinds(8, 0.5)[None])
    torch.testing.assert_close(fused.scores, torch.full((1, 8), 1 / 8))
    assert not fused.bag.any()


def test_a_score_is_a_cell_s_weight_in_the_vector() -> None:
    """The one cell of another kind weighs half a mean, the many of the first kind share one."""
    scores = fitted(layer())(torch.cat([two_kinds(9, 1.0), two_kinds(1, 0.0)])[None]).scores[0]
    weights = torch.tensor([0.1] * 9 + [0.5])
    torch.testing.assert_close(scores, weights / weights.sum(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("place", [0.0, 1.0, -1.0, 1000.0, -1000.0])
def test_k_means_leaves_no_cell_out(place: float) -> None:
    """Not even one that lies on the far side of the origin."""
    aggregator = GhostVladAggregator(D, K)
    cells = two_kinds(200, 0.5) / FAR
    cells[:, 2] += 30.0
    aggregator.fit([cells])
    x = torch.zeros(1, D)
    x[0, 2] = place * 30
    assert aggregator.shares(x).sum() == pytest.approx(1)


def test_k_means_finds_the_means_and_is_as_soft_as_it_says() -> None:
    aggregator = GhostVladAggregator(D, K)
    cells = two_kinds(500, 0.5)
    aggregator.fit([cells])
    means = torch.stack([cells[cells[:, 0] > 0].mean(dim=0), cells[cells[:, 0] < 0].mean(dim=0)])
    squared = torch.cdist(cells, means).amin(dim=1).square().mean()
    gap = aggregator.directions[0] - aggregator.directions[1]
    expected = 2 * 4.0 / squared * (means[0] - means[1])
    torch.testing.assert_close(gap * gap[0].sign(), expected, rtol=1e-5, atol=1e-4)
    between = aggregator.shares(means.mean(dim=0))
    torch.testing.assert_close(between, torch.full((K,), 0.5), atol=1e-3, rtol=0)


def test_of_cells_that_are_all_the_same_each_kind_has_an_equal_share() -> None:
    aggregator = GhostVladAggregator(D, K)
    cells = torch.full((9, D), 3.0)
    aggregator.fit([cells])
    assert not aggregator.pool(cells[None]).any()
    torch.testing.assert_close(aggregator.shares(cells), torch.full((9, K), 1 / K))


@pytest.mark.parametrize("kinds", [None, layer()], ids=["k-means", "encoder"])
def test_centres_are_the_means_of_the_training_cells_of_a_kind(kinds: CellTypes | None) -> None:
    cells = torch.cat([two_kinds(200, 0.5, seed) for seed in range(3)])
    means = torch.stack([cells[cells[:, 0] > 0].mean(dim=0), cells[cells[:, 0] < 0].mean(dim=0)])
    centres = fitted(kinds).centres
    found = centres[centres[:, 0].argsort(descending=True)]
    torch.testing.assert_close(found, means, atol=1e-4, rtol=0)


def test_one_cell_is_taken_half() -> None:
    """What is seen once counts half of its deviation from the centre."""
    aggregator = fitted(layer())
    cell = two_kinds(1, 1.0)
    vector = aggregator.pool(cell[None])[0].view(K, D)
    torch.testing.assert_close(vector[0], (cell[0] - aggregator.centres[0]) / 2)


def test_a_kind_that_is_absent_says_nothing() -> None:
    aggregator = fitted(layer())
    only_first = two_kinds(300, 1.0)
    assert aggregator.pool(only_first[None])[0].view(K, D)[1].abs().max() < 1e-3


def test_what_the_cells_add_is_the_whole() -> None:
    aggregator, cells = fitted(), two_kinds(60, 0.3)
    gradient = torch.randn(K * D, generator=torch.Generator().manual_seed(1))
    state = aggregator.update((), cells)
    parts = aggregator.parts(state, cells, gradient)
    torch.testing.assert_close(parts.sum(), gradient @ aggregator.finish(state))


def test_too_few_cells_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"1 training cells for 2 prototypes"):
        GhostVladAggregator(D, K).fit([torch.zeros(1, D)])


def test_another_number_of_kinds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"knows 2 kinds of cell: set model.prototypes=2"):
        GhostVladAggregator(D, 3).fit([two_kinds(50, 0.5)], layer())


def test_prototypes_of_a_network_follow_its_standardised_cells() -> None:
    """The encoder's layer reads raw vectors, the fusion standardised ones: the shares agree."""
    cells = {f"p{i}": 7 + 3 * two_kinds(40, 0.5, i) for i in range(4)}
    kinds = layer()
    with torch.no_grad():
        kinds.bias[0], kinds.bias[1] = -7.0, 7.0
    config = Config(model=ModelConfig(aggregator="ghost_vlad", prototypes=K))
    task = Task(("AML", "APL"), dict.fromkeys(cells, "AML"), tuple(cells), (), 0)
    material = Material(EmbeddedCells(cells), D, types=kinds)
    network = fresh_network(material, task, config)
    assert isinstance(network.aggregator, GhostVladAggregator)
    with torch.no_grad():
        wanted = kinds(cells["p0"]).softmax(dim=1)[:, :-1]
    found = network.aggregator.shares(network.standardiser(cells["p0"]))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_the_blood_cell_encoder_knows_as_many_kinds_as_the_settings_say() -> None:
    known = new_encoder("blood_cell").types
    assert known is not None
    assert known.lines.shape == (len(TYPES), len(LINES))
    assert len(LINES) == ModelConfig().prototypes
    assert set(known.lines.sum(dim=1).tolist()) == {0.0, 1.0}  # of one line, or of none
    assert new_encoder("resnet_small").types is None
