"""The adapters of fields with a list of diagnoses: ASH image bank and bone marrow."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from millie.errors import ManifestError
from millie.readers.cohort import check_labels, read_manifest, write_manifest
from millie.readers.datasets import DATASETS
from millie.readers.listed import diagnosis
from millie.types import Cohort, ImageKind, PixelSize, Problem

ASH, MARROW = DATASETS["ash"], DATASETS["marrow_riechert"]

LIST = (
    "image,diagnosis,patient,um_px,age,sex\n"
    "2917.jpg,Acute promyelocytic leukaemia,A,0.08,40,Female\n"
    "cases/2918.jpg,APL,A,,,\n"
    "60000.png,AML-M3,B,,,\n"
    "1.jpg,Normal,,,,\n"
    "gone.jpg,AML,C,,,\n"
)


def jpeg(grey: int, size: tuple[int, int] = (60, 40)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), grey, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def told(cohort: Cohort, text: str) -> list[Problem]:
    return [problem for problem in cohort.problems if text in problem.message]


@pytest.fixture
def ash(tmp_path: Path) -> Path:
    root = tmp_path / "ash"
    (root / "cases").mkdir(parents=True)
    for grey, name in enumerate(("2917.jpg", "cases/2918.jpg", "60000.png", "1.jpg", "extra.jpg")):
        (root / name).write_bytes(jpeg(grey))
    (root / "diagnoses.csv").write_text(LIST)
    return root


@pytest.fixture
def marrow(tmp_path: Path) -> Path:
    root = tmp_path / "marrow"
    (root / "images").mkdir(parents=True)
    (root / "cells").mkdir()
    rows = []
    for grey, label in enumerate(("healthy", "AML", "APL")):
        (root / "images" / f"{label}.png").write_bytes(jpeg(grey))
        rows.append(f"images/{label}.png,{label}\n")
    (root / "diagnoses.csv").write_text("image,diagnosis\n" + "".join(rows))
    (root / "cells" / "APL.csv").write_text("y0,x0,y1,x1,type\n5,10,25,50,Promyelocyte\n0,0,4,4\n")
    (root / "cells" / "AML.csv").write_text("1,2,3,4,myeloblast\n")
    return root


def test_images_of_one_patient_stay_together(ash: Path) -> None:
    cohort = ASH.prepare(ash)
    assert [(p.id, p.label, [i.name for i in p.images]) for p in cohort.patients] == [
        ("A", "APL", ["2917.jpg", "cases/2918.jpg"]),
        ("B", "APL", ["60000.png"]),
        ("1.jpg", "normal", ["1.jpg"]),
    ]
    first = cohort.patients[0]
    assert (first.age, first.sex) == (40.0, "Female")
    assert [i.pixel_size for i in first.images] == [PixelSize(0.08), None]
    assert {i.kind for p in cohort.patients for i in p.images} == {ImageKind.FIELD}
    assert [p.source for p in told(cohort, "line 6: gone.jpg does not exist")] == ["gone.jpg"]
    assert [p.source for p in told(cohort, "no row in diagnoses.csv")] == ["extra.jpg"]
    check_labels(cohort)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Acute Promyelocytic Leukaemia", "APL"),
        ("AML-M3", "APL"),
        (" acute  myeloid leukemia ", "AML"),
        ("ALL", "ALL"),
        ("Healthy", "normal"),
        ("CML", None),
    ],
)
def test_words_for_a_diagnosis(text: str, label: str | None) -> None:
    assert diagnosis(text) == label


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image,", "file,", "column 'image' missing; did you mean 'file'"),
        ("image,", "x,", "column image missing; found x, diagnosis"),
        ("Normal", "CML", "line 5: unknown diagnosis 'CML'; expected one of ALL, AML, APL, normal"),
        (
            "cases/2918.jpg,APL",
            "cases/2918.jpg,AML",
            "line 3: patient A has AML, but APL on line 2",
        ),
        ("cases/2918.jpg", "./2917.jpg", "line 3: ./2917.jpg is already on line 2"),
        ("60000.png", "../../etc/passwd", "line 4: ../../etc/passwd is outside"),
        ("0.08", "80", "um_px '80': expected um/px"),
        ("60000.png", "", "line 4: column image is empty"),
    ],
)
def test_a_broken_list_names_the_line(ash: Path, old: str, new: str, message: str) -> None:
    (ash / "diagnoses.csv").write_text(LIST.replace(old, new, 1))
    with pytest.raises(ManifestError, match=message):
        ASH.prepare(ash)


def test_a_list_renamed_or_in_another_folder(ash: Path) -> None:
    with pytest.raises(ManifestError, match=f"too deep: give --root {ash.resolve()}\n"):
        ASH.prepare(ash / "cases")
    with pytest.raises(ManifestError, match=f"too high: give --root {ash.resolve()}\n"):
        ASH.prepare(ash.parent)
    (ash / "diagnoses.csv").rename(ash / "diagnosis.csv")
    message = r"diagnoses\.csv missing: if diagnosis\.csv is that file, rename it to diagnoses\.csv"
    with pytest.raises(ManifestError, match=message):
        ASH.prepare(ash)
    (ash / "diagnoses.csv").write_text("image,diagnosis\nnowhere.jpg,AML\n")
    with pytest.raises(ManifestError, match=r"none of the listed images exists(.|\n)*expected:"):
        ASH.prepare(ash)


def test_without_patients_each_image_stands_for_one(marrow: Path) -> None:
    cohort = MARROW.prepare(marrow)
    assert [(p.id, p.label) for p in cohort.patients] == [
        ("images/healthy.png", "normal"),
        ("images/AML.png", "AML"),
        ("images/APL.png", "APL"),
    ]
    assert told(cohort, "has no column patient: each image counts as one")
    assert told(cohort, "3 of the 1331 published samples: a subset")


def test_boxes_are_row_before_column(marrow: Path) -> None:
    assert MARROW.annotations is not None
    found = MARROW.annotations(marrow)
    assert sorted(found) == ["images/AML.png", "images/APL.png"]
    box, plain = found["images/APL.png"]
    assert (box.x_px, box.y_px, box.label) == (30, 15, "promyelocyte")
    assert box.box_px == (10, 5, 40, 20)
    assert plain.label == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("10,5,50,25", "expected the order y0, x0, y1, x1"),
        ("5,10,5,50", "expected the order y0, x0, y1, x1"),
        ("5,10,25", "is not a box; expected y0, x0, y1, x1, type"),
        ("5,10,25,fifty", "is not a box"),
        ("nan,10,25,30", "expected the order"),
    ],
)
def test_a_box_that_is_none_is_refused(marrow: Path, line: str, message: str) -> None:
    (marrow / "cells" / "APL.csv").write_text(f"y0,x0,y1,x1\n1,1,2,2\n{line}\n")
    assert MARROW.annotations is not None
    with pytest.raises(ManifestError, match=rf"APL\.csv, line 3: .*{message}"):
        MARROW.annotations(marrow)


def test_one_picture_under_two_diagnoses_is_left_out(marrow: Path) -> None:
    data = (marrow / "images" / "AML.png").read_bytes()
    (marrow / "images" / "APL.png").write_bytes(data)
    cohort = MARROW.prepare(marrow)
    assert [p.label for p in cohort.patients] == ["normal"]
    assert len(told(cohort, "left out of each")) == 2


@pytest.mark.parametrize("dataset", [ASH, MARROW], ids=lambda d: d.name)
def test_the_manifest_carries_everything(
    dataset: object, ash: Path, marrow: Path, tmp_path: Path
) -> None:
    cohort = ASH.prepare(ash) if dataset is ASH else MARROW.prepare(marrow)
    write_manifest(cohort, tmp_path / "m.csv")
    assert read_manifest(tmp_path / "m.csv").patients == cohort.patients
