"""DICOM objects that the field's own tools read: dciodvfy (dicom3tools) and dsrdump (DCMTK)."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millie.config import ReadingConfig
from millie.errors import DataError, ImageError, MissingFileError, MissingPackageError
from millie.outputs.exports.extras import with_extra
from millie.outputs.exports.outlines import cell_outlines
from millie.outputs.exports.samples import Exported, read_run

from .conftest import FAILED, STATES

pydicom = pytest.importorskip("pydicom", reason="needs pydicom (extra dicom)")
highdicom = pytest.importorskip("highdicom", reason="needs highdicom (extra dicom)")
dicom_sr = with_extra("dicom_sr", "dicom")
dicom_images = with_extra("dicom_images", "dicom")

KNOWN_FALSE = "Only valid for AnnotationCoordinateType of 3D - attribute <CommonZCoordinateValue>"
"""PS3.3, C.37.1.2: absent in 2D; dciodvfy reports the absent attribute as one with no value."""


@pytest.fixture(scope="module")
def folder(called: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dicom") / "objects"
    assert dicom_sr.export_dicom(called, out) == Exported(3, (FAILED,))
    return out


@pytest.fixture(scope="module")
def without_scale(called: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One patient's objects as if the scale of the image were unknown."""
    run, samples = read_run(called)
    sample = next(samples)
    sources = tuple(dataclasses.replace(source, um_px=None) for source in sample.sources)
    out = tmp_path_factory.mktemp("photographs") / "p"
    study = dicom_images.Study(run, sample.result.patient)
    # The masks were cut by a scale; native pixels keep them within the image.
    meta = dataclasses.replace(sample.meta, size_um=0)
    dicom_sr._write_patient(
        out, study, dataclasses.replace(sample, sources=sources, meta=meta), ReadingConfig()
    )
    return out


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def errors_of(path: Path) -> list[str]:
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("needs dciodvfy (Debian package dicom3tools)")
    shown = subprocess.run([tool, str(path)], check=False, capture_output=True, text=True)  # noqa: S603
    return [line for line in shown.stderr.splitlines() if line.startswith("Error")]


def test_dciodvfy_finds_no_error_but_the_known_false_one(folder: Path, without_scale: Path) -> None:
    for path in [*sorted(folder.rglob("*.dcm")), *sorted(without_scale.glob("*.dcm"))]:
        found = errors_of(path)
        if path.name.startswith("annotations"):
            assert len(found) == 1, found
            assert KNOWN_FALSE in found[0]
        else:
            assert not found


def test_dsrdump_reads_the_report(folder: Path) -> None:
    tool = shutil.which("dsrdump")
    if tool is None:
        pytest.skip("needs dsrdump (Debian package dcmtk)")
    for path in folder.rglob("report.dcm"):
        shown = subprocess.run([tool, str(path)], check=True, capture_output=True, text=True)  # noqa: S603
        assert "PRELIMINARY" in shown.stdout
        assert "UNVERIFIED" in shown.stdout
        assert "Probability of APL by the model" in shown.stdout


def content_of(report: Any) -> list[Any]:
    found = list(report.ContentSequence)
    for item in found:
        found += list(item.get("ContentSequence", []))
    return found


def test_reports_say_what_the_run_says(called: Path, folder: Path) -> None:
    run, samples = read_run(called)
    reports = {
        report.PatientID: report for report in map(pydicom.dcmread, folder.rglob("report.dcm"))
    }
    for sample, state in zip(samples, STATES, strict=True):
        report = reports[sample.result.patient]
        assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
        items = content_of(report)
        (call,) = [i.ConceptCodeSequence[0].CodeValue for i in items
                   if i.ConceptNameCodeSequence[0].CodeValue == "CALL"]  # fmt: skip
        assert call == {"URGENT_INDETERMINATE": "URGENT_INDET"}.get(state, state)
        texts = " ".join(i.TextValue for i in items if i.ValueType == "TEXT")
        assert "research use only" in texts
        assert "not reviewed by a person" in texts
        assert run.model.scope in texts
        assert run.model.sha256 in texts
        assert ("at least 50" in texts) == bool(sample.result.reasons)
        measured = {
            i.ConceptNameCodeSequence[0].CodeMeaning: float(i.MeasuredValueSequence[0].NumericValue)
            for i in items
            if i.ValueType == "NUM" and "MeasuredValueSequence" in i
        }
        assert measured["Probability of APL by the model"] == pytest.approx(0.8)
        assert measured["Leukocytes analysed"] == sample.result.n_cells


