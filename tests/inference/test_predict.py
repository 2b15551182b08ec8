from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch

from millie.bags.store import BagReader
from millie.config import PredictionConfig
from millie.errors import BundleError, ConfigError, NoCellsError
from millie.inference import alone
from millie.inference.gates import reference_features
from millie.inference.predict import bundle_runtimes, predict_bag, sample_quality
from millie.inference.runtime import FeatureRuntime
from millie.models.aggregators import AGGREGATORS
from millie.models.bundle import Bundle, BundleDescription, save_bundle
from millie.models.encoder import CellTypes
from millie.models.encoders import new_encoder, weights_digest
from millie.models.network import MilNetwork, build_network
from millie.types import Prediction

MakeBundle = Callable[..., Bundle]
MakeBag = Callable[..., BagReader]
CONFIG = PredictionConfig(batch_size=16)


def assert_same(one: Prediction, two: Prediction, tolerance: float = 0) -> None:
    assert (one.state, one.reasons, one.label, one.n_cells) == (
        two.state, two.reasons, two.label, two.n_cells,
    )  # fmt: skip
    for label, p in one.probabilities.items():
        assert two.probabilities[label] == pytest.approx(p, abs=tolerance)


@pytest.mark.parametrize("aggregator", AGGREGATORS)
@pytest.mark.parametrize("networks", [1, 3])
def test_a_prediction_is_that_of_the_networks(
    aggregator: str, networks: int, make_bundle: MakeBundle, make_bag: MakeBag,
    runtime: FeatureRuntime,
) -> None:  # fmt: skip
    bundle, reader = make_bundle(aggregator, networks=networks), make_bag(60)
    found = predict_bag(bundle, reader, runtime, CONFIG)
    features = torch.from_numpy(runtime(reader.images(0, 60)))
    with torch.no_grad():
        bags = torch.stack([n.bag_logits(features[None])[0] for n in bundle.networks])
        cells = torch.stack([n.cell_logits(features) for n in bundle.networks])
    expected = dict(zip(bundle.labels, bundle.probabilities(bags).tolist(), strict=True))
    assert found.probabilities == pytest.approx(expected, abs=5e-6)
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert found.cell_probabilities.dtype == np.float32
    np.testing.assert_allclose(found.cell_probabilities, bundle.probabilities(cells), atol=5e-6)
    assert found.label == max(expected, key=lambda label: expected[label])
    assert (found.patient, found.n_cells) == ("p", 60)
    assert (found.model, found.model_sha256) == ("test 1.0.0", bundle.sha256)
    assert tuple(found.winners) == bundle.labels


