"""Patients from folders and files, and labels before training."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from millie.errors import ConfigError, ManifestError, MissingFileError
from millie.readers.cohort import check_labels, read_folders, read_manifest, write_manifest
from millie.readers.content import without_copies
from millie.types import Cohort, ImageSource, Patient


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working folder with cohort/p1 (flat) and cohort/p2 (nested)."""
    files = {
        "cohort/p1/b.jpg": b"b", "cohort/p1/a.png": b"a", "cohort/p1/notes.txt": b"n",
        "cohort/p2/Signed slides/Blast/x.jpg": b"same cell",
        "cohort/p2/Unsigned/x.jpg": b"same cell",
        "cohort/p2/Unsigned/y.jpg": b"other cell", "cohort/p2/Thumbs.db": b"t",
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(cohort: Cohort) -> dict[str, list[str]]:
    return {patient.id: [image.name for image in patient.images] for patient in cohort.patients}


def test_each_named_folder_is_one_patient(place: Path) -> None:
    cohort = read_folders([Path("cohort/p1"), Path("cohort/p2/")])
    assert names(cohort) == {
        "p1": ["p1/a.png", "p1/b.jpg"],
        "p2": [
            "p2/Signed slides/Blast/x.jpg",
            "p2/Unsigned/x.jpg",
            "p2/Unsigned/y.jpg",
        ],
    }
    assert all(patient.label is None for patient in cohort.patients)


def test_empty_files_are_not_copies_of_each_other(place: Path) -> None:
    for name in ("e1.jpg", "e2.jpg"):
        (place / "cohort/p1" / name).write_bytes(b"")
    assert len(read_folders([Path("cohort/p1")]).patients[0].images) == 4


def test_files_that_cannot_be_read_stay_to_be_named(place: Path) -> None:
    images = [ImageSource(place / name, name) for name in ("gone.jpg", "gone2.jpg")]
    stay, notes = without_copies("p", images)
    assert stay == tuple(images)
    assert notes == ()


def test_a_folder_of_patients_gets_a_note(place: Path) -> None:
    cohort = read_folders([Path("cohort")])
    assert list(names(cohort)) == ["cohort"]
    (note,) = (p for p in cohort.problems if "sub-folders" in p.message)
    assert note.note
    assert "if each sub-folder is a patient, give cohort/*" in note.message
    assert read_folders([Path("cohort/p1")]).problems == ()


def test_named_images_belong_to_the_folder_they_lie_in(place: Path) -> None:
    images = [Path("cohort/p1/b.jpg"), Path("cohort/p2/Unsigned/y.jpg"), Path("cohort/p1/a.png")]
    assert names(read_folders([*images, images[0]])) == {
        "p1": ["p1/b.jpg", "p1/a.png"],
        "Unsigned": ["Unsigned/y.jpg"],
    }


def test_a_named_folder_holds_its_named_images(place: Path) -> None:
    folder, image = Path("cohort/p1"), Path("cohort/p1/b.jpg")
    expected = {"p1": ["p1/a.png", "p1/b.jpg"]}
    assert names(read_folders([folder, image])) == expected
    assert names(read_folders([image, folder])) == expected


def test_what_a_file_manager_leaves_is_passed_over(place: Path) -> None:
    cohort = read_folders([Path("cohort/p1"), Path("cohort/p2/Thumbs.db")])
    assert list(names(cohort)) == ["p1"]


def test_the_working_folder_is_called_by_its_name(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place / "cohort" / "p1")
    assert names(read_folders([Path()])) == {"p1": ["p1/a.png", "p1/b.jpg"]}


def test_one_empty_folder_does_not_stop_the_others(place: Path) -> None:
    (place / "cohort/p3").mkdir()
    (place / "cohort/p4").mkdir()
    (place / "cohort/p4/data.xlsx").write_bytes(b"x")
    (place / "cohort/p5").symlink_to(place)
    (place / "cohort/p6").mkdir()
    (place / "cohort/p6/link.jpg").symlink_to(place / "cohort/p1/b.jpg")
    cohort = read_folders([Path("cohort") / f"p{number}" for number in (1, 3, 4, 6)])
    assert list(names(cohort)) == ["p1"]
    fatal = {p.patient: p.message for p in cohort.problems if p.fatal}
    assert "the folder is empty" in fatal["p3"]
    assert "holds only .xlsx" in fatal["p4"]
    assert "points outside" in fatal["p6"]


def test_nothing_usable_is_an_error(place: Path) -> None:
    (place / "empty").mkdir()
    with pytest.raises(ManifestError, match=r"empty: no images.*Give a folder"):
        read_folders([Path("empty")])
    with pytest.raises(ConfigError, match="no input"):
        read_folders([])
    with pytest.raises(MissingFileError, match="typo does not exist"):
        read_folders([Path("cohort/p1"), Path("typo")])


def test_two_folders_of_one_name_are_refused(place: Path) -> None:
    (place / "other/p1").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"two folders are called p1.*rename one"):
        read_folders([Path("cohort/p1"), Path("other/p1")])


