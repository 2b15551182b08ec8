"""Atomic files, safe names, tables."""

from __future__ import annotations

import csv
import errno
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millie import files
from millie.errors import BusyError, MissingFileError
from millie.files import (
    as_named,
    code_digest,
    held,
    quote_formula,
    replacing,
    safe_id,
    spelt_out,
    unquote_formula,
    write_csv,
    write_text,
)
from millie.outputs.tables import read_csv


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError, match="disk"):
        _write_half_and_fail(path)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def _write_half_and_fail(path: Path) -> None:
    with replacing(path) as stream:
        stream.write(b"half")
        raise RuntimeError("disk")


def test_a_table_begins_with_the_mark_that_spreadsheets_need(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", ["patient"], [["Müller"]])
    assert path.read_bytes() == "\ufeffpatient\nMüller\n".encode()


def test_folders_are_made(tmp_path: Path) -> None:
    assert write_text(tmp_path / "x" / "y" / "a.txt", "ä").read_bytes() == "ä".encode()


@given(st.text(max_size=20) | st.text(st.sampled_from("x'=@－;|,\t\r\n"), max_size=12))
def test_quoting_is_undone_and_no_part_starts_a_formula(text: str) -> None:
    quoted = quote_formula(text)
    assert unquote_formula(quoted) == text
    assert not quoted.startswith(("\t", "\r", "\n"))
    for part in re.split(r"[;|\t\r\n]", quoted):
        assert not part.startswith(tuple("=+-@＝＋－＠"))


@pytest.mark.parametrize(
    ("text", "quoted"),
    [("=1", "'=1"), ("x;=cmd", "x;'=cmd"), ("＝1", "'＝1"), ("a|＠b", "a|'＠b"),
     ("a\n+1", "a\n'+1"), ("\t=1", "'\t'=1"), ("a\n\nb", "a\n\nb"), ("a; -b", "a; -b"),
     ("t(15;17)", "t(15;17)"), ("47,XX,+8", "47,XX,+8")],
)  # fmt: skip
def test_formulas_get_an_apostrophe_and_other_texts_stay(text: str, quoted: str) -> None:
    assert quote_formula(text) == quoted


NAMES = st.text(st.sampled_from("a\\ud89cf0\ud800\udcff\udfff"), max_size=14)


@given(NAMES | st.text(st.characters(), max_size=20))
def test_a_name_that_is_not_utf8_is_spelt_out_and_comes_back(text: str) -> None:
    spelt = spelt_out(text)
    assert spelt.encode("utf-8").decode("utf-8") == spelt
    assert as_named(spelt) == text


@pytest.mark.parametrize("name", ["M\u00fcller", "a\\b", "C:\\users\\udo", "\\", ""])
def test_ordinary_names_stay(name: str) -> None:
    assert spelt_out(name) == name


def test_tables_and_texts_hold_any_name(tmp_path: Path) -> None:
    name = os.fsdecode(b"M\xfcller")
    path = write_csv(tmp_path / "t.csv", [name], [[name], ["=" + name]])
    assert list(read_csv(path)) == [{name: name}, {name: f"={name}"}]
    assert b"M\\udcfcller" in path.read_bytes()
    text = write_text(tmp_path / "t.json", json.dumps([name], ensure_ascii=False))
    assert json.loads(text.read_text(encoding="utf-8")) == [name]


@given(st.text(max_size=80), st.text(max_size=80))
def test_two_names_never_share_a_file(first: str, second: str) -> None:
    if first != second:
        assert safe_id(first).lower() != safe_id(second).lower()
    assert "/" not in safe_id(first)
    assert not safe_id(first).startswith(".")
    assert len(safe_id(first)) <= 64


def test_a_table_reads_back(tmp_path: Path) -> None:
    rows = [["=1+1", 1, 0.1, None, True], ["a\rb", 1, 0.5, "\r", False]]
    path = write_csv(tmp_path / "t.csv", ["a", "b", "c", "d", "e"], rows)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        header, row, odd = csv.reader(stream)
    assert header == ["a", "b", "c", "d", "e"]
    assert row == ["'=1+1", "1", "0.1", "", "1"]
    assert float(row[2]) == 0.1
    assert odd == ["a\rb", "1", "0.5", "'\r", "0"]


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with (
        pytest.raises(OSError, match=r"No space left on device.*a\.txt") as caught,
        replacing(path),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(path)


def test_an_error_of_our_own_keeps_its_words(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"^no such thing$"), replacing(tmp_path / "a"):
        raise MissingFileError("no such thing")


HOLDER = """
import sys
from pathlib import Path
from millie.files import held
with held(Path(sys.argv[1]), Path("out")):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_of_two_processes_the_second_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "a" / "lock"
    words = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(words, stdin=-1, stdout=-1, text=True) as other:  # noqa: S603
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        told = rf"^out is in use: millie \(process {other.pid} on {platform.node()}\) has been "
        with pytest.raises(BusyError, match=told), held(lock, Path("out")):
            pass
        other.kill()
    assert lock.is_file()
    with held(lock, Path("out")):
        assert lock.read_text(encoding="utf-8").endswith(f"~{os.getpid()}")
    assert not lock.exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_lock_is_let_go_on_error(error: type[BaseException], tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with pytest.raises(error), held(lock, tmp_path):
        raise error
    assert not lock.exists()
    with held(lock, tmp_path), pytest.raises(BusyError), held(lock, tmp_path):
        pass


def test_the_lock_of_another_machine_is_taken_over_after_a_day(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("elsewhere~1")
    with pytest.raises(BusyError, match=rf"process 1 on elsewhere.* delete {lock}$"):  # noqa: SIM117
        with held(lock, tmp_path):
            pass
    yesterday = time.time() - 25 * 3600
    os.utime(lock, (yesterday, yesterday))
    with held(lock, tmp_path):
        assert "elsewhere" not in lock.read_text(encoding="utf-8")


def test_without_locks_of_the_file_system_the_name_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_lock", lambda _: False)
    lock = tmp_path / "lock"
    with held(lock, tmp_path), pytest.raises(BusyError), held(lock, tmp_path):
        pass
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    lock.write_text(f"{files._host()}~{ended.pid}")
    with held(lock, tmp_path):
        pass


@pytest.mark.parametrize("owner", ["", "~", "1", None])
def test_what_stands_in_a_lock_that_is_held_opens_it_to_nobody(
    owner: str | None, tmp_path: Path
) -> None:
    lock = tmp_path / "lock"
    with held(lock, tmp_path):
        lock.write_text(f"{files._host()}~{2**22 + 1}" if owner is None else owner)
        with pytest.raises(BusyError), held(lock, tmp_path):
            pass


def test_a_process_that_got_the_number_of_a_killed_one_holds_no_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text(f"{files._host()}~{os.getppid()}")
    with held(lock, tmp_path):
        assert lock.read_text() == f"{files._host()}~{os.getpid()}"


@pytest.mark.parametrize("made_anew", [False, True])
def test_a_lock_that_its_last_holder_removes_meanwhile_is_not_held(
    made_anew: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, lock_file = tmp_path / "lock", files._lock

    def removed_first(descriptor: int) -> bool:
        monkeypatch.setattr(files, "_lock", lock_file)
        lock.unlink()
        if made_anew:
            lock.touch()
        return lock_file(descriptor)

    monkeypatch.setattr(files, "_lock", removed_first)
    with held(lock, tmp_path), pytest.raises(BusyError), held(lock, tmp_path):
        pass


def test_other_parts_have_other_digests() -> None:
    digests = {
        code_digest("pipeline/patient.py"),
        code_digest("segmentation"),
        code_digest("types.py"),
    }
    assert len(digests) == 3
    assert all(len(digest) == 64 for digest in digests)


def test_the_order_of_parts_does_not_matter() -> None:
    assert code_digest("pipeline/patient.py", "readers") == code_digest(
        "readers", "pipeline/patient.py"
    )


def test_a_part_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        code_digest("nowhere")


@pytest.mark.parametrize(
    "name",
    ["segmentation/instances.py", "segmentation/leukocytes.safetensors"],
)
def test_weights_count_as_code_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "millie"
    shutil.copytree(Path(files.__file__).parent / "segmentation", copy / "segmentation")
    monkeypatch.setattr(files.resources, "files", lambda _: copy)
    before = code_digest.__wrapped__("segmentation")
    assert before == code_digest.__wrapped__("segmentation")
    (copy / name).write_bytes((copy / name).read_bytes() + b"\n")
    assert before != code_digest.__wrapped__("segmentation")
