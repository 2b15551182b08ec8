"""Share of immature cells: what is told of it, and that it calms no sample that shows them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from millie.config import PredictionConfig
from millie.inference.calls import CallRule, decide
from millie.inference.immature import LIMIT, Immature, immature, immature_cells, immature_limit
from millie.inference.quality import SampleQuality
from millie.models.blood_cell import IMMATURE, TYPES
from millie.models.bundle import load_bundle
from millie.models.network import MilNetwork, build_network

GOOD = SampleQuality(100, 100, 0.0, 1.0, 0.3)
RULE = CallRule("APL", 0.5, 0.2, {})
FEW, MANY = Immature(0.02, 0.03, 0.05), Immature(0.04, 0.06, 0.05)


@pytest.fixture(scope="module")
def network() -> MilNetwork:
    return load_bundle("acute-leukaemia").networks[0]


def cells_of(network: MilNetwork, *names: str) -> torch.Tensor:
    """Vectors that the encoder's layer of types takes for these types."""
    fusion, standard = network.aggregator.deviations, network.standardiser
    directions = fusion.directions[[TYPES.index(name) for name in names]]
    unlike = directions - fusion.directions.mean(dim=0)
    standardised = 60 * unlike / unlike.norm(dim=1, keepdim=True)
    return standardised * standard.std + standard.mean


def test_blasts_and_promyelocytes_count_and_mature_cells_do_not(network: MilNetwork) -> None:
    cells = cells_of(network, *IMMATURE, "segmented neutrophil", "lymphocyte", "monocyte")
    found = immature_cells(network, "blood_cell", cells)
    assert found is not None
    assert found == pytest.approx([1, 1, 1, 0, 0, 0], abs=0.05)


def test_the_interval_narrows_with_cells_and_order_does_not_count(network: MilNetwork) -> None:
    few = cells_of(network, "promyelocyte", *["segmented neutrophil"] * 9)
    many = few.repeat(10, 1)
    own, more = (immature(network, "blood_cell", x, {LIMIT: 0.2}) for x in (few, many))
    turned = immature(network, "blood_cell", few.flip(0), {LIMIT: 0.2})
    assert own == turned
    assert own is not None
    assert more is not None
    assert own.share == pytest.approx(more.share) == pytest.approx(0.1, abs=0.02)
    assert own.high > more.high > more.share
    assert own.seen
    assert not more.seen  # one in ten of a hundred cells: one in five is excluded


def test_nothing_is_told_without_a_limit_or_by_a_model_without_types(network: MilNetwork) -> None:
    cells = cells_of(network, "promyelocyte")
    assert immature(network, "blood_cell", cells, {}) is None
    assert immature(network, "resnet_small", cells, {LIMIT: 0.1}) is None
    config = load_bundle("acute-leukaemia").config.model.model_copy(update={"aggregator": "mean"})
    mean = build_network(config, ("AML", "APL"), cells.shape[1], seed=0)
    assert immature_cells(mean, "blood_cell", cells) is None


def test_the_limit_is_the_lowest_share_of_few_patients() -> None:
    assert immature_limit([0.3, 0.1, 0.2], 0.95) == {LIMIT: 0.1}
    assert immature_limit([], 0.95) == {}
    assert immature_limit(np.linspace(0, 1, 500).tolist(), 0.95)[LIMIT] > 0.02


@pytest.mark.parametrize(
    ("probabilities", "else_"),
    [
        ({"AML": 0.3, "APL": 0.4, "normal": 0.3}, "URGENT_INDETERMINATE"),  # the likeliest
        ({"AML": 0.1, "APL": 0.3, "normal": 0.6}, "URGENT_INDETERMINATE"),  # above its lower limit
        ({"AML": 0.03, "APL": 0.95, "normal": 0.02}, "APL_SUSPECT"),
        ({"AML": 0.95, "APL": 0.03, "normal": 0.02}, "AML"),
    ],
)
def test_without_immature_cells_nothing_is_urgent_and_no_disease_is_named(
    probabilities: dict[str, float], else_: str
) -> None:
    ends = {label: (p, p) for label, p in probabilities.items()}
    for found in (None, MANY):
        said, _ = decide(probabilities, RULE, GOOD, (), PredictionConfig(), ends, immature=found)
        assert said == else_
    said, reasons = decide(probabilities, RULE, GOOD, (), PredictionConfig(), ends, immature=FEW)
    assert said == "INDETERMINATE"
    assert [one.code for one in reasons] == ["FEW_IMMATURE_CELLS"]
    assert "2.0% of the cells" in reasons[0].text


def test_health_needs_no_immature_cells() -> None:
    probabilities = {"AML": 0.03, "APL": 0.01, "normal": 0.96}
    ends = {label: (p, p) for label, p in probabilities.items()}
    many = SampleQuality(300, 300, 0.0, 1.0, 0.3)
    found = decide(probabilities, RULE, many, (), PredictionConfig(), ends, immature=FEW)
    assert found == ("NO_SIGNAL", ())


def test_the_shipped_models_have_a_limit() -> None:
    for name in ("acute-leukaemia", "apl-blood"):
        assert 0 < load_bundle(name).manifest.qc[LIMIT] < 0.1
