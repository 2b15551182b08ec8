from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from millie.review.intake import watch
from millie.review.intake.limits import NoSpaceError
from millie.review.intake.watch import Watcher
from millie.review.models import OriginalName, Sample, WatchedItem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from millie.review.data_folder import DataFolder

    Draw = Callable[..., bytes]

pytestmark = pytest.mark.django_db


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "watched"
    place.mkdir()
    return place


@pytest.fixture
def watcher(data: DataFolder, folder: Path) -> Watcher:
    """One for which everything is at rest when it is seen a second time."""
    return Watcher(data, folder, quiet_s=0)


def put(folder: Path, **files: bytes) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def test_a_sub_folder_becomes_a_sample_once_and_nothing_in_it_changes(
    watcher: Watcher, folder: Path, picture: Draw
) -> None:
    put(folder, **{"Doe/1.png": picture(1), "Doe/2.png": picture(2), "loose.png": picture(3)})
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    (sample,) = watcher.look()
    assert sample.images.count() == 2
    assert sample.submitted_by == "watched folder"
    assert OriginalName.objects.get().patient == "Doe"
    assert watcher.look() == []
    assert Watcher(watcher.data, folder, quiet_s=0).look() == []  # started anew
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_zip_becomes_a_sample(
    watcher: Watcher, folder: Path, picture: Draw, zipped: Callable[[dict[str, bytes]], bytes]
) -> None:
    put(folder, **{"Doe.zip": zipped({"1.png": picture()}), "not-one.zip": b"still copied"})
    (sample,) = watcher.look()
    assert sample.images.count() == 1
    assert OriginalName.objects.get().patient == "Doe"


def test_what_still_changes_is_waited_for(
    watcher: Watcher, folder: Path, picture: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(watch.time, "monotonic", lambda: now)
    watcher.quiet_s = 10
    put(folder, **{"Doe/1.png": picture(1)})
    assert watcher.look() == []
    now = 109.0
    put(folder, **{"Doe/2.png": picture(2)})
    assert watcher.look() == []
    now = 112.0
    assert watcher.look() == []
    now = 119.0
    assert [sample.images.count() for sample in watcher.look()] == [2]


def test_what_is_added_later_is_a_sample_that_names_the_one_before(
    watcher: Watcher, folder: Path, picture: Draw
) -> None:
    put(folder, **{"Doe/1.png": picture(1)})
    (first,) = watcher.look()
    put(folder, **{"Doe/2.png": picture(2)})
    (second,) = watcher.look()
    assert second.notes == [f"1 of its 2 images are in sample {first.pseudonym} too"]


def test_what_is_refused_is_told_once_with_its_name(
    watcher: Watcher, folder: Path, picture: Draw
) -> None:
    put(folder, **{"Doe/1.png": b"<html>", "Roe/1.png": picture()})
    assert len(watcher.look()) == 1
    assert watcher.look() == []
    item = WatchedItem.objects.get(sample=None)
    assert item.name == "Doe"
    assert "not a readable image" in item.reason
    assert WatchedItem.objects.exclude(sample=None).get().name == ""


def test_links_and_hidden_files_are_passed_over(
    watcher: Watcher, folder: Path, picture: Draw, tmp_path: Path
) -> None:
    put(tmp_path, **{"other/secret.png": picture(9)})
    put(folder, **{"Doe/1.png": picture(1), ".hidden/1.png": picture(2)})
    (folder / "Doe" / "link.png").symlink_to(tmp_path / "other" / "secret.png")
    (folder / "linked").symlink_to(tmp_path / "other")
    (sample,) = watcher.look()
    assert sample.images.count() == 1


@pytest.mark.parametrize("error", [NoSpaceError("full"), OSError(errno.ENOSPC, "full")])
def test_on_a_full_disk_it_is_tried_again(
    watcher: Watcher, folder: Path, picture: Draw, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    put(folder, **{"Doe/1.png": picture()})
    with monkeypatch.context() as patch:
        patch.setattr(watch, "admit", full)
        with pytest.raises(OSError, match="full"):
            watcher.look()
    assert not Sample.objects.exists()
    assert len(watcher.look()) == 1
