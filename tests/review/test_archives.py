from __future__ import annotations

import stat
import zipfile
from typing import TYPE_CHECKING

import pytest

from millie.review.intake import archives
from millie.review.intake.archives import ArchiveError, unpack
from millie.review.intake.limits import TooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def packed(tmp_path: Path) -> Callable[..., Path]:
    def pack(**entries: bytes) -> Path:
        path = tmp_path / "sent"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
        return path

    return pack


def unpacked(path: Path, folder: Path) -> dict[str, bytes]:
    out = folder / "out"
    out.mkdir()
    return {name: file.read_bytes() for name, file in unpack(path, "sent.zip", out)}


def test_files_come_out_under_names_of_our_own(packed: Callable[..., Path], tmp_path: Path) -> None:
    found = unpacked(packed(**{"a/1.jpg": b"one", "a/b/2.jpg": b"two"}), tmp_path)
    assert found == {"a/1.jpg": b"one", "a/b/2.jpg": b"two"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"sent-0", "sent-1"}


def test_what_operating_systems_add_is_passed_over(
    packed: Callable[..., Path], tmp_path: Path
) -> None:
    names = ["1.jpg", "Thumbs.db", "__MACOSX/._1.jpg", ".DS_Store", "a/.hidden/2.jpg"]
    assert list(unpacked(packed(**dict.fromkeys(names, b"x")), tmp_path)) == ["1.jpg"]


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "a/../../evil.jpg", "/etc/passwd", "..\\evil.jpg", "C:\\evil.jpg"]
)
def test_names_that_lead_out_refuse_the_whole(
    packed: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    with pytest.raises(ArchiveError, match="leads out of"):
        unpacked(packed(**{"good.jpg": b"x", name: b"x"}), tmp_path)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("entry", ["more.zip", "MORE.ZIP", "old.tar"])
def test_an_archive_inside_is_refused_by_its_name(
    packed: Callable[..., Path], tmp_path: Path, entry: str
) -> None:
    with pytest.raises(ArchiveError, match="an archive inside"):
        unpacked(packed(**{entry: b"x"}), tmp_path)


@pytest.mark.parametrize("head", [b"PK\x03\x04", b"Rar!\x1a\x07\x01", b"\x1f\x8b\x08"])
def test_an_archive_inside_is_refused_by_its_content(
    packed: Callable[..., Path], tmp_path: Path, head: bytes
) -> None:
    with pytest.raises(ArchiveError, match="an archive inside"):
        unpacked(packed(**{"innocent.jpg": head + b"\0" * 100}), tmp_path)


def test_a_bomb_is_refused_before_anything_is_unpacked(
    packed: Callable[..., Path], tmp_path: Path
) -> None:
    path = packed(**{"good.jpg": b"x", "bomb.bmp": b"\0" * 40_000_000})
    assert path.stat().st_size < 100_000
    with pytest.raises(TooLargeError, match="times its packed size"):
        unpacked(path, tmp_path)
    assert not list((tmp_path / "out").iterdir())


def test_too_many_files_and_too_many_bytes_are_refused(
    packed: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(**{f"{i}.jpg": bytes(50) for i in range(5)})
    monkeypatch.setattr(archives, "MAX_FILES", 4)
    with pytest.raises(TooLargeError, match="5 files; the limit is 4"):
        unpacked(path, tmp_path)
    monkeypatch.setattr(archives, "MAX_FILES", 5)
    monkeypatch.setattr(archives, "MAX_SAMPLE_BYTES", 240)
    (tmp_path / "out").rmdir()
    with pytest.raises(TooLargeError, match="unpacked; the limit"):
        unpacked(path, tmp_path)


def test_an_encrypted_archive_is_refused(packed: Callable[..., Path], tmp_path: Path) -> None:
    path = packed(**{"1.jpg": b"x"})
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="encrypted"):
        unpacked(path, tmp_path)


def test_a_link_is_refused(tmp_path: Path) -> None:
    path, link = tmp_path / "sent", zipfile.ZipInfo("1.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ArchiveError, match="is a link"):
        unpacked(path, tmp_path)


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_archive_is_refused(
    packed: Callable[..., Path], tmp_path: Path, damage: str
) -> None:
    path = packed(**{"1.jpg": bytes(range(256)) * 40})
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-30:]
    else:
        data[60] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="cannot be read"):
        unpacked(path, tmp_path)
