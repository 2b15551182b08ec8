"""Headers near ours are suggested, and every table that we write is one that we read."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from millie.errors import ManifestError
from millie.files import write_csv
from millie.outputs.tables import read_csv
from millie.readers.headers import ALSO_CALLED, column_meant, meant
from millie.readers.listed import ASH
from millie.readers.manifest import COLUMNS, read_manifest
from millie.readers.manifest_writer import write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "1.jpg").write_bytes(b"x")
    return tmp_path


def table(folder: Path, header: str, row: str = "p,A,1.jpg", name: str = "m.csv") -> Path:
    path = folder / name
    path.write_text(f"{header}\n{row}\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("header", "column", "suggested"),
    [
        ("patient_id,label,path", "patient", "patient_id"),
        ("Patient ID,label,path", "patient", "patient id"),
        ("PatientID,label,path", "patient", "patientid"),
        ("case-no,label,path", "patient", "case-no"),
        ("id,label,path", "patient", "id"),
        ("patient,diagnosis,path", "label", "diagnosis"),
        ("patient,Class,path", "label", "class"),
        ("patient,label,file", "path", "file"),
        ("patient,label,filename", "path", "filename"),
        ("patient,label,File Name", "path", "file name"),
        ("patient,label,image", "path", "image"),
        ("patient,label,image_path", "path", "image_path"),
        ("patient,lable,path", "label", "lable"),
        ("patient,label,pathh", "path", "pathh"),
        ("Fall-ID,label,path", "patient", "fall-id"),
        ("pat\u00a0id,label,path", "patient", "pat id"),
        ("patient,dx_final,path", "label", "dx_final"),
        ("patient,label,image_filename", "path", "image_filename"),
    ],
)
def test_a_header_near_ours_is_suggested(
    folder: Path, header: str, column: str, suggested: str
) -> None:
    words = rf"line 1: column '{column}' missing; did you mean '{suggested}'\? Rename it"
    with pytest.raises(ManifestError, match=words):
        read_manifest(table(folder, header))


def test_a_header_with_invisible_characters_is_ours(folder: Path) -> None:
    cohort = read_manifest(table(folder, "patient\u200b,label\u00a0,\ufeffpath"))
    assert (cohort.patients[0].id, cohort.labels) == ("p", ("A",))


def test_each_of_several_is_suggested_once(folder: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        read_manifest(table(folder, "id,dx,filename"))
    for pair in ("'patient' missing; did you mean 'id'", "did you mean 'dx'", "mean 'filename'"):
        assert pair in str(caught.value)
    with pytest.raises(ManifestError, match="column patient missing; found x, label, path"):
        read_manifest(table(folder, "x,label,path"))


def test_a_long_header_is_cut_in_the_message(folder: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        read_manifest(table(folder, "x" * 5000, "1"))
    assert len(str(caught.value)) < 600


def test_an_ignored_column_near_ours_is_told(folder: Path) -> None:
    path = table(folder, "patient,label,path,gender,remark", "p,A,1.jpg,f,x")
    first, second = read_manifest(path).problems
    assert first.message.endswith("column 'gender' ignored; if you mean 'sex', rename it")
    assert second.message.endswith("column 'remark' ignored")


def test_a_list_of_diagnoses_suggests_too(folder: Path) -> None:
    path = table(folder, "filename,dx,patient", "1.jpg,AML,p", "diagnoses.csv")
    with pytest.raises(ManifestError, match=r"'image' missing; did you mean 'filename'\?.*'dx'"):
        ASH.prepare(path.parent)


def test_no_word_means_two_columns_and_no_column_of_ours_another() -> None:
    for column in COLUMNS:
        assert column_meant(column, COLUMNS) == column
    manifests = [column for column in ALSO_CALLED if column not in {"image", "diagnosis"}]
    words = [word for column in manifests for word in ALSO_CALLED[column].split()]
    assert len(words) == len(set(words))
    assert meant("patient", ["remark", ""]) is None


def test_what_we_write_begins_with_a_mark_and_is_read_by_us(folder: Path) -> None:
    path = table(folder, "patient,label,path", "Müller,A,1.jpg")
    cohort = read_manifest(path)
    write_manifest(cohort, path)
    assert path.read_bytes().startswith(codecs.BOM_UTF8 + b"patient,")
    assert read_manifest(path) == cohort
    written = path.read_bytes()
    write_manifest(cohort, path)
    assert path.read_bytes() == written
    result = write_csv(folder / "r.csv", ["patient"], [["Müller"]])
    assert list(read_csv(result, ["patient"])) == [{"patient": "Müller"}]
    result.write_bytes(result.read_bytes().removeprefix(codecs.BOM_UTF8))
    assert list(read_csv(result, ["patient"])) == [{"patient": "Müller"}], "without a mark too"
