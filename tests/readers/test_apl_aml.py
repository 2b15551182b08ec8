"""The adapter of the APL-against-AML set, on a miniature with every trap and on the real folder."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from millie.config import ReadingConfig
from millie.errors import ImageError, ManifestError
from millie.readers.apl_aml import NON_LEUKOCYTES, cell_type
from millie.readers.cohort import check_labels, read_manifest, write_manifest
from millie.readers.datasets import DATASETS
from millie.readers.images import find_images, read_image
from millie.types import Cohort, ImageKind, Patient, PixelSize, Problem

prepare = DATASETS["apl_aml"].prepare

MASTER = (
    "Patient_ID,Diagnosis,Cohort,Age at Diagnosis,Gender\r\n"
    "Patient_00,APL,Discovery,29,Female\r\n"
    "Patient_01,AML,Discovery,,Male\r\n"
    "Patient_02,APL,Validation,61,Male\r\n"
)


def jpeg(seed: int, height: int = 363, width: int = 360) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """Files of the miniature by path."""
    cell = [jpeg(seed) for seed in range(10)]
    signed, unsigned = "Patient_00/Signed slides", "Patient_00/Unsigned slides"
    smears = "Patient_02/10026417885", "Patient_02/2018-12-16_2346"
    return {
        f"{signed}/Promyelocyte/PMY_1.jpg": cell[0],
        f"{signed}/Lymphocyte, variant/VLY_2.jpg": cell[1],
        f"{signed}/Arifact/ART_3.jpg": cell[2],
        f"{signed}/Monocyte/MO_4.jpg": cell[3],
        f"{signed}/Promyelocyte/MO_4.jpg": cell[3],
        f"{signed}/Thumbs.db": b"not an image",
        f"{unsigned}/100_001.jpg": jpeg(99, 2952, 2920),
        f"{unsigned}/100_002.jpg": cell[0],
        f"{unsigned}/100_003.jpg": cell[4],
        "Patient_01/Signed slides/Blast, no lineage spec/BL_1.jpg": cell[5],
        "Patient_01/Signed slides/Blast, no lineage spec/BL_2.jpg": jpeg(5)[:2000] + bytes(99),
        "Patient_01/Signed slides/Blast, no lineage spec/BL_3.jpg": b"",
        "Patient_01/Signed slides/Blast, no lineage spec/BL_4.jpg": b"",
        "Patient_01/Signed slides/New sort of cell/N_1.jpg": jpeg(6, 365, 440),
        f"{smears[0]}/Signed slides/Promyelocyte/PMY_1.jpg": cell[7],
        f"{smears[1]}/Signed slides/Promyelocyte/PMY_1.jpg": cell[8],
        f"{smears[1]}/Unsigned slides/101_001.jpg": cell[7],
    }


@pytest.fixture
def root(tmp_path: Path, contents: dict[str, bytes]) -> Path:
    root = tmp_path / "apl_aml"
    for name, content in contents.items():
        path = root / "All" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "master.csv").write_text(MASTER, newline="")
    return root


def patient(cohort: Cohort, id_: str) -> Patient:
    return next(p for p in cohort.patients if p.id == id_)


def by_name(cohort: Cohort, id_: str) -> dict[str, tuple[ImageKind | None, str | None]]:
    return {Path(i.name).name: (i.kind, i.cell_label) for i in patient(cohort, id_).images}


def told(cohort: Cohort, text: str) -> list[Problem]:
    return [problem for problem in cohort.problems if text in problem.message]


def test_facts_of_the_patients_come_from_master(root: Path) -> None:
    cohort = prepare(root)
    assert cohort.name == "apl_aml"
    assert [(p.id, p.label, p.split, p.age, p.sex) for p in cohort.patients] == [
        ("Patient_00", "APL", "train", 29.0, "Female"),
        ("Patient_01", "AML", "train", None, "Male"),
        ("Patient_02", "APL", "test", 61.0, "Male"),
    ]
    check_labels(cohort, ["AML", "APL"])


def test_a_cell_counts_once_and_each_copy_is_named(root: Path) -> None:
    cohort = prepare(root)
    assert by_name(cohort, "Patient_00") == {
        "PMY_1.jpg": (ImageKind.CELL, "promyelocyte"),
        "VLY_2.jpg": (ImageKind.CELL, "variant lymphocyte"),
        "ART_3.jpg": (ImageKind.CELL, "artefact"),
        "MO_4.jpg": (ImageKind.CELL, None),
        "100_001.jpg": (ImageKind.FIELD, None),
        "100_003.jpg": (ImageKind.CELL, None),
    }
    copies = told(cohort, "counted once")
    assert all(problem.note for problem in copies)
    assert sorted(Path(p.source).name for p in copies) == ["100_002.jpg", "101_001.jpg", "MO_4.jpg"]
    (ambiguous,) = told(cohort, "filed under monocyte and promyelocyte")
    assert ambiguous.note


def test_scale_is_that_of_crops_and_of_overviews(root: Path) -> None:
    scales = {i.kind: i.pixel_size for p in prepare(root).patients for i in p.images}
    assert scales[ImageKind.CELL] == PixelSize(0.1)
    assert scales[ImageKind.FIELD] == PixelSize(0.2)
    assert scales[None] is None


def test_nested_smears_are_found(root: Path) -> None:
    names = sorted(image.name for image in patient(prepare(root), "Patient_02").images)
    assert names == [
        "All/Patient_02/10026417885/Signed slides/Promyelocyte/PMY_1.jpg",
        "All/Patient_02/2018-12-16_2346/Signed slides/Promyelocyte/PMY_1.jpg",
    ]


def test_order_and_content_do_not_depend_on_folders(
    root: Path, tmp_path: Path, contents: dict[str, bytes]
) -> None:
    flat = tmp_path / "flat"
    for name, content in contents.items():
        path = flat / "All" / name.replace("10026417885/", "").replace("Promyelocyte", "Monocyte")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (flat / "master.csv").write_text(MASTER)

    def digests(where: Path) -> list[list[str]]:
        fields = [
            [read_image(i, ReadingConfig()).sha256 for i in p.images if i.kind is not None]
            for p in prepare(where).patients
        ]
        assert all(order == sorted(order) for order in fields)
        return fields

    assert digests(root)[1:] == digests(flat)[1:]


def test_broken_files_are_counted_named_and_kept(root: Path) -> None:
    cohort = prepare(root)
    broken = [p for p in cohort.problems if p.error == "ImageError"]
    assert sorted(Path(p.source).name for p in broken) == ["BL_2.jpg", "BL_3.jpg", "BL_4.jpg"]
    assert not any(p.note or p.fatal for p in broken)
    unread = [i for i in patient(cohort, "Patient_01").images if i.kind is None]
    assert len(unread) == 3
    for image in unread:
        with pytest.raises(ImageError, match=image.name):
            read_image(image, ReadingConfig())


def test_types_are_normalised_and_oddities_told(root: Path) -> None:
    cohort = prepare(root)
    assert by_name(cohort, "Patient_01")["N_1.jpg"] == (ImageKind.CELL, "new sort of cell")
    assert told(cohort, "cell type 'new sort of cell' is not a published one")
    assert told(cohort, "1 artefact: not leukocytes by their label, but kept")
    assert told(cohort, "3 of the 106 published patients: a subset")
    assert told(cohort, "APL patients in Discovery: 1; published: 22")
    assert all(p.note for p in cohort.problems if not p.patient)


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("Arifact", "artefact"),
        ("Artifact", "artefact"),
        ("Blast, no lineage spec", "blast"),
        ("Segmented  neutrophil", "segmented neutrophil"),
        ("Metamyelocytes", "metamyelocyte"),
        ("Myelocyte", "myelocyte"),
        ("Giant thrombocyte", "giant thrombocyte"),
        ("Young Unidentified", "young unidentified"),
    ],
)
def test_cell_types(folder: str, expected: str) -> None:
    assert cell_type(folder) == expected


def test_the_manifest_carries_everything(root: Path, tmp_path: Path) -> None:
    cohort = prepare(root)
    path = tmp_path / "elsewhere" / "manifest.csv"
    write_manifest(cohort, path)
    assert read_manifest(path, root).patients == cohort.patients


def test_the_same_bytes_in_two_patients_are_left_out_of_both(
    root: Path, contents: dict[str, bytes]
) -> None:
    shared = contents["Patient_01/Signed slides/Blast, no lineage spec/BL_1.jpg"]
    (root / "All/Patient_00/Unsigned slides/100_009.jpg").write_bytes(shared)
    cohort = prepare(root)
    problems = told(cohort, "the same file occurs under Patient_00, Patient_01: left out of each")
    assert [p.patient for p in problems] == ["Patient_00", "Patient_01"]
    assert not any(p.note for p in problems)
    assert "BL_1.jpg" not in by_name(cohort, "Patient_01")


def test_patients_without_folder_images_or_row_are_told(root: Path) -> None:
    master = root / "master.csv"
    master.write_text(
        MASTER + "Patient_03,AML,Discovery,50,Male\nPatient_04,AML,Discovery,9,Male\n"
    )
    (root / "All/Patient_03").mkdir()
    (root / "All/Patient_77").mkdir()
    cohort = prepare(root)
    assert len(cohort.patients) == 3
    assert {p.patient: p.error for p in cohort.problems if p.fatal} == {
        "Patient_03": "ManifestError",
        "Patient_04": "MissingFileError",
    }
    (stranger,) = told(cohort, "All/Patient_77 has no row in master.csv")
    assert not stranger.fatal


def test_a_link_out_of_a_patient_is_refused_for_that_patient(root: Path) -> None:
    (root / "All/Patient_00/Signed slides/x.jpg").symlink_to(root / "master.csv")
    cohort = prepare(root)
    assert [p.id for p in cohort.patients] == ["Patient_01", "Patient_02"]
    (problem,) = told(cohort, "points outside")
    assert problem.fatal


@pytest.mark.parametrize("deeper", ["All", "All/Patient_00", "All/Patient_00/Signed slides"])
def test_too_deep_a_root_names_the_right_one(root: Path, deeper: str) -> None:
    with pytest.raises(ManifestError, match=rf"too deep: give --root {root.resolve()}\n"):
        prepare(root / deeper)


def test_other_wrong_roots_show_both_trees(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"too high: give --root .*apl_aml\n"):
        prepare(root.parent)
    (root / "master.csv").unlink()
    with pytest.raises(ManifestError, match=r"master\.csv missing") as error:
        prepare(root)
    expected, _, found = str(error.value).partition("found:")
    assert "├── master.csv" in expected
    assert "└── Patient_32/<smear>/Signed slides" in expected
    assert "├── All/" in found
    (tmp_path / "many").mkdir()
    for number in range(12):
        (tmp_path / "many" / f"{number}.txt").touch()
    with pytest.raises(ManifestError, match=r"master.csv and All missing(.|\n)*\.\.\. and 4 more"):
        prepare(tmp_path / "many")
    with pytest.raises(ManifestError, match="no such folder"):
        prepare(tmp_path / "gone")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",Diagnosis,", ",Dx,", "column diagnosis missing; found patient_id, dx"),
        ("Patient_01,AML", "Patient_01,CML", r"line 3: unknown label 'CML' of Patient_01"),
        ("Patient_01,", "Patient_00,", "line 3: Patient_00 is already on line 2"),
        ("Validation", "Later", "line 4: unknown cohort 'Later' of Patient_02"),
        ("Patient_01,", "../../etc,", "line 3: Patient_ID '../../etc' is not a folder name"),
    ],
)
def test_a_broken_master_names_the_line(root: Path, old: str, new: str, message: str) -> None:
    (root / "master.csv").write_text(MASTER.replace(old, new))
    with pytest.raises(ManifestError, match=message):
        prepare(root)


def test_no_images_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "All").mkdir()
    (tmp_path / "master.csv").write_text(MASTER)
    with pytest.raises(ManifestError, match=r"no patient in master\.csv has an image"):
        prepare(tmp_path)


@pytest.mark.realdata
def test_the_real_folder(data_root: Path, tmp_path: Path) -> None:
    root = data_root / "apl_aml"
    cohort = prepare(root)
    on_disk = find_images(root / "All")
    images = [image for p in cohort.patients for image in p.images]
    copies = told(cohort, "counted once")
    assert len(images) + len(copies) == len(on_disk), "each file is listed or named"
    assert len({image.path.read_bytes() for image in images}) == len(images)
    if len(on_disk) == 4751:
        assert Counter(p.label for p in cohort.patients) == {"AML": 60, "APL": 22}
        assert Counter(image.kind for image in images) == {
            ImageKind.CELL: 4667, ImageKind.FIELD: 5, None: 5,
        }  # fmt: skip
        assert len(told(cohort, "truncated")) == 5
        assert len(told(cohort, "filed under")) == 10
    labels = {image.cell_label for image in images if image.cell_label}
    assert {"promyelocyte", "blast", "erythroblast"} <= labels
    assert labels & NON_LEUKOCYTES
    write_manifest(cohort, tmp_path / "m.csv")
    assert read_manifest(tmp_path / "m.csv", root).patients == cohort.patients
