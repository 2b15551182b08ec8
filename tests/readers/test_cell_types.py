"""The adapters of cells sorted by type, on miniatures and on the real folders."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from millie.errors import ManifestError
from millie.readers.cohort import check_labels
from millie.readers.datasets import DATASETS
from millie.types import Cohort, ImageKind, ImageSource, PixelSize, Problem

PBC, LMU, MARROW = (DATASETS[name] for name in ("pbc", "aml_lmu", "bone_marrow_mll"))


def grow(root: Path, names: list[str]) -> Path:
    """Files of different content; adapters of class folders do not look into them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"image {name}".encode())
    return root


def images(cohort: Cohort) -> dict[str, ImageSource]:
    return {image.name: image for patient in cohort.patients for image in patient.images}


def told(cohort: Cohort, text: str) -> list[Problem]:
    return [problem for problem in cohort.problems if text in problem.message]


@pytest.fixture
def pbc(tmp_path: Path) -> Path:
    names = ["ig/PMY_1.jpg", "ig/MY_2.jpg", "ig/MMY_3.jpg", "ig/IG_4.jpg", "neutrophil/BNE_5.jpg"]
    names += ["neutrophil/SNE_6.jpg", "neutrophil/NEUTROPHIL_7.jpg", "platelet/PLATELET_8.jpg"]
    root = grow(tmp_path / "PBC_dataset_normal_DIB", [*names, "basophil/.DS_Store"])
    (root / "ig" / "MY_9.jpg").write_bytes((root / "ig" / "PMY_1.jpg").read_bytes())
    (root / "platelet" / "Thumbs.db").touch()
    return root


def test_file_names_give_the_finer_type(pbc: Path) -> None:
    cohort = PBC.prepare(pbc)
    assert {Path(n).stem: i.cell_label for n, i in images(cohort).items()} == {
        "MY_9": None,
        "MY_2": "myelocyte",
        "MMY_3": "metamyelocyte",
        "IG_4": "immature granulocyte",
        "BNE_5": "band neutrophil",
        "SNE_6": "segmented neutrophil",
        "NEUTROPHIL_7": "neutrophil",
        "PLATELET_8": "platelet",
    }
    assert {(i.kind, i.pixel_size) for i in images(cohort).values()} == {
        (ImageKind.CELL, PixelSize(0.1))
    }
    assert told(cohort, "filed under myelocyte and promyelocyte: cell label left blank")
    assert told(cohort, "identical to ig/MY_9.jpg: counted once")
    assert told(cohort, "9 of the 17092 published images: a subset")
    assert cohort.labels == ("normal",)


def test_pools_do_not_depend_on_types(tmp_path: Path) -> None:
    names = [f"basophil/BA_{n}.jpg" for n in range(700)]
    names += [f"monocyte/MO_{n}.jpg" for n in range(700)]
    cohort = PBC.prepare(grow(tmp_path, names))
    assert [p.id for p in cohort.patients] == [f"pbc-pool-{n:03d}" for n in range(3)]
    for pool in cohort.patients:
        types = [image.cell_label for image in pool.images]
        assert 350 < len(types) < 600
        assert 0.4 < types.count("basophil") / len(types) < 0.6
        changes = sum(one != two for one, two in pairwise(types))
        assert changes > 0.35 * len(types), "types follow each other in runs"
    assert sorted(images(cohort)) == sorted(names)
    assert PBC.prepare(tmp_path).patients == cohort.patients


def test_cells_of_mixed_donors_have_no_diagnosis(tmp_path: Path) -> None:
    root = grow(tmp_path, ["BLA/0001-1000/BLA_00001.jpg", "NIF/NIF_00002.jpg", "XYZ/XYZ_1.jpg"])
    cohort = MARROW.prepare(root)
    assert [p.label for p in cohort.patients] == [None]
    assert {n: i.cell_label for n, i in images(cohort).items()} == {
        "BLA/0001-1000/BLA_00001.jpg": "blast",
        "NIF/NIF_00002.jpg": "unidentified",
    }
    (stranger,) = told(cohort, "XYZ is not a published class: left out")
    assert not stranger.note
    with pytest.raises(ManifestError, match="has no label, which training needs"):
        check_labels(cohort)