def test_a_cell_alone_counts_as_far_as_it_is_immature(
    make_bundle: MakeBundle, make_bag: MakeBag, runtime: FeatureRuntime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    bundle, reader = make_bundle(labels=("APL", "CLL", "normal"), networks=3), make_bag(20)
    plain = predict_bag(bundle, reader, runtime, CONFIG)
    asked = []

    def told(network: MilNetwork, encoder: str, cells: torch.Tensor) -> torch.Tensor:
        asked.append((network is bundle.networks[0], encoder))
        return cells[:, 0].double()

    monkeypatch.setattr(alone, "immature_cells", told)
    found = predict_bag(bundle, reader, runtime, PredictionConfig(batch_size=7))
    assert asked == [(True, "resnet_small")] * 3
    immature = runtime(reader.images(0, 20))[:, 0]
    expected = plain.cell_probabilities.copy()
    expected[:, 0] *= immature
    expected[:, 2] = 1 - expected[:, 0] - expected[:, 1]
    assert 0.1 < immature.min() < immature.max() < 0.9
    np.testing.assert_allclose(found.cell_probabilities, expected, atol=1e-5)
    assert_same(found, plain, 1e-6)  # no call rests on it


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_batch_size_and_order_of_cells_do_not_matter(
    aggregator: str, make_bundle: MakeBundle, make_bag: MakeBag, runtime: FeatureRuntime
) -> None:
    bundle = make_bundle(aggregator)
    order = np.random.default_rng(0).permutation(60)
    reader, shuffled = make_bag(60), make_bag(60, order=order)
    first = predict_bag(bundle, reader, runtime, CONFIG)
    for size in (1, 7, 100):
        other = predict_bag(bundle, reader, runtime, PredictionConfig(batch_size=size))
        assert_same(first, other, 1e-5)
        np.testing.assert_allclose(other.cell_probabilities, first.cell_probabilities, atol=1e-5)
    other = predict_bag(bundle, shuffled, runtime, CONFIG)
    assert_same(first, other, 1e-5)
    np.testing.assert_allclose(other.cell_probabilities, first.cell_probabilities[order], atol=1e-5)
    for label in bundle.labels:
        own = {w.cell: w.contribution for w in first.winners[label]}
        renamed = {int(order[w.cell]): w.contribution for w in other.winners[label]}
        assert renamed == pytest.approx(own, abs=1e-4)


def test_cells_are_named_by_what_the_encoder_takes_them_for(
    make_bundle: MakeBundle, make_bag: MakeBag, runtime: FeatureRuntime
) -> None:
    reader = make_bag(20)
    features = torch.from_numpy(runtime(reader.images(0, 20)))
    types = CellTypes(features.shape[1], torch.eye(3, 2), torch.tensor([1.0, 0.0]), ("a", "b", "c"))
    found = predict_bag(make_bundle(), reader, runtime, CONFIG, types=types)
    expected = ["abc"[i] for i in types(features).argmax(dim=1)]
    assert list(found.cell_types) == expected
    winners = [w for own in found.winners.values() for w in own]
    assert [w.looks_like for w in winners] == [expected[w.cell] for w in winners]
    assert types.mature_names == ("a",)
    assert predict_bag(make_bundle(), reader, runtime, CONFIG).cell_types == ()
    for flaw in ({"smudge": True}, {"at_border": True}, {"quality": 0.0}):  # these look like others
        found = predict_bag(make_bundle(), make_bag(5, **flaw), runtime, CONFIG, types=types)
        assert found.cell_types == ("",) * 5


def test_repeats_are_identical(
    make_bundle: MakeBundle, make_bag: MakeBag, runtime: FeatureRuntime
) -> None:
    bundle, reader = make_bundle("gated_attention", networks=2), make_bag(60)
    first = predict_bag(bundle, reader, runtime, CONFIG)
    for _ in range(5):
        again = predict_bag(bundle, reader, runtime, CONFIG)
        assert_same(first, again)
        assert again.winners == first.winners
        np.testing.assert_array_equal(again.cell_probabilities, first.cell_probabilities)


def test_a_single_cell_scores_like_its_bag(
    make_bundle: MakeBundle, make_bag: MakeBag, runtime: FeatureRuntime
) -> None:
    found = predict_bag(make_bundle(), make_bag(1), runtime, CONFIG)
    np.testing.assert_allclose(
        found.cell_probabilities[0], list(found.probabilities.values()), atol=1e-6
    )


def test_no_more_than_a_batch_is_encoded_at_a_time(
    make_bundle: MakeBundle, make_bag: MakeBag, runtime: FeatureRuntime
) -> None:
    told: list[tuple[int, int]] = []
    predict_bag(make_bundle(), make_bag(70), runtime, CONFIG, lambda *done: told.append(done))
    assert runtime.batches == [16, 16, 16, 16, 6]
    assert told[-1] == (70, 70)


def test_memory_does_not_grow_with_the_bag(
    make_bundle: MakeBundle, make_bag: MakeBag, runtime: FeatureRuntime
) -> None:
    bundle = make_bundle()

    def peak(count: int) -> int:
        reader = make_bag(count)
        tracemalloc.start()
        predict_bag(bundle, reader, runtime, CONFIG)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(16)
    crop_bytes = 32 * 32 * 3
    # what grows is the table of cells and their probabilities, far less than a crop
    assert peak(1200) - peak(200) < 0.35 * 1000 * crop_bytes


def test_gates_read_the_limits_and_the_reference_of_the_bundle(
    make_bundle: MakeBundle, make_bag: MakeBag, runtime: FeatureRuntime
) -> None:
    reader = make_bag(60)
    quality = sample_quality(make_bundle(), reader, runtime, CONFIG)
    assert quality.distance is None
    free = predict_bag(make_bundle(), reader, runtime, CONFIG)
    assert free.reasons == ()
    assert free.state in {"AML", "APL_SUSPECT"}
    blurred = make_bundle(qc={"min_sharpness": 2 * quality.sharpness})
    far = make_bundle(reference=reference_features(5 + 0.01 * torch.randn(9, runtime.dim)))
    for bundle, words in ((blurred, "out of focus"), (far, "unlike the training samples")):
        found = predict_bag(bundle, reader, runtime, CONFIG)
        assert found.state in {"INDETERMINATE", "URGENT_INDETERMINATE"}
        assert words in found.reasons[0].text
        assert found.probabilities == pytest.approx(free.probabilities)


def test_values_that_are_not_finite_reach_no_prediction(
    make_bundle: MakeBundle, make_bag: MakeBag, runtime: FeatureRuntime
) -> None:
    bundle = make_bundle("mean")
    with torch.no_grad():
        for weight in bundle.networks[0].head.parameters():
            weight.mul_(1e30)
    with pytest.raises(BundleError, match="probabilities that are not finite"):
        predict_bag(bundle, make_bag(3), runtime, CONFIG)


def test_cells_without_an_outline_are_not_usable(
    make_bundle: MakeBundle, make_bag: MakeBag, runtime: FeatureRuntime
) -> None:
    found = predict_bag(make_bundle(), make_bag(60, quality=0.0), runtime, CONFIG)
    assert found.n_cells == 0
    assert "too few cells: 0 usable" in found.reasons[0].text
    assert len(found.cell_probabilities) == 60


def test_bags_and_runtimes_that_do_not_fit_are_refused(
    make_bundle: MakeBundle, make_bag: MakeBag, runtime: FeatureRuntime
) -> None:
    bundle = make_bundle(networks=3)
    with pytest.raises(NoCellsError, match="patient 'p' has no cells"):
        predict_bag(bundle, make_bag(0), runtime, CONFIG)
    with pytest.raises(ConfigError, match=r"expects 32 px .25"):
        predict_bag(bundle, make_bag(3, size_um=10), runtime, CONFIG)
    with pytest.raises(ConfigError, match="2 runtimes for 3 networks"):
        predict_bag(bundle, make_bag(3), [runtime, runtime], CONFIG)


def test_trained_encoders_have_a_runtime_each(
    make_bundle: MakeBundle, make_bag: MakeBag, tmp_path: object
) -> None:
    config = make_bundle().config
    networks = []
    for seed in range(2):
        encoder = new_encoder("resnet_small")
        with torch.no_grad():
            next(iter(encoder.parameters())).mul_(1.1 + seed)
        networks.append(build_network(config.model, ("AML", "APL"), None, encoder, seed=seed))
    description = BundleDescription("trained", "1.0.0", ("AML", "APL"), "APL")
    folder = make_bundle().folder.parent / "trained"
    untrained = weights_digest(new_encoder("resnet_small"))
    bundle = save_bundle(folder, networks, config, description, untrained)
    reader = make_bag(5)
    by_torch, by_openvino = (
        predict_bag(bundle, reader, bundle_runtimes(bundle, settings), settings)
        for settings in (PredictionConfig(runtime="torch"), PredictionConfig(runtime="openvino"))
    )
    images = torch.from_numpy(reader.images(0, 5)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        logits = torch.stack([n(images[None])[0] for n in bundle.networks])
    expected = dict(zip(bundle.labels, bundle.probabilities(logits).tolist(), strict=True))
    assert by_torch.probabilities == pytest.approx(expected, abs=1e-5)
    assert_same(by_torch, by_openvino, 1e-4)
