"""Measures of cells and images: real crops that were spoiled fail the gate of what was done."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from millie.bags.store import BagReader, Store
from millie.config import Config, PredictionConfig
from millie.inference.gates import failed_gates, measures, quality_limits
from millie.inference.quality import QualityMeter, SampleQuality, measure_bag
from millie.pipeline.patient import PatientTask, segment_patient
from millie.types import (
    Cell,
    Finding,
    ImageKind,
    ImageSource,
    Patient,
    PixelSize,
    Problem,
    SourceRecord,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Spoil = Callable[[NDArray[np.float32]], NDArray[np.float32]]

CONFIG = PredictionConfig(min_cells=1)


@pytest.fixture(scope="module")
def cells_of_a_patient(
    data_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[Cell], list[SourceRecord]]:
    """Twelve single-cell images of a patient as crops, masks, cells and sources."""
    folder = data_root / "apl_aml" / "All" / "Patient_05"
    files = sorted(folder.rglob("*.jpg"))[::4][:12]
    um_px = PixelSize(0.1)
    images = tuple(ImageSource(path, path.name, ImageKind.CELL, um_px) for path in files)
    store = Store(tmp_path_factory.mktemp("quality"))
    segment_patient(PatientTask(Patient("p", None, images), store.root, Config()))
    with BagReader(store.path_of("p")) as bag:
        n = bag.n_cells
        return bag.images(0, n), bag.masks(0, n), list(bag.cells), list(bag.sources)


def grey(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.repeat(x.mean(axis=-1, keepdims=True), 3, axis=-1)


def blurred(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Crops blurred; a single colour stays."""
    return np.stack([cv2.GaussianBlur(crop, (0, 0), 3) for crop in x]) if x.ndim == 4 else x


SPOILS: dict[str, tuple[Spoil, set[str]]] = {
    "untouched": (lambda x: x, set()),
    "brighter by a fifth of a stop": (lambda x: x * 1.15, set()),
    "overexposed": (lambda x: x * 1.5, {"CLIPPED"}),
    "underexposed": (lambda x: x * 0.45, {"COLOURS_TOO_WEAK"}),
    "contrast stretched until it clips": (lambda x: (x - 90) * 2.4, {"CLIPPED"}),
    "washed out": (lambda x: 0.4 * x + 0.6 * 230, {"STAIN_TOO_WEAK", "COLOURS_TOO_WEAK"}),
    "nearly grey": (lambda x: 0.25 * x + 0.75 * grey(x), {"COLOURS_TOO_WEAK"}),
    "blurred": (blurred, {"OUT_OF_FOCUS"}),
}


@pytest.mark.realdata
@pytest.mark.parametrize("name", SPOILS)
def test_spoiled_crops_fail_their_own_gate(
    name: str,
    cells_of_a_patient: tuple[NDArray[np.uint8], NDArray[np.uint8], list[Cell], list[SourceRecord]],
) -> None:
    images, masks, cells, sources = cells_of_a_patient
    assert len(cells) >= 10

    def measured(spoil: Spoil) -> SampleQuality:
        def rounded(x: NDArray[np.float32]) -> NDArray[np.uint8]:
            return np.clip(np.round(spoil(x)), 0, 255).astype(np.uint8)

        seen = [
            replace(s, diagnostics={"background_rgb": rounded(
                np.asarray(s.diagnostics["background_rgb"], np.float32)).tolist()})
            for s in sources
        ]  # fmt: skip
        meter = QualityMeter(cells, seen)
        for start in range(0, len(cells), 5):
            part = slice(start, start + 5)
            meter.add(rounded(images.astype(np.float32))[part], masks[part])
        return meter.result()

    spoil, codes = SPOILS[name]
    limits = quality_limits([measured(lambda x: x)])
    found = measured(spoil)
    assert {reason.code for reason in failed_gates(found, limits, CONFIG)} == codes
    failed = {m.name for m in measures(found, limits, CONFIG) if not m.passed}
    assert len(failed) == len(codes)


def test_flags_fields_and_files_are_counted() -> None:
    cells = [
        Cell(0, 1, 1, 0, 0, 2, 2, 4, at_border=True),
        Cell(0, 1, 1, 0, 0, 2, 2, 4, in_clump=True),
        Cell(1, 1, 1, 0, 0, 2, 2, 4),
        Cell(2, 1, 1, 0, 0, 2, 2, 0, quality=0.0),
    ]
    kinds = (ImageKind.FIELD, ImageKind.FIELD, ImageKind.CELL)
    colours = {"background_rgb": [255, 204, 204]}
    sources = [SourceRecord(f"{i}", "0", kind, 0.1, 9, 9, "", colours)
               for i, kind in enumerate(kinds)]  # fmt: skip
    problems = [
        Problem("p", "a", Finding.DUPLICATE, "", note=True), Problem("p", "b", "ImageError", ""),
    ]  # fmt: skip
    found = QualityMeter(cells, sources, problems).result()
    assert (found.border_fraction, found.touching_fraction, found.unoutlined_fraction) == (
        0.25, 0.25, 0.25,
    )  # fmt: skip
    assert found.cells_per_field == 1.5
    assert (found.copies, found.unused_files) == (1, 1)
    assert found.background == pytest.approx(221 / 255)
    assert math.isnan(found.stain)


def test_stain_is_the_density_of_the_nucleus_over_the_background() -> None:
    image = np.full((1, 8, 8, 3), (255, 199, 255), np.uint8)
    mask = np.zeros((1, 8, 8), np.uint8)
    image[0, 2:6, 2:6], mask[0, 2:6, 2:6] = (100, 40, 120), 1
    image[0, 3:5, 3:5], mask[0, 3:5, 3:5] = (60, 19, 99), 2
    source = SourceRecord("a", "0", ImageKind.CELL, 0.1, 8, 8, "",
                          {"background_rgb": [255, 199, 255]})  # fmt: skip
    meter = QualityMeter([Cell(0, 4, 4, 2, 2, 4, 4, 16)], [source])
    meter.add(image, mask)
    found = meter.result()
    assert found.stain == pytest.approx(1.0)  # 200 / 20, one added on either side
    assert found.saturation == pytest.approx(80 / 255)
    assert found.clipped_fraction == 0


def test_old_bundles_do_not_gate_on_what_they_have_no_limit_for(
    make_bag: Callable[..., BagReader],
) -> None:
    quality = replace(
        measure_bag(make_bag(60)), stain=0.0, saturation=0.0, background=0.0, clipped_fraction=1.0
    )
    assert failed_gates(quality, {"min_sharpness": 0.0}, CONFIG) == ()
    named = {measure.name: measure for measure in measures(quality, {}, CONFIG)}
    assert named["stain"].passed
    assert named["stain"].low is None
    assert named["stain"].value == 0