def test_ratings_are_compared_with_the_folders(tmp_path: Path) -> None:
    package = tmp_path / "PKG - AML-Cytomorphology_LMU"
    root = grow(
        package / "AML-Cytomorphology",
        ["MYO/MYO_0001.tiff", "MYO/MYO_0002.tiff", "PMB/PMB_0001.tiff", "KSC/KSC_0001.tiff"],
    )
    cohort = LMU.prepare(root)
    assert Counter(i.cell_label for i in images(cohort).values()) == {
        "blast": 2, "promyelocyte": 1, "smudge cell": 1,
    }  # fmt: skip
    assert told(cohort, "annotations.dat is missing: cell types come from the class folders alone")
    (package / "annotations.dat").write_text(
        "MYO/MYO_0001.tiff MYO MYO MOB\nMYO/MYO_0002.tiff MYO nan nan\n"
        "PMB/PMB_0001.tiff PMB PMB PMB\nKSC/KSC_0001.tiff LYT nan nan\nbroken\n"
    )
    cohort = LMU.prepare(root)
    assert told(cohort, "2 cells were rated again, 1 of them differently")
    (wrong,) = told(cohort, "1 cells are in a folder that contradicts annotations.dat")
    assert not wrong.note
    with pytest.raises(ManifestError, match=r"too high: give --root .*AML-Cytomorphology\n"):
        LMU.prepare(package)


def test_the_two_munich_sets_are_not_taken_for_each_other(tmp_path: Path) -> None:
    marrow = grow(tmp_path / "marrow", ["LYT/LYT_1.jpg", "PLM/PLM_1.jpg"])
    blood = grow(tmp_path / "blood", ["LYT/LYT_0001.tiff", "MYO/MYO_0001.tiff"])
    with pytest.raises(ManifestError, match="PLM/ belongs to another set"):
        LMU.prepare(marrow)
    with pytest.raises(ManifestError, match="MYO/ belongs to another set"):
        MARROW.prepare(blood)


def test_wrong_depth_and_empty_folders(pbc: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=f"too high: give --root {pbc}\n"):
        PBC.prepare(pbc.parent)
    with pytest.raises(ManifestError, match=f"too deep: give --root {pbc}\n"):
        PBC.prepare(pbc / "ig")
    (tmp_path / "empty" / "ig").mkdir(parents=True)
    with pytest.raises(ManifestError, match="no images in any class folder"):
        PBC.prepare(tmp_path / "empty")


@pytest.mark.realdata
def test_the_real_pbc(data_root: Path) -> None:
    cohort = PBC.prepare(data_root / "pbc_cells")
    assert all(problem.note for problem in cohort.problems)
    on_disk = sum(1 for _ in (data_root / "pbc_cells").rglob("*.jpg"))
    found = images(cohort)
    assert len(found) + len(told(cohort, "counted once")) == on_disk
    if on_disk == 5893:
        types = Counter(image.cell_label for image in found.values())
        assert types["promyelocyte"] == 291
        assert types["platelet"] == 200
        assert told(cohort, "5893 of the 17092 published images: a subset")


@pytest.mark.realdata
def test_the_real_bone_marrow(data_root: Path) -> None:
    cohort = MARROW.prepare(data_root / "bone_marrow_cells")
    assert all(problem.note for problem in cohort.problems)
    types = Counter(image.cell_label for image in images(cohort).values())
    assert {"blast", "promyelocyte", "eosinophil", "lymphocyte", "monocyte"} <= set(types)
    if len(images(cohort)) == 175:
        assert set(types.values()) == {25}
