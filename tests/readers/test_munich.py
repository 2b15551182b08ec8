"""The adapter of the Munich subtypes of AML, on a miniature."""

from __future__ import annotations

from pathlib import Path

import pytest

from millie.errors import ManifestError
from millie.readers.cohort import check_labels
from millie.readers.datasets import DATASETS
from millie.readers.munich import LABELS, PUBLISHED
from millie.types import Cohort, ImageKind

prepare = DATASETS["munich_aml"].prepare

TABLE = (
    "patient_id,sex_1f_2m,age,bag_label,instance_count,leucocytes_per_µl,pb_myeloblast\n"
    "AAA,1,61,PML_RARA,2,1200,80\n"
    "BBB,2.0,,NPM1,1,9000,60\n"
    "CCC,,33,control,1,,\n"
    "DDD,1,50,control,1,,\n"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "PKG - AML-Cytomorphology_MLL_Helmholtz_v1"
    for name in (
        "PML_RARA/AAA/image_0.tif",
        "PML_RARA/AAA/image_1.tif",
        "NPM1/BBB/image_0.tif",
        "control/CCC/image_0.tif",
    ):
        path = root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (root / "metadata.csv").write_text(TABLE, encoding="utf-8")
    return root


def messages(cohort: Cohort) -> str:
    return "\n".join(problem.message for problem in cohort.problems)


def test_published_counts_are_those_of_189_patients() -> None:
    assert sum(PUBLISHED.values()) == 189
    assert set(PUBLISHED) == set(LABELS.values())


def test_patients_have_the_diagnosis_of_their_class_folder(root: Path) -> None:
    cohort = prepare(root)
    assert [(p.id, p.label, p.age, p.sex, len(p.images)) for p in cohort.patients] == [
        ("AAA", "APL", 61.0, "Female", 2),
        ("BBB", "AML NPM1", None, "Male", 1),
        ("CCC", "normal", 33.0, "", 1),
    ]
    (image, _) = cohort.patients[0].images
    assert image.name == "data/PML_RARA/AAA/image_0.tif"
    assert (image.kind, image.cell_label) == (ImageKind.CELL, None)
    assert image.pixel_size is not None
    assert image.pixel_size.to_um(144) == pytest.approx(24.9)
    check_labels(cohort)
    assert "patients in metadata.csv without a folder: 1 (DDD)" in messages(cohort)
    assert "3 of the 189 published patients: a subset" in messages(cohort)
    assert all(problem.note for problem in cohort.problems)


def test_without_the_table_labels_stay_and_a_spreadsheet_is_noticed(root: Path) -> None:
    (root / "metadata.csv").rename(root / "metadata_with_data_dictionary.xlsx")
    cohort = prepare(root)
    assert [p.age for p in cohort.patients] == [None] * 3
    assert "found metadata_with_data_dictionary.xlsx: save its table as" in messages(cohort)


def test_folder_and_table_may_not_contradict(root: Path) -> None:
    (root / "metadata.csv").write_text(TABLE.replace("AAA,1,61,PML_RARA", "AAA,1,61,NPM1"))
    with pytest.raises(
        ManifestError, match=r"AAA is NPM1 here, but its folder is in data/PML_RARA"
    ):
        prepare(root)
    (root / "metadata.csv").write_text(TABLE.replace("BBB", "AAA"))
    with pytest.raises(ManifestError, match=r"line 3: AAA is already on line 2"):
        prepare(root)
    (root / "metadata.csv").write_text(TABLE.replace("bag_label", "label"))
    with pytest.raises(ManifestError, match="column bag_label missing"):
        prepare(root)


def test_a_patient_in_two_class_folders_is_refused(root: Path) -> None:
    (root / "data" / "control" / "AAA").mkdir()
    with pytest.raises(ManifestError, match="patient AAA is in both PML_RARA and control"):
        prepare(root)


def test_empty_patients_strange_classes_and_shared_bytes_are_told(root: Path) -> None:
    data = root / "data"
    (data / "CBFB_MYH11" / "EEE").mkdir(parents=True)
    (data / "MDS" / "FFF").mkdir(parents=True)
    shared = (data / "NPM1/BBB/image_0.tif").read_bytes()
    (data / "control/CCC/image_7.tif").write_bytes(shared)
    cohort = prepare(root)
    assert [p.id for p in cohort.patients] == ["AAA", "CCC"]
    (empty,) = [p for p in cohort.problems if p.fatal]
    assert empty.patient == "EEE"
    assert "data/MDS is not a published class: left out" in messages(cohort)
    assert messages(cohort).count("the same file occurs under BBB, CCC: left out of each") == 2


def test_wrong_roots(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="too high: give --root"):
        prepare(tmp_path)
    with pytest.raises(ManifestError, match="too deep: give --root"):
        prepare(root / "data" / "control")
    (tmp_path / "other" / "data" / "x").mkdir(parents=True)
    with pytest.raises(ManifestError, match=r"no patients in any class folder(.|\n)*found:"):
        prepare(tmp_path / "other")