def test_annotations_are_the_cells_on_the_image_they_name(called: Path, folder: Path) -> None:
    _, samples = read_run(called)
    for sample in samples:
        place = next(p.parent for p in folder.rglob("report.dcm")
                     if pydicom.dcmread(p).PatientID == sample.result.patient)  # fmt: skip
        image = pydicom.dcmread(place / "image-0001.dcm")
        notes = highdicom.ann.annread(place / "annotations-0001.dcm")
        assert notes.ReferencedImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
        (group,) = notes.get_annotation_groups()
        assert group.algorithm_type.value == "AUTOMATIC"
        polygons = group.get_graphic_data("2D")
        for polygon, (ring, _) in zip(polygons, cell_outlines(sample), strict=True):
            np.testing.assert_allclose(polygon, ring[:-1], atol=0.01)
        named, values, _ = group.get_measurements()
        column = [name.meaning for name in named].index("Probability of APL by the model")
        np.testing.assert_allclose(values[:, column], sample.probabilities[:, 1], atol=1e-6)
        spacing = image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
        assert float(spacing[0]) * 1000 == pytest.approx(sample.sources[0].um_px)
        assert image.pixel_array.shape == (image.Rows, image.Columns, 3)


def test_cells_of_an_image_without_scale_stand_in_the_report(
    called: Path, without_scale: Path
) -> None:
    assert names(without_scale) == {"image-0001.dcm", "report.dcm"}
    _, samples = read_run(called)
    regions = [i for i in content_of(pydicom.dcmread(without_scale / "report.dcm"))
               if i.ValueType == "SCOORD"]  # fmt: skip
    assert len(regions) == len(next(samples).cells)
    image = pydicom.dcmread(without_scale / "image-0001.dcm")
    assert image.SOPClassUID.name == "VL Microscopic Image Storage"


def test_no_patient_data_but_the_pseudonym(folder: Path) -> None:
    for path in folder.rglob("*.dcm"):
        made = pydicom.dcmread(path)
        assert not any([made.PatientName, made.PatientBirthDate, made.PatientSex])


@pytest.mark.parametrize("patient", ["a\\b", "x" * 65, " p", "p\n1"])
def test_a_pseudonym_that_dicom_cannot_hold_is_made_safe(called: Path, patient: str) -> None:
    run, _ = read_run(called)
    found = dicom_images.Study(run, patient).patient_id
    assert len(found) <= 64
    assert found.isprintable()
    assert "\\" not in found
    assert dicom_images.Study(run, "P 7 (Ä)").patient_id == "P 7 (Ä)"


def test_an_image_that_changed_since_is_not_annotated(
    called: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(*given: Any) -> Any:
        return dataclasses.replace(read(*given), sha256="0" * 64)

    read = dicom_sr.read_again
    monkeypatch.setattr(dicom_sr, "read_again", other)
    with pytest.raises(DataError, match="has changed since"):
        dicom_sr.export_dicom(called, tmp_path / "out")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(dicom_sr, "read_bytes", lambda *_: (tmp_path / "none").read_bytes())
    with pytest.raises((ImageError, MissingFileError, FileNotFoundError)):
        dicom_sr.export_dicom(called, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_without_its_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    monkeypatch.delitem(sys.modules, "millie.outputs.exports.dicom_sr", raising=False)
    with pytest.raises(MissingPackageError, match=r'highdicom.*pip install "millie\[dicom\]"'):
        with_extra("dicom_sr", "dicom")


def test_a_store_that_does_not_tell_where_images_lie_is_refused(
    called: Path, tmp_path: Path
) -> None:
    run, samples = read_run(called)
    sample = next(samples)
    sources = tuple(dataclasses.replace(source, path="") for source in sample.sources)
    withheld = dataclasses.replace(sample, sources=sources)
    study = dicom_images.Study(run, sample.result.patient)
    with pytest.raises(DataError, match="does not tell where the image lies"):
        dicom_sr._write_patient(tmp_path / "p", study, withheld, ReadingConfig())
