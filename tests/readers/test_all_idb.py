"""The adapters of ALL-IDB, on miniatures with every trap and on the real folders."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from millie.config import ReadingConfig
from millie.errors import ManifestError
from millie.readers.cohort import check_labels, read_manifest, write_manifest
from millie.readers.datasets import DATASETS
from millie.readers.images import read_image
from millie.types import Cohort, ImageKind, PixelSize, Problem

FIELDS, CELLS = DATASETS["all_idb1"], DATASETS["all_idb2"]
SMALL, LARGE = (1712, 1368), (2592, 1944)


def encoded(size: tuple[int, int], grey: int, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), grey, np.uint8)).save(buffer, form)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    return {
        "Im001_1.jpg": encoded(SMALL, 10),
        "Im002_1.jpg": encoded(SMALL, 20),
        "Im048_1.jpg": encoded(LARGE, 30),
        "Im093_0.jpg": encoded(LARGE, 40),
        "Im108_0.jpg": encoded(LARGE, 40),
        "Im099_0.jpg": encoded((800, 600), 50),
        "Im100_0.jpg": b"\xff\xd8\xff but no image",
        "montage.jpg": encoded(LARGE, 60),
    }


@pytest.fixture
def fields(tmp_path: Path, pictures: dict[str, bytes]) -> Path:
    root = tmp_path / "ALL_IDB1"
    (root / "im").mkdir(parents=True)
    (root / "xyc").mkdir()
    for name, data in pictures.items():
        (root / "im" / name).write_bytes(data)
        (root / "xyc" / name).with_suffix(".xyc").write_text("\n")
    (root / "xyc" / "Im001_1.xyc").write_text("886\t726\r\n796.5 653\n\n")
    (root / "xyc" / "Im048_1.xyc").unlink()
    return root


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    root = tmp_path / "ALL_IDB2"
    (root / "img").mkdir(parents=True)
    for number, label in ((1, 1), (71, 1), (75, 1), (80, 1), (131, 0), (260, 0)):
        data = encoded((257, 257), number % 250, "TIFF")
        (root / "img" / f"Im{number:03d}_{label}.tif").write_bytes(data)
    return root


def told(cohort: Cohort, text: str) -> list[Problem]:
    return [problem for problem in cohort.problems if text in problem.message]


def test_each_field_is_a_patient_with_the_scale_of_its_camera(fields: Path) -> None:
    cohort = FIELDS.prepare(fields)
    found = {p.id: (p.label, p.images[0].pixel_size, p.scanner) for p in cohort.patients}
    assert found == {
        "Im001_1": ("ALL", PixelSize(0.110), "camera 1712 x 1368"),
        "Im002_1": ("ALL", PixelSize(0.110), "camera 1712 x 1368"),
        "Im048_1": ("ALL", PixelSize(0.088), "camera 2592 x 1944"),
        "Im093_0": ("normal", PixelSize(0.088), "camera 2592 x 1944"),
        "Im099_0": ("normal", None, "camera 800 x 600"),
        "Im100_0": ("normal", None, ""),
    }
    assert {i.kind for p in cohort.patients for i in p.images} == {ImageKind.FIELD}
    assert not any(i.cell_label for p in cohort.patients for i in p.images)
    check_labels(cohort, ["ALL", "normal"])


def test_traps_of_the_fields_are_told(fields: Path) -> None:
    cohort = FIELDS.prepare(fields)
    (copy,) = told(cohort, "identical to im/Im093_0.jpg: counted once")
    assert copy.patient == "Im108_0"
    assert told(cohort, "all 2 images of 1712 x 1368 px show ALL")
    assert told(cohort, "patients unknown: each image counts as one")
    assert told(cohort, "1 of 6 images have no file of blast centres")
    assert told(cohort, "6 of the 108 published images: a subset")
    assert [p.source for p in told(cohort, "no label in the file name")] == ["im/montage.jpg"]
    assert [p.source for p in told(cohort, "is not a size found in ALL-IDB1")] == ["im/Im099_0.jpg"]
    lost = {p.source for p in cohort.problems if not p.note}
    assert lost == {"im/Im100_0.jpg", "im/montage.jpg"}


def test_marks_are_centres_of_blasts(fields: Path) -> None:
    assert FIELDS.annotations is not None
    marks = FIELDS.annotations(fields)
    assert [(m.x_px, m.y_px, m.label) for m in marks["im/Im001_1.jpg"]] == [
        (886, 726, "lymphoblast"),
        (796.5, 653, "lymphoblast"),
    ]
    assert marks["im/Im093_0.jpg"] == ()
    assert "im/Im048_1.jpg" not in marks
    (fields / "xyc" / "Im002_1.xyc").write_text("1 2\n3;4\n")
    with pytest.raises(ManifestError, match=r"Im002_1\.xyc, line 2: '3;4' is not x and y"):
        FIELDS.annotations(fields)


def test_crops_get_a_scale_only_where_their_camera_is_known(cells: Path) -> None:
    cohort = CELLS.prepare(cells)
    scales = {p.id: p.images[0].pixel_size for p in cohort.patients}
    assert scales == {
        "Im001_1": PixelSize(0.110),
        "Im071_1": PixelSize(0.110),
        "Im075_1": None,
        "Im080_1": PixelSize(0.088),
        "Im131_0": PixelSize(0.088),
        "Im260_0": PixelSize(0.088),
    }
    labels = {(p.label, p.images[0].cell_label) for p in cohort.patients}
    assert labels == {("ALL", "lymphoblast"), ("normal", "no blast")}
    assert {p.images[0].kind for p in cohort.patients} == {ImageKind.CELL}
    assert told(cohort, "was cut from an ALL-IDB1 field")
    assert told(cohort, "6 of the 260 published images: a subset")


def test_the_wrong_one_of_the_two_is_refused(fields: Path, cells: Path) -> None:
    with pytest.raises(ManifestError, match=r"im missing(.|\n)*├── img/"):
        FIELDS.prepare(cells)
    with pytest.raises(ManifestError, match=r"img missing(.|\n)*├── xyc/"):
        CELLS.prepare(fields)
    with pytest.raises(ManifestError, match="too deep: give --root"):
        CELLS.prepare(cells / "img")
    for path in (cells / "img").iterdir():
        path.rename(path.with_name("x" + path.name))
    with pytest.raises(ManifestError, match="no image in img has a name like Im001_1"):
        CELLS.prepare(cells)


def test_the_manifest_carries_everything(fields: Path, tmp_path: Path) -> None:
    cohort = FIELDS.prepare(fields)
    write_manifest(cohort, tmp_path / "m.csv")
    assert read_manifest(tmp_path / "m.csv").patients == cohort.patients


@pytest.mark.realdata
def test_the_real_fields(data_root: Path) -> None:
    cohort = FIELDS.prepare(data_root / "all_idb1")
    assert not [p for p in cohort.problems if not p.note]
    by_camera = Counter((p.scanner, p.label) for p in cohort.patients)
    assert by_camera["camera 1712 x 1368", "normal"] == 0
    assert all(p.images[0].pixel_size for p in cohort.patients)
    assert FIELDS.annotations is not None
    marks = FIELDS.annotations(data_root / "all_idb1")
    for patient in cohort.patients:
        (image,) = patient.images
        assert bool(marks[image.name]) == (patient.label == "ALL")
    first = read_image(cohort.patients[0].images[0], ReadingConfig())
    height, width = first.image.shape[:2]
    for mark in marks[cohort.patients[0].images[0].name]:
        assert 0 <= mark.x_px < width
        assert 0 <= mark.y_px < height
    if len(cohort.patients) == 24:
        assert Counter(p.label for p in cohort.patients) == {"ALL": 12, "normal": 12}


@pytest.mark.realdata
def test_the_real_crops(data_root: Path) -> None:
    cohort = CELLS.prepare(data_root / "all_idb2")
    assert not [p for p in cohort.problems if not p.note]
    assert set(cohort.labels) == {"ALL", "normal"}
    sides = {read_image(p.images[0], ReadingConfig()).image.shape[1] for p in cohort.patients}
    assert sides <= set(range(200, 258))
    if len(cohort.patients) == 60:
        assert Counter(p.label for p in cohort.patients) == {"ALL": 30, "normal": 30}
