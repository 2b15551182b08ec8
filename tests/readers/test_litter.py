"""What lies beside images and is none: one rule for folders, wildcards, stores and inputs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from millie import pipeline
from millie.config import ReadingConfig
from millie.errors import ConfigError, ImageError, ManifestError, MissingFileError
from millie.files import is_litter, is_visible
from millie.pipeline import read_cohort
from millie.readers import images
from millie.readers.cohort import read_folders
from millie.readers.images import read_image
from millie.readers.manifest import read_manifest
from millie.types import Cohort, Finding, ImageSource

HIDDEN = (
    "._a.jpg", ".a.jpg", ".DS_Store", "Thumbs.db", "THUMBS.DB", "desktop.ini", "__MACOSX", ".git",
    "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "~$a.jpg",
)  # fmt: skip
SHOWN = ("@a", "#1", "~a.jpg", "a.jpg", "a", "_a.jpg", "macosx", "thumbs.jpg", "a.ini")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two patients with an image each, and everything that systems leave beside images."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "cohort/p1/a.jpg", "cohort/p1/._a.jpg", "cohort/p1/.hidden/b.jpg", "cohort/p1/Thumbs.db",
        "cohort/p1/__MACOSX/p1/._a.jpg", "cohort/p1/desktop.ini", "cohort/p1/.DS_Store",
        "cohort/p2/b.png", "cohort/__MACOSX/p2/c.jpg", "cohort/._p1", "cohort/.DS_Store",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def names(cohort: Cohort) -> dict[str, list[str]]:
    return {p.id: [Path(image.name).name for image in p.images] for p in cohort.patients}


def manifest(place: Path, *paths: str) -> Cohort:
    rows = "".join(f"p,A,{path}\n" for path in paths)
    (place / "m.csv").write_text(f"patient,label,path\n{rows}")
    return read_manifest(place / "m.csv")


@pytest.mark.parametrize("name", [*HIDDEN, *SHOWN])
def test_one_rule_says_what_is_visible(name: str, tmp_path: Path) -> None:
    assert is_visible(name) == (name in SHOWN)
    for made in (tmp_path / "flat" / f"{name}.jpg", tmp_path / "deep" / name / "x.jpg"):
        made.parent.mkdir(parents=True)
        made.write_bytes(b"x")
    folders = images.find_images(tmp_path / "deep")
    assert bool(folders) == is_visible(name), "folders keep the rule"
    for pattern in ("deep/*/*.jpg", "deep/**/*.jpg", "deep/*/x.jpg", "deep/**"):
        (tmp_path / "deep" / "y.jpg").write_bytes(b"y")
        if is_visible(name):
            assert "x.jpg" in names(manifest(tmp_path, pattern))["p"]
        elif pattern in {"deep/**/*.jpg", "deep/**"}:
            assert names(manifest(tmp_path, pattern)) == {"p": ["y.jpg"]}
        else:
            with pytest.raises(ManifestError, match="no images in"):
                manifest(tmp_path, pattern)


def test_folders_and_wildcards_find_the_same(place: Path) -> None:
    expected = {"p": ["a.jpg"]}
    found = read_folders([Path("cohort/p1")])
    assert (names(found), found.problems) == ({"p1": ["a.jpg"]}, ())
    for pattern in ("cohort/p1/*", "cohort/p1/*.jpg", "cohort/p1/**/*", "cohort/p1/**", "c*/p1/*"):
        cohort = manifest(place, pattern)
        assert (names(cohort), cohort.problems) == (expected, ())


def test_wildcards_leave_out_what_predict_drew(place: Path) -> None:
    for name in ("predictions.json", "overlays/p1/a.jpg"):
        path = place / "cohort/p1/calls" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"drawn")
    assert names(manifest(place, "cohort/p1/**/*.jpg")) == {"p": ["a.jpg"]}


@pytest.mark.parametrize("ending", [".webp", ".AVIF", ".vsi", ".ppm", ".gif", ".lif"])
def test_pictures_that_cannot_be_read_are_named(place: Path, ending: str) -> None:
    (place / f"cohort/p1/scan{ending}").write_bytes(b"x")
    for cohort in (
        read_folders([Path("cohort/p1")]),
        manifest(place, "cohort/p1"),
        manifest(place, "cohort/p1/*"),
        manifest(place, "cohort/**/*a*"),
    ):
        (found,) = cohort.problems
        assert found.source == f"cohort/p1/scan{ending}"
        assert f"the format {ending} cannot be read; export it as JPEG" in found.message
        assert len(cohort.patients[0].images) == 1


def test_a_wildcard_never_lists_a_folder_outside(
    place: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[Path] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda p: (listed.append(Path(p).resolve()), scandir(p))[1])
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret").mkdir()
    (place / "cohort/link").symlink_to(outside)
    for pattern in ("cohort/*/*.jpg", "cohort/l*/**/*.jpg", "cohort/*/*/x.jpg"):
        with pytest.raises(ManifestError, match="is outside"):
            manifest(place, pattern)
    assert names(manifest(place, "cohort/**/*.jpg")) == {"p": ["a.jpg"]}, "** follows no link"
    assert listed
    assert all(folder.is_relative_to(place.resolve()) for folder in listed)


def test_loops_of_links_and_links_to_nothing_are_named(place: Path) -> None:
    (place / "cohort/p1/loop.jpg").symlink_to("loop2.jpg")
    (place / "cohort/p1/loop2.jpg").symlink_to("loop.jpg")
    (place / "cohort/p1/round").symlink_to(".")
    (place / "cohort/p1/gone.png").symlink_to("nowhere.png")
    cohort = read_folders([place / "cohort/p1"])
    assert names(cohort) == {"p1": ["a.jpg"]}
    assert {Path(p.source).name for p in cohort.problems} == {"loop.jpg", "loop2.jpg", "gone.png"}
    assert all("a link to nothing" in p.message and not p.note for p in cohort.problems)
    (place / "cohort/p9").symlink_to("p9")
    cohort = read_cohort([place / "cohort/p1", place / "cohort/p9"])  # as cohort/* gives them
    assert names(cohort) == {"p1": ["a.jpg"]}
    assert "p9: a link to nothing" in cohort.problems[-1].message
    with pytest.raises(MissingFileError, match="does not exist"):
        read_cohort(place / "cohort/p9")


def test_a_row_that_names_no_file_costs_no_other_patient(place: Path) -> None:
    (place / "cohort/loop.jpg").symlink_to("loop.jpg")
    odd = ["cohort/loop.jpg", f"{'n' * 300}.jpg", f"{'d/' * 3000}x.jpg"]
    rows = [f"odd{number},,{path}" for number, path in enumerate(odd)]
    path = place / "m.csv"
    path.write_text("\n".join(["patient,label,path", *rows, "p,,cohort/p1/a.jpg"]))
    cohort = read_manifest(path)
    assert list(names(cohort)) == ["p"]
    assert {p.patient for p in cohort.problems if p.fatal} == {"odd0", "odd1", "odd2"}
    assert max(len(p.message) for p in cohort.problems) < 400


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a system without /proc")
def test_a_pseudo_file_of_the_kernel_is_empty() -> None:
    """It says that it has no bytes; reading some of them never ends."""
    source = ImageSource(Path("/proc/self/status"), "status")
    with pytest.raises(ImageError, match="status: the file is empty"):
        read_image(source, ReadingConfig())


def test_odd_wildcards_end_in_words(place: Path) -> None:
    (place / "cohort/p1/loop").symlink_to(place / "cohort/p1")
    assert names(manifest(place, "cohort/**/*.jpg")) == {"p": ["a.jpg"]}
    for pattern in ("**x/*.jpg", "[/*.jpg", "*/**x", f"{'x' * 300}*/a.jpg", "*" + "/*" * 2000):
        with pytest.raises(ManifestError, match=r"no images in|no usable images"):
            manifest(place, pattern)


def test_a_file_beside_the_folders_is_a_note(place: Path) -> None:
    for name, content in {
        "readme.txt": b"hello", "notes.csv": b"a,b\n1,2\n", "plan.xlsx": b"PK", "README": b"BM x",
        "paper.pdf": b"%PDF-1.7", "plan.md": b"# plan",
    }.items():  # fmt: skip
        (place / "cohort" / name).write_bytes(content)
    cohort = pipeline.read_cohort(sorted((place / "cohort").iterdir()))
    assert names(cohort) == {"p1": ["a.jpg"], "p2": ["b.png"]}
    assert {Path(p.source).name for p in cohort.problems} == {
        "readme.txt", "notes.csv", "plan.xlsx", "README", "paper.pdf", "plan.md",
    }  # fmt: skip
    assert {(p.note, p.error) for p in cohort.problems} == {(True, Finding.STRAY)}


def test_a_text_file_alone_or_a_real_manifest_beside_folders_is_an_error(place: Path) -> None:
    (place / "readme.txt").write_text("hello")
    with pytest.raises(ManifestError, match=r"readme\.txt"):
        pipeline.read_cohort(place / "readme.txt")
    (place / "m.csv").write_text("patient,label,path\np,A,cohort/p1\n")
    with pytest.raises(ConfigError, match=r"m\.csv is a manifest: give it alone"):
        pipeline.read_cohort([place / "cohort/p1", place / "m.csv"])
    with pytest.raises(MissingFileError):
        pipeline.read_cohort([place / "cohort/p1", place / "gone.txt"])


def test_an_image_without_an_ending_is_one(place: Path) -> None:
    (place / "cohort/scan").write_bytes(b"\xff\xd8\xff\xe0")
    cohort = pipeline.read_cohort([place / "cohort/p1", place / "cohort/scan"])
    assert names(cohort) == {"p1": ["a.jpg"], "cohort": ["scan"]}


def test_litter_alone_is_no_patient(place: Path) -> None:
    assert is_litter("._x")
    assert not is_litter(".a.jpg")
    with pytest.raises(ManifestError, match="no image"):
        pipeline.read_cohort([place / "cohort/__MACOSX", place / "cohort/p1/Thumbs.db"])


def test_detect_names_what_it_leaves_aside(place: Path) -> None:
    Image.new("RGB", (40, 40), "white").save(place / "cohort/p1/a.jpg")
    (place / "cohort/p1/x.webp").write_bytes(b"x")
    (place / "cohort/readme.txt").write_text("hello")
    found = pipeline.detect([place / "cohort/p1", place / "cohort/readme.txt"])
    named = {Path(p.source).name: p.note for p in found.problems if p.error != Finding.REFUSED}
    assert named == {"x.webp": False, "readme.txt": True}
