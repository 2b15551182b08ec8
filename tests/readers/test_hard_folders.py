"""A folder that cannot be searched, a ring of links, an impossible name: told, nothing lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from millie import read_cohort
from millie.config import Config
from millie.errors import ImageError, ManifestError
from millie.pipeline import detect
from millie.readers import content
from millie.readers.images import MAX_LEVELS, find_images
from millie.types import Cohort, ImageSource


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two patients with an image each, and a manifest's folder."""
    for name in ("A", "B"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (64, 64), (200, 180, len(name))).save(tmp_path / name / "1.png")
    return tmp_path


def cohort(root: Path, path_of_b: str) -> Cohort:
    table = root / "manifest.csv"
    table.write_text(f"patient,label,path\nA,APL,A\nB,AML,{path_of_b}\n", encoding="utf-8")
    return read_cohort(table)


def images(found: Cohort) -> dict[str, int]:
    return {patient.id: len(patient.images) for patient in found.patients}


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a folder unreadable, for the superuser too."""
    closed: list[str] = []
    scandir = os.scandir

    def asked(path: Path) -> object:
        if str(path) in closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", asked)
    return lambda folder: closed.append(str(folder))


@pytest.mark.parametrize("path", ["B", "B/**/*.png"])
def test_a_folder_that_cannot_be_searched_is_told(
    root: Path, locked: Callable[[Path], None], path: str
) -> None:
    (root / "B" / "more").mkdir()
    locked(root / "B" / "more")
    found = cohort(root, path)
    assert images(found) == {"A": 1, "B": 1}
    (told,) = found.problems
    assert (told.patient, told.note) == ("B", False)
    assert "B/more: the folder cannot be searched (Permission denied" in told.message


def test_a_patients_own_folder_is_named(root: Path, locked: Callable[[Path], None]) -> None:
    locked(root / "B")
    found = read_cohort([root / "A", root / "B"])
    assert images(found) == {"A": 1}
    assert "B: the folder cannot be searched" in found.problems[0].message
    with pytest.raises(ManifestError, match="cannot be searched"):
        read_cohort(root / "B")


@pytest.mark.parametrize("path", ["B", "B/**/*.png", "B/**"])
def test_links_in_a_ring(root: Path, path: str) -> None:
    (root / "B" / "itself").symlink_to("itself")
    (root / "B" / "above").symlink_to(".")
    assert images(cohort(root, path)) == {"A": 1, "B": 1}
    found = cohort(root, "B/itself")
    assert images(found) == {"A": 1}
    assert "link to nothing" in found.problems[0].message


@pytest.mark.parametrize("path", ["B", "B/**/*.png"])
def test_two_thousand_levels(root: Path, path: str) -> None:
    place = os.open(root / "B", os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("d", dir_fd=place)  # the whole path would be too long
        below = os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)
    found = cohort(root, path)
    assert images(found) == {"A": 1, "B": 1}
    (told,) = found.problems
    assert f"more than {MAX_LEVELS} folders deep" in told.message
    assert len(find_images(root / "B")) == 1
    remove_levels(root / "B" / "d")


def remove_levels(folder: Path) -> None:
    """What pytest could not: its way of removing folders goes down too far."""
    while (folder / "d").exists():
        (folder / "d").rename(folder.parent / "next")
        folder.rmdir()
        (folder.parent / "next").rename(folder)


@pytest.mark.parametrize(
    "path", ["n" * 300, "n" * 300 + "/*.png", "m/" * 3000 + "1.png", "**x/*.png"]
)
def test_impossible_names(root: Path, path: str) -> None:
    found = cohort(root, path)
    assert images(found) == {"A": 1}
    assert {problem.patient for problem in found.problems} == {"B"}


def test_detect_goes_on_behind_an_impossible_name(root: Path) -> None:
    found = detect([root / ("n" * 300), root / "A"], config=Config())
    assert found.done == 1
    assert found.failures[0].error == "ImageError"


def test_detect_goes_on_behind_a_folder_with_a_link_out_of_it(root: Path) -> None:
    (root / "B" / "loop").symlink_to(root)
    found = detect([root / "B", root / "A"], config=Config())
    assert found.done == 1
    assert "a link that points outside" in found.failures[0].message
    with pytest.raises(ImageError, match="a link that points outside"):
        detect([root / "B"], config=Config())


def test_an_unreadable_file_of_equal_size(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = []
    for name in ("a", "b", "c"):
        (root / name).write_bytes(b"same")
        sources.append(ImageSource(root / name, name))
    opened = Path.open

    def refuse(path: Path, mode: str) -> object:
        if path.name == "b":
            raise PermissionError(13, "Permission denied")
        return opened(path, mode)

    monkeypatch.setattr(Path, "open", refuse)
    assert [[one.name for one in group] for group in content.same_bytes(sources)] == [["a", "c"]]
