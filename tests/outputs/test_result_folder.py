"""Old results or new ones, never half; a user's own files; other kinds of folders."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from millie.errors import BusyError, ConfigError, DataError, NoCellsError
from millie.files import write_text
from millie.outputs.result_folder import Kind, check_kind, new_results, read_record, record_files

Files = dict[str, str]
MONDAY: Files = {
    "predictions.json": "Monday", "patients/a.html": "Monday", "overlays/a/1.jpg": "Monday",
    "store/a.h5": "bag of a",
}  # fmt: skip
TUESDAY: Files = {
    "predictions.json": "Tuesday", "patients/b.html": "Tuesday", "overlays/b/1.jpg": "Tuesday",
    "store/a.h5": "bag of a", "store/b.h5": "bag of b",
}  # fmt: skip


def write_run(folder: Path, files: Files) -> None:
    with new_results(folder) as results:
        results.carry("store/a.h5")
        for name, text in files.items():
            write_text(results.new / name, text)
        results.publish()


def content(folder: Path) -> Files:
    """Everything but the hidden folder."""
    paths = [p for p in folder.rglob("*") if p.is_file()]
    names = {p.relative_to(folder).as_posix(): p for p in paths}
    return {n: p.read_text(encoding="utf-8") for n, p in names.items() if not n.startswith(".")}


def hidden(folder: Path) -> set[str]:
    return {p.name for p in (folder / ".millie").glob("*")}


def test_new_results_replace_the_last_ones_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_run(out, MONDAY)
    own = {"overlays/mine/photo.jpg": "x", "patients/notes.html": "y", "overlays/a/note.txt": "z"}
    for name, text in own.items():
        write_text(out / name, text)
    write_run(out, TUESDAY)
    assert content(out) == TUESDAY | own
    assert hidden(out) == {"record.json"}
    write_run(out, MONDAY)
    assert content(out) == MONDAY | own
    assert not (out / "overlays" / "b").exists()


class KilledError(BaseException):
    """As if the process were gone."""


@pytest.mark.parametrize("old", [{}, MONDAY])
def test_killed_at_any_step_the_old_results_are_there_or_the_new_ones(
    old: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a killed process needs none
    for steps in range(200):
        out = tmp_path / str(steps)
        if old:
            write_run(out, old)
        with pytest.MonkeyPatch.context() as patch:
            left = [steps]
            for name in ("replace", "unlink", "rmdir", "link"):
                patch.setattr(os, name, _until(left, getattr(os, name)))
            try:
                write_run(out, TUESDAY)
            except KilledError:
                pass
            else:
                break
        if "ready" not in hidden(out):  # else the next run finishes the swap
            assert content(out) in (old, TUESDAY)
        with new_results(out):
            assert content(out) in (old, TUESDAY)
        assert not hidden(out) - {"record.json", "new"}
        write_run(out, TUESDAY)
        assert content(out) == TUESDAY
        assert hidden(out) == {"record.json"}
    assert 15 < steps < 199
    assert content(out) == TUESDAY


def _until(left: list[int], call):
    """The call, until that many were made: a killed process does nothing afterwards."""

    def counted(*args: object, **more: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise KilledError
        return call(*args, **more)

    return counted


KILLED = """
import os, signal, sys
from pathlib import Path
from millie.files import write_text
from millie.outputs.result_folder import new_results
move, left = os.replace, [int(sys.argv[2])]
with new_results(Path(sys.argv[1])) as results:
    for name in sys.argv[3:]:
        write_text(results.new / name, "Tuesday")
    def kill(*words, **more):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return move(*words, **more)
    os.replace = kill
    results.publish()
