"""The network: one set of weights for bags and cells, saved and loaded without loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from millie.config import ModelConfig
from millie.errors import BundleError, ConfigError, NoCellsError
from millie.models.aggregators import AGGREGATORS
from millie.models.encoders import new_encoder
from millie.models.network import (
    Head,
    MilNetwork,
    Standardiser,
    build_network,
    load_tensors,
    parameter_count,
    state_tensors,
)

CLASSES = ("AML", "APL", "normal")
D = 8


def network(seed: int = 0, **settings: object) -> MilNetwork:
    config = ModelConfig.model_validate({"hidden": (5,), "aggregator": "max", **settings})
    return build_network(config, CLASSES, D, seed=seed).eval()


def embeddings(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", list(AGGREGATORS))
def test_a_bag_of_one_cell_gives_the_cells_logits(name: str) -> None:
    net, x = network(aggregator=name), embeddings(4)
    torch.testing.assert_close(net.bag_logits(x[:, None]), net.cell_logits(x))


@pytest.mark.parametrize("name", list(AGGREGATORS))
def test_streamed_logits_equal_plain(name: str) -> None:
    net, x = network(aggregator=name), embeddings(23)
    torch.testing.assert_close(net.stream_logits(x.split(5)), net.bag_logits(x[None])[0])


def test_a_stream_without_cells_is_refused() -> None:
    with pytest.raises(NoCellsError, match="no cell"):
        network().stream_logits([])


def test_padding_changes_no_logit() -> None:
    net, x = network(), embeddings(6)
    padded = torch.cat([x, torch.full((3, D), 9e9)])[None]
    mask = torch.arange(9)[None] < 6
    torch.testing.assert_close(net(padded, mask), net(x[None]))


def test_images_and_embeddings_give_the_same() -> None:
    config = ModelConfig(encoder="resnet_small", pretrained=False, hidden=())
    net = build_network(config, CLASSES, encoder=new_encoder("resnet_small")).eval()
    images = torch.rand(1, 3, 3, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(net(images), net(net.embed(images[0])[None]))
    assert net.dim == 256


def test_a_network_without_encoder_says_so() -> None:
    with pytest.raises(ConfigError, match="no encoder"):
        network().embed(torch.rand(1, 3, 96, 96))


@pytest.mark.parametrize("hidden", [(), (5,), (7, 3)])
def test_the_head_has_the_named_layers(hidden: tuple[int, ...]) -> None:
    head = Head(D, hidden, 3, dropout=0.1)
    widths = [m.out_features for m in head if isinstance(m, nn.Linear)]
    assert widths == [*hidden, 3]
    assert sum(isinstance(m, nn.ReLU) for m in head) == len(hidden)
    assert sum(isinstance(m, nn.Dropout) for m in head) == len(hidden) + 1


def test_dropout_acts_in_training_only() -> None:
    net, x = network(dropout=0.5), embeddings(200)[:, None]
    assert torch.equal(net(x), net(x))
    net.train()
    torch.manual_seed(0)
    assert not torch.equal(net(x), net(x))


def test_the_seed_decides_the_weights_and_leaves_torch_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one, same, other = network(1), network(1), network(2)
    assert torch.equal(torch.rand(1), expected)
    x = embeddings(3)[None]
    assert torch.equal(one(x), same(x))
    assert not torch.equal(one(x), other(x))


@pytest.mark.parametrize(
    ("classes", "dim", "message"),
    [
        (("AML",), D, "two or more"),
        (("AML", "AML"), D, "different names"),
        (CLASSES, None, "either feature_dim or encoder"),
        (CLASSES, 0, "feature_dim=0"),
    ],
)
def test_impossible_networks_are_refused(
    classes: tuple[str, ...], dim: int | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_network(ModelConfig(), classes, dim)


def test_saved_and_loaded_weights_give_the_same_logits() -> None:
    net = network(aggregator="gated_attention")
    net.standardiser.fit(embeddings(50) * 3 + 1)
    other = network(seed=9, aggregator="gated_attention")
    load_tensors(other, state_tensors(net, with_encoder=True))
    x = embeddings(5)[None]
    assert torch.equal(other(x), net(x))


def test_the_encoder_is_left_out_on_request() -> None:
    config = ModelConfig(encoder="resnet_small", pretrained=False)
    net = build_network(config, CLASSES, encoder=new_encoder("resnet_small"))
    without = state_tensors(net, with_encoder=False)
    assert not [name for name in without if name.startswith("encoder.")]
    assert [name for name in state_tensors(net, with_encoder=True) if name.startswith("encoder.")]
    load_tensors(net, without)


def test_saved_tensors_are_copies() -> None:
    net = network()
    saved = state_tensors(net, with_encoder=False)
    saved["standardiser.mean"].fill_(5.0)
    assert torch.count_nonzero(net.standardiser.mean) == 0


@pytest.mark.parametrize("damage", ["missing", "unknown", "shape", "nan"])
def test_weights_that_do_not_fit_are_refused(damage: str) -> None:
    net = network()
    tensors = state_tensors(net, with_encoder=False)
    if damage == "missing":
        del tensors["standardiser.std"]
    elif damage == "unknown":
        tensors["standardiser.median"] = torch.zeros(D)
    elif damage == "shape":
        tensors["standardiser.std"] = torch.ones(D + 1)
    else:
        tensors["standardiser.std"][2] = torch.nan
    message = {"missing": "lack", "unknown": "unknown", "shape": r"\(9,\), expected",
               "nan": "not finite"}[damage]  # fmt: skip
    with pytest.raises(BundleError, match=message):
        load_tensors(net, tensors)


def test_the_standardiser_begins_as_identity() -> None:
    x = embeddings(4)
    assert torch.equal(Standardiser(D)(x), x)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_the_standardiser_makes_mean_0_and_sd_1_whatever_the_chunks(size: int) -> None:
    x = embeddings(100) * torch.arange(1, D + 1) + 1e3
    standardiser = Standardiser(D)
    standardiser.fit(iter(x.split(size)))
    z = standardiser(x)
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(D), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std(dim=0, correction=0), torch.ones(D), atol=1e-4, rtol=0)


def test_a_feature_that_never_varies_becomes_0() -> None:
    standardiser = Standardiser(D)
    standardiser.fit(torch.full((10, D), 3.0))
    assert torch.equal(standardiser(torch.full((1, D), 3.0)), torch.zeros(1, D))


def test_the_standardiser_refuses_what_it_cannot_use() -> None:
    with pytest.raises(ConfigError, match="no cells"):
        Standardiser(D).fit(torch.zeros(0, D))
    with pytest.raises(ConfigError, match=r"expected \(n, 8\)"):
        Standardiser(D).fit(torch.zeros(3, D + 1))


def test_parameters_are_counted() -> None:
    net = network(hidden=(5,))
    assert parameter_count(net) == (D + 1) * 5 + (5 + 1) * len(CLASSES)


def test_the_two_pass_gradient_of_the_maximum_is_the_plain_one() -> None:
    config = ModelConfig(
        encoder="resnet_small", pretrained=False, aggregator="max", hidden=(4,), dropout=0.0
    )
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def gradients(*, two_passes: bool) -> list[Tensor]:
        net = build_network(config, CLASSES, encoder=new_encoder("resnet_small"))
        chosen = torch.arange(len(images))
        if two_passes:
            with torch.no_grad():
                winners = net.aggregator.winners(net.standardiser(net.embed(images))[None])
            chosen = winners.unique()
        loss = nn.functional.cross_entropy(net(images[chosen][None]), torch.tensor([1]))
        return list(torch.autograd.grad(loss, list(net.parameters())))

    for plain, exact in zip(gradients(two_passes=False), gradients(two_passes=True), strict=True):
        torch.testing.assert_close(exact, plain, atol=1e-6, rtol=1e-4)
