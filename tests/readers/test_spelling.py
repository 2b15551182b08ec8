"""Names that look alike are one name, and the words for "missing" are empty cells."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millie import pipeline
from millie.errors import ConfigError, ManifestError
from millie.pipeline.inputs import paths_of
from millie.readers.cohort import read_folders
from millie.readers.listed import ASH
from millie.readers.manifest import OF_PATIENT, read_manifest
from millie.readers.spelling import MISSING, existing, is_missing, tidy
from millie.types import Cohort, Problem

NFC, NFD = "Zoë Çelik", unicodedata.normalize("NFD", "Zoë Çelik")
ALIKE = {
    "as it is": NFC,
    "accents apart": NFD,
    "no-break space": "Zoë\u00a0Çelik",
    "narrow no-break space": "Zoë\u202fÇelik",
    "doubled space": "Zoë  Çelik",
    "tab": "Zoë\tÇelik",
    "zero-width space": "Zoë\u200b Çelik",
    "byte-order mark": "\ufeffZoë Çelik",
    "soft hyphen": "Zoë Çe\u00adlik",
    "mark of direction": "Zoë Çelik\u200e",
    "no-break space at the end": "Zoë Çelik\u00a0",
    "invisible between letter and accent": NFD.replace("\u0308", "\u200d\u0308"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def table(folder: Path, text: str, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def notes(cohort: Cohort) -> list[str]:
    assert all(p.note for p in cohort.problems)
    return [p.message for p in cohort.problems]


@pytest.mark.parametrize("case", ALIKE)
def test_a_name_is_one_however_it_is_encoded(case: str) -> None:
    assert tidy(ALIKE[case]) == NFC


@given(st.text())
def test_tidying_twice_changes_nothing(text: str) -> None:
    once = tidy(text)
    assert tidy(once) == once
    assert unicodedata.is_normalized("NFC", once)


@pytest.mark.parametrize("case", [case for case in ALIKE if case != "as it is"])
@pytest.mark.parametrize("column", ["patient", *(c for c in OF_PATIENT if c != "age")])
def test_names_that_look_alike_are_one_and_a_note_says_so(
    folder: Path, column: str, case: str
) -> None:
    other = {"patient": "p", "label": "A"}
    columns = dict.fromkeys(["patient", "label", column])
    rows = [
        [*({**other, column: spelt}[name] for name in columns), file]
        for spelt, file in ((NFC, "1.jpg"), (ALIKE[case], "2.jpg"))
    ]
    lines = [",".join([*columns, "path"]), *(",".join(row) for row in rows)]
    cohort = read_manifest(table(folder, "\n".join(lines) + "\n"))
    (patient,) = cohort.patients
    assert len(patient.images) == 2
    assert (patient.id if column == "patient" else getattr(patient, column)) == NFC
    if case == "byte-order mark" or ALIKE[case].strip(" \t") != NFC:
        (text,) = notes(cohort)
        assert f"column {column}: '{NFC}' is written in 2 ways" in text
        assert "lines 2, 3" in text


def test_two_labels_that_look_alike_are_one_class(folder: Path) -> None:
    path = table(folder, f"patient,label,path\n1,{NFC},1.jpg\n2,{NFD},2.jpg\n3,B\u00a0,3.jpg\n")
    cohort = read_manifest(path, labels=[NFD, "B"])
    assert cohort.labels == ("B", NFC)


@pytest.mark.parametrize(("disk", "written"), [(NFC, NFD), (NFD, NFC), (NFC, f"{NFC}\u200b")])
def test_a_path_is_found_under_either_form(folder: Path, disk: str, written: str) -> None:
    place = folder / disk / NFC / disk
    place.mkdir(parents=True)
    (place / f"{disk}.jpg").write_bytes(b"x")
    inner = f"{written}/{NFC}/{written}"
    if written.endswith("\u200b"):
        assert existing(folder, f"{inner}/{disk}.jpg")
        return
    for path in (f"{inner}/{written}.jpg", inner, f"{inner}/*.jpg", f"{written}/**/{written}*"):
        cohort = read_manifest(table(folder, f"patient,label,path\np,A,{path}\n"))
        assert [i.path for i in cohort.patients[0].images] == [place / f"{disk}.jpg"]
    cohort = pipeline.read_cohort([str(folder / written)])
    assert (cohort.patients[0].id, len(cohort.patients[0].images)) == (NFC, 1)
    assert paths_of(folder / inner) == [place]
    assert existing(folder, f"{written}/{NFC}/gone") is None


def test_two_folders_that_look_alike_are_two_of_one_name(folder: Path) -> None:
    for name in (NFC, NFD):
        (folder / name).mkdir()
        (folder / name / "a.jpg").write_bytes(name.encode())
    with pytest.raises(ConfigError, match="two folders are called"):
        read_folders([folder / NFC, folder / NFD])


def test_a_written_list_of_diagnoses_keeps_the_same_rules(folder: Path) -> None:
    table(
        folder,
        "image,diagnosis,patient,um_px,age,sex,site\n"
        f"1.jpg,AML\u00a0M3,{NFC},nan,#N/A,?,unknown\n2.jpg,apl,{NFD},NA,n/a,-,\n",
        "diagnoses.csv",
    )
    cohort = ASH.prepare(folder)
    (patient,) = cohort.patients
    assert (patient.id, patient.label, len(patient.images)) == (NFC, "APL", 2)
    assert (patient.age, patient.sex, patient.site) == (None, "", "")
    assert {image.pixel_size for image in patient.images} == {None}
    said = " ".join(p.message for p in cohort.problems if p.note)
    assert "column patient: 'Zoë Çelik' is written in 2 ways" in said
    assert "column um_px: 2 cells read as empty ('nan', 'NA')" in said


WRITTEN = [
    *sorted(MISSING),
    "NaN",
    "N/A",
    "NULL",
    "None",
    "Unknown",
    " nan ",
    "\u00a0NA",
    "n/a\u200b",
    "\uff4e\uff41\uff4e",
    *("#N/A", "#REF!", "#DIV/0!", "#NAME?", "<NA>", "(null)", "-NaN", "1.#QNAN", "NaT", "--"),
    *("[Not Available]", "[Unknown]", "Not Reported", "n.d.", "k.A.", "-", "\u2014", "?", "..."),
]


@pytest.mark.parametrize("word", WRITTEN)
def test_words_for_missing_are_empty_and_counted(folder: Path, word: str) -> None:
    columns = [*OF_PATIENT, "um_px", "kind", "cell_label"]
    rows = [["p1", *[word] * len(columns), "1.jpg"], ["p2", "A", *[""] * 9, "2.jpg"]]
    lines = [",".join(["patient", *columns, "path"]), *(",".join(row) for row in rows)]
    cohort = read_manifest(table(folder, "\n".join(lines) + "\n"))
    one = cohort.patients[0]
    assert cohort.labels == ("A",)
    assert (one.label, one.site, one.stain, one.scanner, one.split, one.sex, one.age) == (
        None, "", "", "", "", "", None,
    )  # fmt: skip
    (image,) = one.images
    assert (image.pixel_size, image.kind, image.cell_label) == (None, None, None)
    said = notes(cohort)
    assert len(said) == len(columns)
    assert f"column label: 1 cell read as empty ('{word.strip()}')" in said[0]


def test_a_folder_of_many_images_counts_its_row_once(folder: Path) -> None:
    cohort = read_manifest(table(folder, "patient,label,path,um_px\np,A,*.jpg,nan\n"))
    assert len(cohort.patients[0].images) == 3
    (said,) = notes(cohort)
    assert "column um_px: 1 cell read as empty ('nan')" in said


@pytest.mark.parametrize(
    "word", ["normal", "negative", "NAD", "nano", "0", "N", "no", "A-", "other"]
)
def test_other_words_are_values(folder: Path, word: str) -> None:
    assert not is_missing(word)
    cohort = read_manifest(table(folder, f"patient,label,path,site\np,{word},1.jpg,{word}\n"))
    assert (cohort.labels, cohort.patients[0].site) == ((word,), word)


def test_a_name_read_otherwise_than_written_is_told(folder: Path) -> None:
    cohort = read_manifest(table(folder, "patient,label,path\nB\u00a0b,A\u200bML,1.jpg\n"))
    assert (cohort.patients[0].id, cohort.labels) == ("B b", ("AML",))
    assert [text.partition("read as ")[2] for text in notes(cohort)] == ["'B b'", "'AML'"]


@pytest.mark.parametrize("name", ["nan", "NaN", "#N/A", "<NA>", "NaT", "#REF!"])
def test_no_patient_is_called_missing(folder: Path, name: str) -> None:
    with pytest.raises(ManifestError, match="line 2: column patient is empty"):
        read_manifest(table(folder, f"patient,label,path\n{name},A,1.jpg\n"))


@pytest.mark.parametrize("name", ["NA", "None", "Nan", "-"])
def test_a_word_that_may_be_a_name_stays_a_patient(folder: Path, name: str) -> None:
    path = table(folder, f"patient,label,path\n{name},A,1.jpg\n")
    problems: tuple[Problem, ...] = read_manifest(path).problems
    assert (read_manifest(path).patients[0].id, problems) == (name, ())