def test_an_image_in_two_patients_is_refused(place: Path) -> None:
    with pytest.raises(ConfigError, match="belongs to both cohort and p1: one input is inside"):
        read_folders([Path("cohort"), Path("cohort/p1")])


def test_folders_can_be_written_as_a_manifest(place: Path) -> None:
    cohort = read_folders([place.resolve() / "cohort/p1", place.resolve() / "cohort/p2"])
    write_manifest(cohort, place / "m.csv")
    assert read_manifest(place / "m.csv").patients == cohort.patients


def labelled(*labels: str | None) -> Cohort:
    image = (ImageSource(Path("x.jpg"), "x.jpg"),)
    patients = tuple(Patient(f"p{n}", label, image) for n, label in enumerate(labels))
    return Cohort("study", patients)


def test_labels_fit_for_training() -> None:
    check_labels(labelled("APL", "AML", "APL"))
    check_labels(labelled("APL", "AML"), known=["AML", "APL", "ALL"])


@pytest.mark.parametrize(
    ("labels", "known", "message"),
    [
        (("APL", None), (), "study: patient p1 has no label"),
        (
            ("APL", "AMl"),
            ("APL", "AML"),
            "unknown label 'AMl'; expected one of APL, AML; did you mean 'AML'",
        ),
        (("APL", "xyz"), ("APL", "AML"), "unknown label 'xyz'; expected one of APL, AML$"),
        (("APL", "apl"), (), "'APL' and 'apl' differ only in spelling"),
        (("APL", "APL"), (), "all patients have the label APL; training needs at least two"),
        ((), (), r"the label \(none\)"),
    ],
)
def test_labels_unfit_for_training(
    labels: tuple[str | None, ...], known: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        check_labels(labelled(*labels), known)


def test_pictures_of_formats_that_are_not_read_are_named(place: Path) -> None:
    (place / "cohort/p1/scan.vsi").write_bytes(b"s")
    (found,) = read_folders([Path("cohort/p1")]).problems
    assert (found.patient, found.source) == ("p1", "cohort/p1/scan.vsi")
    assert (found.note, found.fatal) == (False, False)


def test_several_slides_in_a_folder_are_told_to_be_one_patient(place: Path) -> None:
    for name in ("s1.svs", "s2.ndpi"):
        (place / "cohort/p1" / name).write_bytes(b"s")
    cohort = read_folders([Path("cohort/p1")])
    (found,) = cohort.problems
    assert "2 whole slides (s1.svs, s2.ndpi) read as one patient" in found.message
    assert "manifest" in found.message
    assert found.note


def test_a_folder_of_nothing_but_unread_pictures_says_how_to_export_them(place: Path) -> None:
    (place / "phone").mkdir()
    (place / "phone/1.webp").write_bytes(b"x")
    with pytest.raises(ManifestError, match=r"holds only \.webp\. Export its images as JPEG"):
        read_folders([Path("phone")])


def test_pictures_that_an_earlier_run_drew_are_no_images(place: Path) -> None:
    """``millie predict ... cohort/p1 --out cohort/p1/calls``, and later anything on cohort/p1."""
    before = read_folders([Path("cohort/p1")])
    for out in (place / "cohort/p1/calls", place / "cohort/p1"):
        (out / "overlays/p1").mkdir(parents=True)
        (out / "overlays/p1/field.jpg").write_bytes(b"drawn")
        assert names(read_folders([Path("cohort/p1")])) != names(before), "no sign of a run"
        (out / "predictions.json").write_text("{}")
        assert names(read_folders([Path("cohort/p1")])) == names(before)


def test_documents_videos_and_archives_are_named_once_a_kind(place: Path) -> None:
    folder = place / "case"
    (folder / "scans").mkdir(parents=True)
    Image.new("RGB", (30, 30), "white").save(folder / "1.png")
    for name in ("letter.pdf", "scans/2.PDF", "film.mp4", "all.zip", "readme.txt"):
        (folder / name).write_bytes(b"x")
    told = [(p.source, p.message) for p in read_folders([folder]).problems if p.note]
    assert [source for source, _ in told] == ["letter.pdf", "film.mp4", "all.zip"]
    assert told[0][1] == (
        "a document is not read (1 more in case): if it holds images, export the pictures in it as "
        "files of their own"
    )
    assert told[2][1] == "an archive is not read: if it holds images, unpack it"
