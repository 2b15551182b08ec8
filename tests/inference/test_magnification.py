"""A scale that was only read from the cells must be one of the training's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from millie.bags.store import BagReader
from millie.config import PredictionConfig, SegmentationConfig
from millie.inference.gates import reference_features
from millie.inference.magnification import (
    bag_um_px,
    contradicted_scale,
    doubtful_scale,
    read_um_px,
    unfamiliar_magnification,
)
from millie.inference.predict import predict_bag
from millie.segmentation import sample_statistics
from millie.types import ImageKind, PixelSize, Reason, SourceRecord

TRAINED = {"um_px": torch.tensor([0.064] + 29 * [0.1] + 10 * [0.32])}


def reasons_of(bag: BagReader, reference: dict[str, torch.Tensor] = TRAINED) -> tuple[Reason, ...]:
    return unfamiliar_magnification(read_um_px(bag), reference)


@pytest.fixture
def scaled_bag(make_bag: Callable[..., BagReader]) -> Callable[..., BagReader]:
    """An open bag of cells from one image with a scale from somewhere."""

    def make(
        um_px: float | None,
        scale_source: str,
        guess: float | None = None,
        over_stated: float | None = None,
    ) -> BagReader:
        facts = {"scale_source": scale_source, "um_px": um_px or guess, "over_stated": over_stated}
        record = SourceRecord("a.jpg", "", ImageKind.CELL, um_px, 1, 1, diagnostics=facts)
        return make_bag(10, source=record)

    return make


@pytest.mark.parametrize("source", ["sample", "red cells"])
@pytest.mark.parametrize("um_px", [0.05, 0.07, 0.14, 0.2, 0.45])
def test_a_scale_unlike_the_trainings_is_noticed(scaled_bag, source: str, um_px: float) -> None:
    (reason,) = reasons_of(scaled_bag(um_px, source))
    assert reason.code == "UNFAMILIAR_MAGNIFICATION"
    assert f"{um_px:.3g} um/px" in reason.text
    assert "0.1 (median)" in reason.text
    assert "um_px" in reason.remedy


@pytest.mark.parametrize("um_px", [0.0855, 0.1, 0.125, 0.3])
def test_scales_of_the_training_pass_though_far_from_their_median(scaled_bag, um_px: float) -> None:
    assert reasons_of(scaled_bag(um_px, "sample")) == ()


def test_one_training_patient_makes_no_scale_familiar(scaled_bag) -> None:
    assert reasons_of(scaled_bag(0.064, "sample"))


def test_a_stated_scale_is_believed(scaled_bag) -> None:
    assert reasons_of(scaled_bag(0.2, "given")) == ()


@pytest.mark.parametrize(
    ("over_stated", "n"), [(1.25, 1), (0.8, 1), (1.15, 0), (0.87, 0), (None, 0)]
)
def test_red_cells_that_contradict_the_stated_scale_are_believed_more(
    scaled_bag, over_stated: float | None, n: int
) -> None:
    bag = scaled_bag(0.1, "given", over_stated=over_stated)
    reasons = doubtful_scale(bag, TRAINED)
    assert [r.code for r in reasons] == ["SCALE_CONTRADICTED"] * n
    for one in reasons:
        assert f"{over_stated:.2g} times the um/px that is stated" in one.text
        assert "um_px in the manifest" in one.remedy


@pytest.mark.realdata
def test_a_wrong_scale_of_real_crops_is_contradicted_and_the_right_one_is_not(
    data_root: Path,
) -> None:
    paths = sorted((data_root / "apl_aml/All/Patient_02").glob("**/Signed slides/*/*.jpg"))[::4]
    crops = [np.asarray(Image.open(path).convert("RGB")) for path in paths[:8]]
    for stated, contradicted in ((0.1, False), (0.06, True), (0.15, True)):
        found = sample_statistics([(c, PixelSize(stated)) for c in crops], SegmentationConfig())
        assert found.over_stated is not None
        assert bool(contradicted_scale(found.over_stated)) == contradicted
        assert found.um_px == {}  # what is stated is not replaced


def test_a_guess_counts_though_the_crop_was_taken_as_it_is(scaled_bag) -> None:
    bag = scaled_bag(None, "leukocyte", guess=0.2)
    assert bag_um_px(bag) == 0.2
    assert reasons_of(bag)


def test_without_a_scale_or_a_record_of_the_training_there_is_no_reason(scaled_bag) -> None:
    assert reasons_of(scaled_bag(0.2, "sample"), {}) == ()
    nothing = scaled_bag(None, "assumed", guess=0.2)
    assert np.isnan(bag_um_px(nothing))
    assert reasons_of(nothing) == ()


def test_a_prediction_goes_to_a_person_with_the_reason(scaled_bag, make_bundle, runtime) -> None:
    bag = scaled_bag(0.2, "sample")
    means = reference_features(torch.from_numpy(runtime(bag.images(0, 10))))
    bundle = make_bundle(reference={**means, **TRAINED})
    loose = PredictionConfig(min_cells=3, min_cells_negative=5)
    codes = [r.code for r in predict_bag(bundle, bag, runtime, loose).reasons]
    assert "UNFAMILIAR_MAGNIFICATION" in codes
    stated = predict_bag(bundle, scaled_bag(0.2, "given"), runtime, loose)
    assert "UNFAMILIAR_MAGNIFICATION" not in [r.code for r in stated.reasons]


@pytest.mark.realdata
@pytest.mark.parametrize("patient", ["Patient_02", "Patient_40", "Patient_75"])
def test_half_and_twice_the_magnification_of_real_crops(
    data_root: Path, scaled_bag, patient: str
) -> None:
    """Of 40 and 75 the scale is misread most of all 82: 0.086 and 0.107 for 0.1."""
    paths = sorted((data_root / "apl_aml/All" / patient).glob("**/Signed slides/*/*.jpg"))[::4]
    crops = [np.asarray(Image.open(path).convert("RGB")) for path in paths[:12]]
    for factor, expected in ((1.0, 0), (0.5, 1), (2.0, 1)):
        images = [(cv2.resize(crop, None, fx=factor, fy=factor), None) for crop in crops]
        statistics = sample_statistics(images, SegmentationConfig())
        bag = scaled_bag(float(np.median(list(statistics.um_px.values()))), "sample")
        assert len(reasons_of(bag, {"um_px": torch.full((20,), 0.1)})) == expected
