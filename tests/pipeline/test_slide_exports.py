"""Cells of a whole slide are exported in pixels of level 0, its fields as one image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from millie.bags.store import BagReader, Store
from millie.config import Config
from millie.outputs.exports.outlines import cell_outlines
from millie.outputs.exports.samples import Sample
from millie.outputs.patient.records import PatientResult
from millie.pipeline.patient import PatientTask, segment_patient
from millie.types import ImageSource, Patient

if TYPE_CHECKING:
    from tests.conftest import DrawnSlide

pytest.importorskip("openslide", reason="pip install 'millie[slides]'")
SETTINGS = ["crops.size_px=96", "reading.max_field_megapixels=10", "reading.slide_cells=12"]


@pytest.fixture(scope="module")
def sample(drawn_slide: DrawnSlide, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    store = tmp_path_factory.mktemp("slide") / "store"
    patient = Patient("p1", None, (ImageSource(drawn_slide.path, "slide.tif"),))
    segment_patient(PatientTask(patient, store, Config().with_settings(SETTINGS), store))
    path = Store(store).path_of("p1")
    with BagReader(path) as bag:
        scores = np.zeros((bag.n_cells, 1), np.float32)
        result = PatientResult("p1", "INDETERMINATE")
        return Sample(result, bag.sources, tuple(bag.cells), scores, path, bag.meta)


def test_outlines_lie_around_their_cells_on_the_slide(sample: Sample) -> None:
    assert len(sample.sources) > 1
    assert all(source.place for source in sample.sources)
    for cell, (ring, _) in zip(sample.cells, cell_outlines(sample), strict=True):
        step = sample.sources[cell.source].place.step  # type: ignore[union-attr]
        near = 4 * step
        np.testing.assert_allclose(ring.min(axis=0), (cell.left_px, cell.top_px), atol=near)
        size = ring.max(axis=0) - ring.min(axis=0)
        np.testing.assert_allclose(size, (cell.width_px, cell.height_px), atol=2 * near)


def test_the_fields_of_a_slide_are_one_image(sample: Sample) -> None:
    (image,) = sample.images()
    assert image.name == "slide.tif"
    assert sorted(image.cells) == list(range(len(sample.cells)))
    left, top, width, height = image.frame
    for cell in sample.cells:
        assert left <= cell.x_px < left + width
        assert top <= cell.y_px < top + height