"""


@pytest.mark.parametrize(("moves", "survives"), [(1, "Monday"), (4, "Tuesday")])
def test_kill_9_in_the_swap(moves: int, survives: str, tmp_path: Path) -> None:
    """Two renames make the new results count: that of the record, and that of the folder."""
    write_run(tmp_path, dict.fromkeys(MONDAY, "Monday"))
    words = [sys.executable, "-c", KILLED, str(tmp_path), str(moves), *MONDAY]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL  # noqa: S603
    with new_results(tmp_path):
        assert content(tmp_path) == dict.fromkeys(MONDAY, survives)
    assert not hidden(tmp_path) - {"record.json", "new"}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind in ("file", "folder", "link", "dead link")
        for name in ("predictions.json", "patients", "patients/b.html", "store/b.h5")
        if (kind, name) != ("folder", "patients")  # that folder is shared
    ],
)
def test_a_file_of_the_users_own_in_the_way_is_left_and_named(
    kind: str, name: str, tmp_path: Path
) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    write_run(out, {"report.html": "Monday"})
    elsewhere.mkdir()
    path = out / name
    path.parent.mkdir(exist_ok=True)
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(elsewhere if kind == "link" else tmp_path / "nowhere")
    before = content(out)
    with pytest.raises(ConfigError, match=rf"{path} is in the way.* move or rename it and run"):
        write_run(out, TUESDAY)
    assert content(out) == before
    assert not list(elsewhere.iterdir())
    path.rmdir() if kind == "folder" else path.unlink()
    write_run(out, TUESDAY)
    assert content(out) == TUESDAY


KINDS: dict[str, Kind | None] = {
    "predictions.json": "calls", "progress.json": "study", "splits.json": "study",
    "comparison.csv": "reproduction", "pooling.csv": "reproduction", "store.json": "store",
    "bundle.json": "model", "photo.jpg": None,
}  # fmt: skip


@pytest.mark.parametrize("mark", KINDS)
@pytest.mark.parametrize("wanted", ["calls", "study", "reproduction", "store", "other"])
def test_a_folder_of_another_kind_is_refused_untouched(
    mark: str, wanted: Kind, tmp_path: Path
) -> None:
    (tmp_path / mark).write_text("{}")
    allowed = wanted == KINDS[mark] or (wanted == "other" and KINDS[mark] is None)
    allowed = allowed and wanted not in {"calls", "reproduction"}  # known by their record alone
    if allowed:
        check_kind(tmp_path, wanted)
    else:
        with pytest.raises(ConfigError, match=r"holds .*name (another|a new or an empty) folder"):
            check_kind(tmp_path, wanted)
    assert [p.name for p in tmp_path.iterdir()] == [mark]


def test_calls_are_known_by_their_record_whatever_lies_beside(tmp_path: Path) -> None:
    write_run(tmp_path, MONDAY)
    (tmp_path / "store.json").write_text("{}")
    check_kind(tmp_path, "calls")
    with pytest.raises(ConfigError, match="holds calls of `millie predict`: name another"):
        check_kind(tmp_path, "study")
    shutil.rmtree(tmp_path / ".millie")
    (tmp_path / "store.json").unlink()
    with pytest.raises(ConfigError, match="not the list of their files"), new_results(tmp_path):
        pass
    assert content(tmp_path) == MONDAY


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.csv", "mine")
    with pytest.raises(ConfigError, match=r"a\.csv is a file"), new_results(path):
        pass


def test_a_reproduction_is_swapped_and_known_before_it_ends(tmp_path: Path) -> None:
    """It keeps its store and study in place: a run that was killed is gone on with."""
    out = tmp_path / "out"

    def killed() -> None:
        with new_results(out, "reproduction") as results:
            results.claim()
            write_text(out / "store" / "a.h5", "bag")
            write_text(results.new / "report.html", "half")
            raise KilledError

    with pytest.raises(KilledError):
        killed()
    assert content(out) == {"store/a.h5": "bag"}
    with pytest.raises(ConfigError, match="holds results of `millie reproduce`"):
        check_kind(out, "calls")
    for text in ("first", "second"):
        write_text(out / "notes.txt", "mine")
        with new_results(out, "reproduction") as results:
            results.claim()
            write_text(results.new / "figure" / f"{text}.svg", text)
            results.publish()
    assert content(out) == {
        "store/a.h5": "bag", "notes.txt": "mine", "figure/second.svg": "second"
    }  # fmt: skip


def test_the_record_has_digests_and_a_former_one_is_read(tmp_path: Path) -> None:
    write_run(tmp_path, MONDAY)
    assert not list(read_record(tmp_path).changed(tmp_path))
    write_text(tmp_path / "patients" / "a.html", "Mondax")
    (tmp_path / "overlays" / "a" / "1.jpg").unlink()
    assert dict(read_record(tmp_path).changed(tmp_path)) == {
        "overlays/a/1.jpg": "missing", "patients/a.html": "changed"
    }  # fmt: skip
    record = tmp_path / ".millie" / "record.json"
    record.write_text(json.dumps({"schema": 1, "files": list(MONDAY)}))
    assert dict(read_record(tmp_path).changed(tmp_path)) == {"overlays/a/1.jpg": "missing"}
    write_run(tmp_path, TUESDAY)
    assert content(tmp_path) == TUESDAY


def test_what_is_written_anew_replaces_its_entries_and_no_others(tmp_path: Path) -> None:
    for name in ("cells.csv", "figures/a.svg", "figures/b.svg"):
        write_text(tmp_path / name, "old")
    record_files(tmp_path, "study", ["cells.csv", "figures/*"])
    write_text(tmp_path / "cells.csv", "changed")
    write_text(tmp_path / "figures" / "a.svg", "drawn anew")
    (tmp_path / "figures" / "b.svg").unlink()
    record_files(tmp_path, "study", ["figures/*"])
    record = read_record(tmp_path)
    assert (record.kind, set(record.files)) == ("study", {"cells.csv", "figures/a.svg"})
    assert dict(record.changed(tmp_path)) == {"cells.csv": "changed"}


@pytest.mark.parametrize("name", ["../mine.txt", "/etc/x", ".millie/lock"])
def test_a_record_never_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    mine, out = write_text(tmp_path / "mine.txt", "mine"), tmp_path / "out"
    write_run(out, MONDAY)
    record = out / ".millie" / "record.json"
    record.write_text(record.read_text().replace("patients/a.html", name))
    with pytest.raises(DataError, match=r"record\.json is damaged"), new_results(out):
        pass
    assert mine.is_file()


def test_a_run_that_fails_leaves_no_trace_and_says_what_is_left(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def fail() -> None:
        with new_results(out) as results:
            write_text(results.new / "cells.csv", "half")
            write_text(results.new / "store" / "store.json", "no bag yet")
            raise NoCellsError("nothing")

    with pytest.raises(NoCellsError) as caught:
        fail()
    assert not hasattr(caught.value, "__notes__")
    assert not out.exists()
    write_run(out, MONDAY)
    with pytest.raises(NoCellsError) as caught:
        fail()
    assert caught.value.__notes__ == [f"{out} still holds the results of the run before"]
    assert content(out) == MONDAY
    assert hidden(out) == {"record.json"}


def test_finished_bags_of_a_run_that_failed_are_kept(tmp_path: Path) -> None:
    def fail() -> None:
        with new_results(tmp_path) as results:
            write_text(results.new / "store" / "b.h5", "bag of b")
            raise KilledError

    with pytest.raises(KilledError):
        fail()
    assert content(tmp_path) == {}
    with new_results(tmp_path) as results:
        assert content(results.new) == {"store/b.h5": "bag of b"}
        with pytest.raises(BusyError), new_results(tmp_path):
            pass


def test_a_file_that_no_run_wrote_is_not_taken_over(tmp_path: Path) -> None:
    write_run(tmp_path, MONDAY)
    write_text(tmp_path / "store" / "own.h5", "mine")
    with new_results(tmp_path) as results:
        results.carry("store/own.h5")
        results.carry("store/gone.h5")
        assert content(results.new) == {}


def test_without_hard_links_bags_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "link", no_link)
    write_run(tmp_path, MONDAY)
    with new_results(tmp_path) as results:
        results.carry("store/a.h5")
        assert content(results.new) == {"store/a.h5": "bag of a"}
