from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millie.bags.files import (
    check_seal,
    new_file,
    open_file,
    read_seal,
    write_text,
)
from millie.errors import ConfigError, MissingFileError, StoreError
from millie.files import remove_stale, safe_id

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=80)


@given(ANY_TEXT)
@example("../../etc/passwd")
@example("")
@example("con")
@example("a\0b")
@example("\udce9")
def test_safe_id_is_a_plain_file_name(patient: str) -> None:
    name = safe_id(patient)
    assert name.isascii()
    assert 1 <= len(name) <= 64
    assert not name.startswith(".")
    assert not set(name) & set('/\\:*?"<>|~ \0\n')
    assert name.casefold().split(".")[0] not in {"con", "nul", "aux", "prn", "com1"} or "." in name


@given(ANY_TEXT, ANY_TEXT)
@example("Patient_1", "patient_1")
@example("a/b", "a_b")
@example("a b", "a?b")
@example("é", unicodedata.normalize("NFD", "é"))
@example("A", safe_id("A"))
@example("A", safe_id("A").lower())
@example("x" * 64, "x" * 65)
def test_safe_ids_never_collide(one: str, other: str) -> None:
    assert (safe_id(one).casefold() == safe_id(other).casefold()) == (one == other)


def test_safe_id_stays_readable() -> None:
    assert safe_id("patient_017") == "patient_017"
    assert safe_id("Patient_17").startswith("Patient_17.")
    assert safe_id("Müller, A.").startswith("M_ller_A.")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_and_fail(path: Path, error: Exception) -> None:
    with new_file(path) as new:
        new.hdf["numbers"] = 5
        raise error


def write_numbers(path: Path, values: object = (1, 2, 3)) -> None:
    with new_file(path) as new:
        new.hdf["numbers"] = np.asarray(values)


def test_a_new_file_is_whole_and_plain_hdf5(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.h5"
    write_numbers(path)
    assert check_seal(path) == read_seal(path)
    with h5py.File(path, "r") as file:  # other software reads it without knowing of seals
        assert file["numbers"][:].tolist() == [1, 2, 3]
    assert names_in(path.parent) == ["a.h5"]


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    write_numbers(tmp_path / "a.h5")
    write_numbers(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_failing_body_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_numbers(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="mine"):
        write_and_fail(path, ConfigError("mine"))
    assert path.read_bytes() == before
    assert names_in(tmp_path) == ["a.h5"]


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_numbers(path, np.arange(500))
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for bit in rng.integers(0, len(good) * 8, 1000):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bad)
        with pytest.raises(StoreError, match="delete it"):
            check_seal(path)


@pytest.mark.parametrize("keep", [0, 1, 511, 512, 600, -1])
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.h5"
    write_numbers(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StoreError, match="delete it"):
        open_file(path)


def test_a_plain_hdf5_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(StoreError, match="no valid seal"):
        open_file(tmp_path / "a.h5")
    with pytest.raises(MissingFileError, match="does not exist"):
        open_file(tmp_path / "b.h5")


def test_unchecked_opening_of_damage_never_crashes(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_numbers(path, np.arange(50))
    good = path.read_bytes()
    rng = np.random.default_rng(1)
    opened = refused = 0
    for bit in rng.integers(512 * 8, len(good) * 8, 200):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bad)
        try:
            open_file(path, verify=False).close()
            opened += 1
        except StoreError:
            refused += 1
    assert opened + refused == 200
    assert opened
    assert refused


def test_leftovers_of_dead_processes_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    write_numbers(tmp_path / "a.h5")
    with new_file(tmp_path / "b.h5") as new:
        new.hdf["x"] = 1
        (living,) = tmp_path.glob("b.h5~*.tmp")
        host = living.name.split("~")[1]
        dead_process = subprocess.Popen([sys.executable, "-c", ""])
        dead_process.wait()
        dead = tmp_path / f"a.h5~{host}~{dead_process.pid}~00000000.tmp"
        elsewhere = tmp_path / "a.h5~other-host~1~00000000.tmp"
        long_ago = tmp_path / "a.h5~other-host~2~00000000.tmp"
        for path in (dead, elsewhere, long_ago):
            path.write_bytes(b"")
        os.utime(long_ago, (0, 0))
        assert remove_stale(tmp_path, "z.h5") == []
        assert set(remove_stale(tmp_path)) == {dead, long_ago}
        assert living.exists()
        assert elsewhere.exists()


DISK_FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from millie.bags.files import check_seal, new_file, write_text
from millie.errors import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1]) / "a.h5"
ends = set()
for limit in range(0, 60_000, 1_500):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with new_file(path) as new:
            data = new.hdf.create_dataset("x", (0,), np.int64, maxshape=(None,), chunks=(256,))
            for start in range(0, 4096, 512):
                data.resize(start + 512, axis=0)
                data[start:] = np.arange(512)
                new.check()
        check_seal(path)
        path.unlink()
        ends.add("written")
    except StoreError as error:
        assert "cannot write" in str(error) and "free space" in str(error), error
        ends.add("refused")
    assert not list(path.parent.iterdir()), limit
resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
try:
    write_text(path, "x" * 100)
except StoreError:
    ends.add("text refused")
assert not list(path.parent.iterdir())
print(sorted(ends))
"""


def test_a_full_disk_is_a_clean_error_at_every_write(tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", DISK_FULL, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['refused', 'text refused', 'written']"
    assert done.stderr == ""


def test_text_is_written_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.json", "é\n")
    assert (tmp_path / "new" / "a.json").read_bytes() == "é\n".encode()
    assert names_in(tmp_path / "new") == ["a.json"]
