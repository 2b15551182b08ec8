from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from millie import pipeline
from millie.bags.store import BagReader, Store
from millie.config import Config
from millie.inference.magnification import doubtful_scale
from millie.pipeline.image_notes import doubtful_scales, other_scale
from millie.types import Finding, ImageKind, Patient, SourceRecord

PATIENT = Patient("p", None, ())
CROP = SourceRecord("c.jpg", "0", ImageKind.CELL, 0.1, 360, 360)


def field(um_px: float = 0.1, source: str = "given") -> SourceRecord:
    facts = {"scale_source": source}
    return SourceRecord("f.jpg", "1", ImageKind.FIELD, um_px, 3000, 3000, diagnostics=facts)


def test_an_overview_at_the_scale_of_the_crops_is_noted() -> None:
    (found,) = doubtful_scales(PATIENT, [CROP, field()], 0.1)
    assert (found.source, found.error, found.note) == ("f.jpg", Finding.SAME_SCALE, True)
    assert "0.1 um/px" in found.message


@pytest.mark.parametrize(
    ("sources", "um_px"),
    [
        ([CROP, field()], None),
        ([field(), field()], 0.1),
        ([CROP, CROP], 0.1),
        ([CROP, field(0.2)], 0.1),
        ([CROP, field(0.1, "red cells")], 0.1),
    ],
)
def test_nothing_is_said_where_the_scale_is_the_fields_own(
    sources: list[SourceRecord], um_px: float | None
) -> None:
    assert doubtful_scales(PATIENT, sources, um_px) == []


def test_a_patient_whose_red_cells_contradict_the_scale_is_noted() -> None:
    (found,) = other_scale("p", 1.6)
    assert (found.patient, found.error, found.note) == ("p", Finding.OTHER_SCALE, True)
    assert "1.6 times the um/px" in found.message
    assert other_scale("p", 1.1) == other_scale("p", None) == []


@pytest.mark.realdata
@pytest.mark.parametrize(("um_px", "n"), [(0.16, 1), (0.1, 0)])
def test_a_false_scale_is_noted_and_travels_with_the_cells(
    data_root: Path, tmp_path: Path, um_px: float, n: int
) -> None:
    folder = tmp_path / "patient"
    folder.mkdir()
    shown = data_root / "apl_aml" / "All" / "Patient_02"
    for path in sorted(shown.glob("**/Signed slides/*/*.jpg"))[::6]:
        shutil.copy(path, folder)
    config = Config().with_settings([f"segmentation.um_px={um_px}"])
    detected = pipeline.detect([folder], config=config)
    cut = pipeline.segment([folder], tmp_path / "store", config)
    for problems in (detected.problems, cut.problems):
        assert [p.error for p in problems].count(Finding.OTHER_SCALE) == n
    (bag,) = Store(tmp_path / "store").files()
    with BagReader(bag) as reader:
        assert [r.code for r in doubtful_scale(reader, {})] == ["SCALE_CONTRADICTED"] * n
