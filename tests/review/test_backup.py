from __future__ import annotations

import io
import sqlite3
import tarfile
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from millie.errors import ConfigError, DataError
from millie.review.data_folder import DataFolder, database_settings
from millie.review.records.backup import back_up, restore

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path / "data")
    (folder.images / "aa").write_bytes(b"image")
    (folder.samples / "S-1").mkdir()
    (folder.samples / "S-1" / "predictions.json").write_text("{}")
    folder.secret_key()
    with closing(sqlite3.connect(folder.database)) as database:
        database.execute("CREATE TABLE t (x)")
        database.execute("INSERT INTO t VALUES (7)")
        database.commit()
    return folder


def _entry(data: DataFolder) -> dict[str, Any]:
    return database_settings("", data)


def _quiet(done: int, total: int) -> None:
    assert 0 <= done <= total


def test_what_was_backed_up_comes_back(data: DataFolder, tmp_path: Path) -> None:
    archive = tmp_path / "one.tar"
    assert back_up(data, _entry(data), archive, _quiet) == 3
    assert archive.stat().st_mode & 0o077 == 0  # names of patients are inside
    other = DataFolder(tmp_path / "other")
    assert restore(archive, other, _entry(other)) == 3
    assert (other.images / "aa").read_bytes() == b"image"
    assert (other.samples / "S-1" / "predictions.json").exists()
    with closing(sqlite3.connect(other.database)) as database:
        assert database.execute("SELECT x FROM t").fetchall() == [(7,)]
    assert not (other.root / "secret.key").exists()
    assert not list(other.incoming.iterdir())


def test_nothing_is_overwritten(data: DataFolder, tmp_path: Path) -> None:
    archive = tmp_path / "one.tar"
    back_up(data, _entry(data), archive, _quiet)
    with pytest.raises(ConfigError, match="exists"):
        back_up(data, _entry(data), archive, _quiet)
    with pytest.raises(ConfigError, match="inside the data folder"):
        back_up(data, _entry(data), data.root / "b.tar", _quiet)
    with pytest.raises(ConfigError, match="new folder"):
        restore(archive, data, _entry(data))


def _changed(archive: Path, name: str, content: bytes | None) -> None:
    with tarfile.open(archive) as old:
        files = {m.name: old.extractfile(m).read() for m in old.getmembers()}  # type: ignore[union-attr]
    files.pop(name) if content is None else files.update({name: content})
    with tarfile.open(archive, "w") as new:
        for key, value in files.items():
            entry = tarfile.TarInfo(key)
            entry.size = len(value)
            new.addfile(entry, io.BytesIO(value))


@pytest.mark.parametrize("content", [None, b"other"])
@pytest.mark.parametrize("name", ["images/aa", "database.sqlite3", "digests.json"])
def test_a_damaged_backup_changes_nothing(
    data: DataFolder, tmp_path: Path, name: str, content: bytes | None
) -> None:
    archive = tmp_path / "one.tar"
    back_up(data, _entry(data), archive, _quiet)
    _changed(archive, name, content)
    other = DataFolder(tmp_path / "other")
    with pytest.raises(DataError, match=r"backup|damaged"):
        restore(archive, other, _entry(other))
    assert not other.database.exists()
    assert not list(other.images.iterdir())


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_what_is_no_whole_backup_is_refused(
    data: DataFolder, tmp_path: Path, content: bytes | None
) -> None:
    archive = tmp_path / "one.tar"
    back_up(data, _entry(data), archive, _quiet)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2] if content is None else content)
    other = DataFolder(tmp_path / "other")
    with pytest.raises(DataError, match="no whole backup"):
        restore(archive, other, _entry(other))


def test_a_path_that_leaves_the_folder_is_refused(data: DataFolder, tmp_path: Path) -> None:
    archive = tmp_path / "one.tar"
    back_up(data, _entry(data), archive, _quiet)
    _changed(archive, "../escaped", b"x")
    other = DataFolder(tmp_path / "other")
    with pytest.raises(DataError):
        restore(archive, other, _entry(other))
    assert not (tmp_path / "escaped").exists()


def test_a_full_disk_leaves_no_backup(
    data: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(OSError, match="No space"):
        back_up(data, _entry(data), tmp_path / "one.tar", _quiet)
    assert not list(tmp_path.glob("*one.tar*"))
