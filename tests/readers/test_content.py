"""Equal bytes: one image within a patient, nobody's image between patients."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from millie.readers.content import pixels_sha256, same_bytes, unshared, without_copies
from millie.types import ImageSource, Patient


def image(folder: Path, name: str, content: bytes, cell_label: str | None = None) -> ImageSource:
    path = folder / name
    path.write_bytes(content)
    return ImageSource(path, name, cell_label=cell_label)


def test_groups_hold_equal_content_only(tmp_path: Path) -> None:
    images = [
        image(tmp_path, "a", b"one"),
        image(tmp_path, "b", b"two"),
        image(tmp_path, "c", b"one"),
        image(tmp_path, "d", b""),
        image(tmp_path, "e", b""),
        ImageSource(tmp_path / "gone", "gone"),
    ]
    assert [[i.name for i in group] for group in same_bytes(images)] == [["a", "c"]]


def test_files_too_large_for_an_image_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [ImageSource(tmp_path / name, name) for name in ("a", "b")]
    for image in images:
        with image.path.open("wb") as file:
            file.truncate(3_000_000_000)  # sparse
    monkeypatch.setattr(Path, "open", lambda path, _: pytest.fail(f"{path} was read"))
    assert same_bytes(images) == []


def test_equal_sizes_alone_are_not_read_whole(tmp_path: Path) -> None:
    images = []
    for number in range(2):
        images.append(image(tmp_path, f"{number}", bytes([number])))
        with images[-1].path.open("r+b") as file:
            file.truncate(199_000_000)  # sparse: at once, if only the beginning is read
    started = time.process_time()
    assert same_bytes(images) == []
    assert time.process_time() - started < 0.05


def test_files_that_begin_alike_are_read_to_the_end(tmp_path: Path) -> None:
    images = [image(tmp_path, name, bytes(9000) + name.encode()[:1]) for name in ("a", "b", "a2")]
    assert [[i.name for i in group] for group in same_bytes(images)] == [["a", "a2"]]


def test_pixels_not_files_make_a_picture() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert pixels_sha256(pixels) == pixels_sha256(pixels[::-1][::-1])
    assert pixels_sha256(pixels) != pixels_sha256(pixels.reshape(4, 2, 3))


def test_a_copy_goes_and_contested_types_go(tmp_path: Path) -> None:
    images = [
        image(tmp_path, "a", b"1", "blast"),
        image(tmp_path, "b", b"1", "lymphocyte"),
        image(tmp_path, "c", b"22", "blast"),
        image(tmp_path, "d", b"22", "blast"),
    ]
    stay, notes = without_copies("P", images)
    assert [(i.name, i.cell_label) for i in stay] == [("a", None), ("c", "blast")]
    assert [problem.source for problem in notes] == ["a", "b", "d"]
    assert all(problem.note for problem in notes)


def test_an_image_in_two_patients_is_nobodys(tmp_path: Path) -> None:
    shared = [image(tmp_path, name, b"same") for name in ("a", "b")]
    own = image(tmp_path, "c", b"own")
    patients = [Patient("P", "AML", (shared[0], own)), Patient("Q", "APL", (shared[1],))]
    left, problems = unshared(patients)
    assert [(p.id, [i.name for i in p.images]) for p in left] == [("P", ["c"])]
    assert [(p.patient, p.note) for p in problems] == [("P", False), ("Q", False)]
    assert "the same file occurs under P, Q: left out of each" in problems[0].message


def test_a_picture_that_stands_for_two_patients_stays_once(tmp_path: Path) -> None:
    twins = [image(tmp_path, name, b"same") for name in ("a", "b")]
    alike = [Patient(i.name, "normal", (i,)) for i in twins]
    left, problems = unshared(alike)
    assert [p.id for p in left] == ["a"]
    assert [(p.patient, p.note) for p in problems] == [("b", True)]
    unlike = [Patient("a", "ALL", (twins[0],)), Patient("b", "normal", (twins[1],))]
    assert unshared(unlike)[0] == []
