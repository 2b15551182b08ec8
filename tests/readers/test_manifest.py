"""Manifests: the round trip is exact, and every broken rule names its line and the remedy."""

from __future__ import annotations

import csv
import os
import string
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millie import pipeline
from millie.errors import ConfigError, ManifestError, MissingFileError
from millie.readers.manifest import read_manifest
from millie.readers.manifest_writer import write_manifest, write_new_manifest
from millie.readers.spelling import is_missing, tidy
from millie.types import Cohort, ImageKind, ImageSource, Patient, PixelSize


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two patients: p1 with a.jpg and deep/b.png, p2 with c.tif."""
    for name in ("p1/a.jpg", "p1/deep/b.png", "p2/c.tif", "p2/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "cohort.csv"
    path.write_text(text, encoding="utf-8")
    return path


def names(cohort: Cohort) -> dict[str, list[str]]:
    return {patient.id: [image.name for image in patient.images] for patient in cohort.patients}


def test_files_folders_and_globs(folder: Path) -> None:
    path = written(folder, "patient,label,path\np1,APL,p1\np2,AML,p2/*.tif\n")
    cohort = read_manifest(path)
    assert cohort.name == "cohort"
    assert names(cohort) == {"p1": ["p1/a.jpg", "p1/deep/b.png"], "p2": ["p2/c.tif"]}
    assert [patient.label for patient in cohort.patients] == ["APL", "AML"]
    assert cohort.patients[0].images[0].path == folder.resolve() / "p1/a.jpg"


def test_optional_columns(folder: Path) -> None:
    path = written(
        folder,
        "Patient,label,path,kind,um_px,site,stain,scanner,split,age,sex,cell_label\n"
        "p1,APL, p1/a.jpg,cell,0.1,UCL,MGG,DM96,train,29,Female,promyelocyte\n"
        "p1,,p1/deep/b.png,,,,,,,,,\n",
    )
    (patient,) = read_manifest(path).patients
    assert (patient.site, patient.stain, patient.scanner) == ("UCL", "MGG", "DM96")
    assert (patient.split, patient.age, patient.sex) == ("train", 29.0, "Female")
    first, second = patient.images
    assert (first.kind, first.pixel_size) == (ImageKind.CELL, PixelSize(0.1))
    assert (first.cell_label, second.cell_label, second.kind) == ("promyelocyte", None, None)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_spreadsheet_dialects(folder: Path, separator: str) -> None:
    text = "\ufeffpatient,label,path\r\np1,APL,p1/a.jpg\r\n,,\r\n".replace(",", separator)
    assert names(read_manifest(written(folder, text))) == {"p1": ["p1/a.jpg"]}


def test_label_may_stay_empty(folder: Path) -> None:
    cohort = read_manifest(written(folder, "patient,label,path\np1,,p1\n"))
    assert cohort.patients[0].label is None
    assert cohort.labels == ()


BROKEN = {
    "missing column": ("patient,path\np1,p1\n", r"line 1: column label missing; found patient"),
    "nothing": ("", "no rows below the header"),
    "no rows": ("patient,label,path\n", "no rows"),
    "misspelt column": ("patient,label,path,um/px\np1,A,p1,1\n", "'um/px'; if you mean 'um_px'"),
    "column twice": ("patient,label,path,label\np1,A,p1,B\n", "column label appears twice"),
    "row too long": ("patient,label,path\np1,A,p1,x\n", "line 2: 4 cells, expected 3"),
    "bad quotes": ('patient,label,path\np1,A,"p1"x\n', "line 2: not valid CSV"),
    "no patient": ("patient,label,path\n,A,p1\n", "line 2: column patient is empty"),
    "no path": ("patient,label,path\np1,A,\n", "line 2: column path is empty"),
    "two labels": (
        "patient,label,path\np1,APL,p1/a.jpg\np1,AML,p1/deep\n",
        "line 3: patient p1 has label 'AML', but 'APL' on line 2.*correct it",
    ),
    "both parts of a split": (
        "patient,label,path,split\np1,APL,p1/a.jpg,train\np1,APL,p1/deep,test\n",
        "line 3: patient p1 has split 'test', but 'train' on line 2",
    ),
    "duplicate rows": (
        "patient,label,path\np1,APL,p1/a.jpg\np1,APL,p1/a.jpg\n",
        r"line 3: a\.jpg of p1 is already on line 2.*remove one",
    ),
    "file and its folder": (
        "patient,label,path\np1,APL,p1/a.jpg\np1,APL,p1\n", "line 3: .* is already on line 2",
    ),
    "file of two patients": (
        "patient,label,path\np1,APL,p1\nx,APL,p1/a.jpg\n", r"already on line 2 \(p1\)",
    ),
    "leaving": ("patient,label,path\np1,A,../x.jpg\n", r"line 2: path \.\./x\.jpg is outside"),
    "absolute": ("patient,label,path\np1,A,/etc/passwd\n", "line 2: path /etc/passwd is outside"),
    "leaving by glob": ("patient,label,path\np1,A,../*.jpg\n", "line 2: path .* is outside"),
    "dots behind glob": ("patient,label,path\np1,A,*/../../x.jpg\n", "after a wildcard"),
    "kind": ("patient,label,path,kind\np1,A,p1,crop\n", "kind 'crop'; expected field, cell"),
    "scale word": ("patient,label,path,um_px\np1,A,p1,40x\n", "um_px '40x': expected micro"),
    "scale range": ("patient,label,path,um_px\np1,A,p1,40\n", "um_px '40'.*0.01 to 5"),
    "scale infinite": ("patient,label,path,um_px\np1,A,p1,inf\n", "um_px 'inf'"),
    "patient nan": ("patient,label,path\nnan,A,p1\n", "line 2: column patient is empty"),
    "patient invisible": ("patient,label,path\n\u200b\u00a0,A,p1\n", "column patient is empty"),
    "age word": ("patient,label,path,age\np1,A,p1,old\n", "line 2: age 'old'"),
    "age range": ("patient,label,path,age\np1,A,p1,-1\n", "line 2: age '-1'"),
    "two roots": ("patient,label,path,root\np1,A,p1,\np2,A,p2,p2\n", "several folders"),
    "one name, two files": ("patient,label,path,name\np1,A,p1,x\n", "one name for several"),
    "one name twice": (
        "patient,label,path,name\np1,A,p1/a.jpg,x\np1,A,p1/deep/b.png,x\n", "two images named x",
    ),
    "all missing": ("patient,label,path\np1,A,gone.jpg\n", "no usable image.*does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_rules_name_line_and_remedy(folder: Path, case: str) -> None:
    text, message = BROKEN[case]
    path = written(folder, text)
    with pytest.raises(ManifestError, match=rf"cohort\.csv.*{message}"):
        read_manifest(path)


def test_unknown_label_is_named(folder: Path) -> None:
    path = written(folder, "patient,label,path\np1,APL,p1\np2,APLL,p2\n")
    with pytest.raises(ManifestError, match="line 3: unknown label 'APLL'; allowed: AML, APL"):
        read_manifest(path, labels=["APL", "AML"])
    assert read_manifest(path).labels == ("APL", "APLL")


def test_missing_files_are_problems_and_the_rest_goes_on(folder: Path) -> None:
    text = "patient,label,path\np1,A,p1/a.jpg\np1,A,p1/gone.jpg\np2,B,gone/*.jpg\np3,B,empty\n"
    (folder / "empty").mkdir()
    cohort = read_manifest(written(folder, text))
    assert names(cohort) == {"p1": ["p1/a.jpg"]}
    assert {(p.patient, p.error, p.fatal) for p in cohort.problems} == {
        ("p1", "MissingFileError", False),
        ("p2", "MissingFileError", False),
        ("p2", "MissingFileError", True),
        ("p3", "MissingFileError", False),
        ("p3", "MissingFileError", True),
    }


def test_unused_columns_are_noted(folder: Path) -> None:
    cohort = read_manifest(written(folder, "patient,label,path,operator\np1,A,p1,x\n"))
    (problem,) = cohort.problems
    assert problem.note
    assert "'operator' ignored" in problem.message


def test_links_out_of_the_root_are_refused(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "x.jpg").write_bytes(b"x")
    (folder / "p3").symlink_to(outside)
    (folder / "p2" / "y.jpg").symlink_to(outside / "x.jpg")
    for name in ("p3", "p3/x.jpg", "p2/y.jpg", "p2/*.jpg", "p2"):
        with pytest.raises(ManifestError, match=r"is outside|points outside"):
            read_manifest(written(folder, f"patient,label,path\np,A,{name}\n"))


def test_no_way_of_writing_a_path_leaves_the_root(folder: Path) -> None:
    ups = ("../", "p1/../../", "./../", "p1/deep/../../../", "//etc/../")
    for up in ups:
        for target in ("etc/passwd", "x.jpg", "*", "**/*.jpg", ""):
            with pytest.raises(ManifestError, match=r"is outside|wildcard|no usable image"):
                read_manifest(written(folder, f"patient,label,path\np,A,{up}{target}\n"))


def test_a_service_can_set_the_limit(folder: Path) -> None:
    inside = folder / "p1"
    path = written(inside, "patient,label,path,root\np,A,../p2/c.tif,..\n")
    assert names(read_manifest(path, root=folder)) == {"p": ["p2/c.tif"]}
    for limit in (None, inside):
        with pytest.raises(ManifestError, match=r"column root names \.\., which is outside"):
            read_manifest(path, root=limit)
    with pytest.raises(MissingFileError, match=r"--root .*gone: no such folder"):
        read_manifest(path, root=folder / "gone")


@pytest.mark.parametrize("root", ["/", "..", "../..", "/proc", "/dev", "p1/../..", "away"])
def test_a_manifest_never_widens_its_root(folder: Path, root: str) -> None:
    (folder / "away").symlink_to("/")
    for target in ("/proc/kmsg", "/dev/zero", "/etc/passwd", "/etc/*", "p1/a.jpg"):
        path = written(folder, f"patient,label,path,root\np,A,{target},{root}\n")
        with pytest.raises(ManifestError, match="a table cannot widen"):
            read_manifest(path)


def test_a_column_may_narrow_the_root(folder: Path) -> None:
    path = written(folder, "patient,label,path,root\np,A,p1/a.jpg,p1\n")
    assert names(read_manifest(path)) == {"p": ["a.jpg"]}
    path = written(folder, "patient,label,path,root\np,A,p2/c.tif,p1\n")
    with pytest.raises(ManifestError, match=r"path p2/c.tif is outside"):
        read_manifest(path)


def test_only_regular_files_are_opened(folder: Path) -> None:
    os.mkfifo(folder / "p1/pipe.jpg")
    (folder / "p1/broken.png").symlink_to(folder / "p1/gone.png")
    rows = "p1,A,p1/pipe.jpg\np1,A,p1/*.*\np2,A,p2/c.tif\n"
    cohort = read_manifest(written(folder, f"patient,label,path\n{rows}"))
    assert names(cohort) == {"p1": ["p1/a.jpg"], "p2": ["p2/c.tif"]}
    assert [p.error for p in cohort.problems] == ["ImageError"] * 3
    assert all("device" in p.message for p in cohort.problems)
    for table in ("/dev/zero", "/dev/null", str(folder / "p1/pipe.jpg")):
        with pytest.raises(ManifestError, match="a folder or device"):
            read_manifest(Path(table))
    with pytest.raises(ManifestError, match="no rows"):
        read_manifest(Path("/proc/kmsg"))


def test_a_huge_table_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(folder, "patient,label,path\np,A,p1\n")
    monkeypatch.setattr("millie.readers.table.MAX_TABLE_BYTES", 20)
    with pytest.raises(ManifestError, match="larger than"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe\x00", "not UTF-8"), (b"PAR1", "Parquet and spreadsheets cannot")],
)
def test_other_files_are_no_manifest(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / ("m.parquet" if content == b"PAR1" else "m.csv")
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        read_manifest(path)
    with pytest.raises(MissingFileError, match="does not exist"):
        read_manifest(tmp_path / "gone.csv")
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path)


def test_round_trip_is_exact_wherever_the_manifest_lies(folder: Path) -> None:
    cohort = full_cohort(folder.resolve(), "p", ["p1/a.jpg", "p1/deep/b.png"], 0.1)
    for place in (folder, folder / "p1", folder / "new" / "deeper"):
        path = place / "m.csv"
        write_manifest(cohort, path)
        assert read_manifest(path, folder).patients == cohort.patients
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                assert (place / row["path"]).is_file(), "paths are relative to the manifest"
        assert [p.name for p in place.iterdir() if p.name.startswith(".")] == []


def test_an_edited_manifest_or_another_file_is_not_overwritten(folder: Path) -> None:
    cohort = full_cohort(folder.resolve(), "p", ["p1/a.jpg"], 0.1)
    path = folder / "m.csv"
    path.touch()
    for _ in range(2):
        write_new_manifest(cohort, path)
    assert read_manifest(path).patients == cohort.patients
    for text in (path.read_text(encoding="utf-8") + "more\n", "notes of mine"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"m\.csv exists and is not .*left as it is"):
            write_new_manifest(cohort, path)
        assert path.read_text(encoding="utf-8") == text
    with pytest.raises(ConfigError, match="is a folder: name the manifest itself"):
        write_new_manifest(cohort, folder)


def test_round_trip_keeps_names_that_no_path_gives(folder: Path) -> None:
    cohort = full_cohort(folder.resolve(), "p", ["p1/a.jpg"], 0.1)
    image = replace(cohort.patients[0].images[0], name="as typed/../x.jpg")
    cohort = replace(cohort, patients=(replace(cohort.patients[0], images=(image,)),))
    write_manifest(cohort, folder / "m.csv")
    assert read_manifest(folder / "m.csv").patients == cohort.patients


TEXT = st.text(string.printable, max_size=12).map(tidy).filter(lambda text: not is_missing(text))
FILE_NAME = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]),
    min_size=1, max_size=20,
).filter(lambda name: name.strip() == name and name not in {".", ".."})  # fmt: skip


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_round_trip_of_anything(tmp_path: Path, data: st.DataObject) -> None:
    names_drawn = data.draw(st.lists(FILE_NAME, min_size=1, max_size=3, unique=True))
    root = tmp_path.resolve() / "root"
    root.mkdir(exist_ok=True)
    for name in names_drawn:
        (root / f"{name}.jpg").write_bytes(b"x")
    patient = full_cohort(
        root,
        data.draw(TEXT),
        [f"{name}.jpg" for name in names_drawn],
        data.draw(st.floats(0.01, 5)),
    ).patients[0]
    patient = replace(
        patient,
        label=data.draw(st.none() | TEXT),
        site=data.draw(st.just("") | TEXT),
        age=data.draw(st.none() | st.floats(0, 130)),
    )
    path = tmp_path / "m.csv"
    write_manifest(Cohort("m", (patient,)), path)
    assert read_manifest(path).patients == (patient,)


def test_formulas_do_not_open_in_a_spreadsheet(folder: Path) -> None:
    cohort = full_cohort(folder.resolve(), "=HYPERLINK(1)", ["p1/a.jpg"], 0.1)
    path = folder / "m.csv"
    write_manifest(cohort, path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert read_manifest(path).patients == cohort.patients


def test_what_cannot_be_written_leaves_the_old_manifest(folder: Path) -> None:
    path = written(folder, "old")
    empty = Cohort("x", (Patient("p", None, ()),))
    with pytest.raises(ManifestError, match="patient p has no image"):
        write_manifest(empty, path)
    assert path.read_text() == "old"
    assert len(list(folder.glob(".*"))) == 0


@pytest.mark.parametrize("name", ["p1/\udcff.jpg", "p1/\\udcff.jpg", "p1/\udcff\\udcff.jpg"])
def test_names_that_are_not_utf8_come_back(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")
    cohort = full_cohort(folder.resolve(), f"p {name[3:-4]}", [name], 0.1)
    write_manifest(cohort, folder / "m.csv")
    assert read_manifest(folder / "m.csv").patients == cohort.patients
    assert "udcff" in (folder / "m.csv").read_text("utf-8-sig")


def full_cohort(root: Path, patient: str, files: list[str], um_px: float) -> Cohort:
    images = tuple(
        ImageSource(root / name, name, ImageKind.CELL, PixelSize(um_px), f"type {number}")
        for number, name in enumerate(files)
    )
    one = Patient(
        patient, "APL", images, "site", "stain", "scanner", "train", age=29.5, sex="Female"
    )
    return Cohort("m", (one,))


def test_labels_that_differ_only_in_spelling_are_refused(folder: Path) -> None:
    path = written(folder, "patient,label,path\np1,APL,p1\np2,apl,p2\n")
    with pytest.raises(ManifestError, match=r"line 3: label 'apl', but 'APL' on line 2"):
        read_manifest(path)


def test_pictures_of_formats_that_are_not_read_are_named(folder: Path) -> None:
    (folder / "p1/deep/scan.webp").write_bytes(b"w")
    cohort = read_manifest(written(folder, "patient,label,path\np1,APL,p1\np2,AML,p2\n"))
    (found,) = cohort.problems
    assert (found.patient, found.source, found.note) == ("p1", "p1/deep/scan.webp", False)
    assert "export it as JPEG" in found.message


def test_a_table_that_excel_was_told_its_separator_in(folder: Path) -> None:
    path = written(folder, "sep=;\npatient;label;path\np1;APL;p1/a.jpg\np1;APL;p1/no.jpg\n")
    cohort = read_manifest(path)
    assert names(cohort) == {"p1": ["p1/a.jpg"]}
    assert "line 4:" in cohort.problems[0].message


def test_paths_written_on_windows(folder: Path) -> None:
    text = "patient,label,path\np1,APL,p1\\deep\\b.png\np2,AML,.\\p2\\*.tif\n"
    assert names(read_manifest(written(folder, text))) == {
        "p1": ["p1/deep/b.png"], "p2": ["p2/c.tif"],
    }  # fmt: skip
    (folder / "p1" / "odd\\name.jpg").write_bytes(b"x")  # a name that only Windows forbids
    text = "patient,label,path\np1,APL,p1/odd\\name.jpg\n"
    assert names(read_manifest(written(folder, text))) == {"p1": ["p1/odd\\name.jpg"]}
    for outside in ("..\\..\\etc\\passwd", "\\etc\\passwd"):
        with pytest.raises(ManifestError, match="is outside"):
            read_manifest(written(folder, f"patient,label,path\np1,APL,{outside}\n"))
    with pytest.raises(ManifestError, match=r"C:\\x\\y.jpg is on a Windows drive"):
        read_manifest(written(folder, "patient,label,path\np1,APL,C:\\x\\y.jpg\n"))


@pytest.mark.parametrize("ending", [".xlsx", ".xls", ".ods"])
def test_a_spreadsheet_is_named_as_one(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"patients{ending}"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(ManifestError, match=r"spreadsheets cannot be read; save the table as CSV"):
        pipeline.read_cohort([path])
