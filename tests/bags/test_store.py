from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from millie.bags.bag_writer import CellCrop, write_bag
from millie.bags.bagfile import BagMeta
from millie.bags.store import Store, read_embeddings, write_embeddings
from millie.config import Config
from millie.engines.seam import ProcessEngine, Unit
from millie.errors import MissingFileError, StoreError
from millie.types import Cell, ImageKind, Patient, Problem, SourceRecord

Add = Callable[..., Path]
CODE = "0123456789abcdef" * 4
CUT = Config().with_settings(["crops.size_px=16"])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_patients_come_in_the_order_of_their_ids(store: Store, add: Add) -> None:
    names = ["b", "Z", "a/1", "B", "10", "9"]
    paths = {name: add(name, label=None) for name in names}
    assert store.bags() == [paths[name] for name in sorted(names)]
    assert [s.patient for s in store.index()] == sorted(names)
    assert all(s.path == store.path_of(s.patient) for s in store.index())


def test_index_tells_patient_label_and_size(store: Store, add: Add) -> None:
    add("p", 7, label="AML")
    (line,) = store.index()
    assert (line.patient, line.label, line.n_cells, line.digest) == ("p", "AML", 7, "d" * 64)


def test_a_damaged_bag_is_named_and_does_not_hide_the_others(store: Store, add: Add) -> None:
    add("good")
    add("bad").write_bytes(b"no bag")
    found, problems = store.scan()
    assert [s.patient for s in found] == ["good"]
    assert [(p.source, p.error, p.fatal) for p in problems] == [("bad.h5", "StoreError", True)]
    with pytest.raises(StoreError, match=r"bad\.h5 is not a finished"):
        store.index()


@pytest.mark.parametrize("word", ['"label": "APL"', '"stain": ""', "cell 1.jpg"])
def test_a_flipped_bit_in_a_head_is_damage_and_no_other_class(
    store: Store, add: Add, word: str
) -> None:
    path = add("p")
    assert [s.label for s in store.index()] == ["APL"]
    data = path.read_bytes()
    place = data.index(word.encode()) + len(word) - 2
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    found, (problem,) = store.scan()
    assert found == []
    assert "has changed since it was written" in problem.message


def test_what_an_operating_system_left_is_no_bag(store: Store, add: Add) -> None:
    path = add("good")
    store.describe("s", CUT)
    write_embeddings(path, CODE, np.zeros((3, 2)), np.zeros((3, 2)))
    for name in ("._good.h5", ".good.h5"):
        (store.root / name).write_bytes(b"\0\5\x16\7")
        (store.root / "embeddings" / CODE[:16] / name).write_bytes(b"\0\5\x16\7")
    assert (store.bags(), store.scan()[1], store.verify()) == ([path], [], [])


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no bag store at"):
        Store(tmp_path / "nowhere").bags()
    with pytest.raises(MissingFileError, match="is not a bag store"):
        _ = Store(tmp_path).description


def test_done_means_whole_and_of_this_configuration(store: Store, add: Add) -> None:
    assert not store.is_done("p", "d" * 64)
    path = add("p")
    assert store.is_done("p", "d" * 64)
    assert not store.is_done("p", "e" * 64)
    assert not store.is_done("q", "d" * 64)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert not store.is_done("p", "d" * 64)
    path.with_name("q.h5~host~1~0.tmp").write_bytes(data)
    assert not store.is_done("q", "d" * 64)


def test_leftovers_are_ignored_and_cleaned(store: Store, add: Add) -> None:
    path = add("p")
    write_embeddings(path, CODE, np.zeros((3, 2)), np.zeros((3, 2)))
    left = [store.root / "x.h5~h~1~0.tmp", store.root / "embeddings" / CODE[:16] / "x~h~1~0.tmp"]
    for leftover in left:
        leftover.write_bytes(b"")
        os.utime(leftover, (0, 0))
    assert len(store.bags()) == 1
    assert sorted(store.clean()) == sorted(left)
    assert store.clean() == []
    assert len(store.bags()) == 1


def test_description_is_read_back(store: Store) -> None:
    config = Config().with_settings(["crops.size_px=64"])
    problem = Problem("p", "a.jpg", "ImageError", "cut short")
    store.describe("cohort", config, ("AML", "APL"), [problem])
    found = store.description
    assert (found.name, found.config, found.labels) == ("cohort", config, ("AML", "APL"))
    assert found.problems == (problem,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("cohort", "c0hort"), "has changed"),
        (lambda text: text + " ", "has changed"),
        (lambda text: text[:-20], "cannot be read"),
        (lambda _: json.dumps({"sha256": "", "store": {}}), "has changed"),
        (lambda _: "[]", "cannot be read"),
    ],
)
def test_a_changed_description_is_refused(
    store: Store, change: Callable[[str], str], message: str
) -> None:
    store.describe("cohort", CUT)
    path = store.root / "store.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(StoreError, match=message):
        _ = store.description


def test_verify_finds_every_one_of_1000_flips(store: Store, add: Add) -> None:
    store.describe("cohort", CUT, ("APL",))
    for name in ("p", "q"):
        write_embeddings(add(name, 2), CODE, np.ones((2, 4)), np.ones((2, 2)))
    assert store.verify() == []
    files = {p: p.read_bytes() for p in sorted(store.root.rglob("*")) if p.is_file()}
    assert len(files) == 5
    rng = np.random.default_rng(0)
    for _ in range(200):
        for path, good in files.items():
            bad = bytearray(good)
            bit = int(rng.integers(0, len(good) * 8))
            bad[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(bad)
        found = sorted(p.source for p in store.verify())
        assert found == sorted(path.name for path in files)


def test_verify_names_a_bag_under_a_wrong_name(store: Store, add: Add) -> None:
    store.describe("cohort", CUT)
    add("p").rename(store.root / "q.h5")
    (problem,) = store.verify()
    assert (problem.patient, problem.source) == ("p", "q.h5")
    assert "rename it to p.h5" in problem.message


def test_embeddings_are_read_back_as_float16(add: Add) -> None:
    path = add("p", 3)
    features = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    assert read_embeddings(path, CODE) is None
    write_embeddings(path, CODE, features, np.zeros((3, 2)))
    found = read_embeddings(path, CODE)
    assert found is not None
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, features.astype(np.float16))
    assert read_embeddings(path, CODE[:16] + "0" * 48) is None


def test_embeddings_of_a_bag_cut_anew_are_a_miss(add: Add) -> None:
    path = add("p", 3)
    write_embeddings(path, CODE, np.zeros((3, 5)), np.zeros((3, 2)))
    add("p", 3)
    assert read_embeddings(path, CODE) is not None, "equal content keeps its cache"
    add("p", 3, seed=1)
    assert read_embeddings(path, CODE) is None


def test_damaged_embeddings_are_a_miss(add: Add) -> None:
    path = add("p", 3)
    cache = write_embeddings(path, CODE, np.zeros((3, 5)), np.zeros((3, 2)))
    data = bytearray(cache.read_bytes())
    data[-1] ^= 1
    cache.write_bytes(data)
    assert read_embeddings(path, CODE) is None


@pytest.mark.parametrize(
    ("digest", "features", "coords", "message"),
    [
        ("../../x", np.zeros((3, 5)), np.zeros((3, 2)), "hexadecimal"),
        (CODE, np.zeros(3), np.zeros((3, 2)), r"expected \(N, D\)"),
        (CODE, np.zeros((3, 5)), np.zeros((2, 2)), r"expected \(N, D\)"),
        (CODE, np.full((3, 5), 1e6), np.zeros((3, 2)), "not finite"),
        (CODE, np.full((3, 5), np.nan), np.zeros((3, 2)), "not finite"),
    ],
)
def test_wrong_embeddings_are_refused(
    add: Add, digest: str, features: np.ndarray, coords: np.ndarray, message: str
) -> None:
    path = add("p", 3)
    with pytest.raises(ValueError, match=message):
        write_embeddings(path, digest, features, coords)


def write_same_patient(payload: tuple[Path, int]) -> dict[str, object]:
    root, _ = payload
    blank = CellCrop(
        Cell(0, 1, 2, 3, 4, 5, 6, 7), np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8)
    )
    source = SourceRecord("a", "", ImageKind.CELL, None, 1, 1)
    for _ in range(10):
        write_bag(
            Store(root).path_of("p"), Patient("p", None, ()), [blank] * 20, [source],
            BagMeta(16, 0, None, "d"),
        )  # fmt: skip
    return {}


def test_workers_on_the_same_patient_leave_one_whole_bag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # spawned workers inherit the path and import this module by its name under the root
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2]), *sys.path])
    units = [Unit(str(i), (tmp_path, i)) for i in range(4)]
    outcomes = list(ProcessEngine(2).map(write_same_patient, units))
    assert [o.status for o in outcomes] == ["done"] * 4, outcomes
    assert [p.name for p in tmp_path.iterdir()] == ["p.h5"]
    assert Store(tmp_path).is_done("p", "d")


def test_meta_is_part_of_done(store: Store, add: Add, meta: BagMeta) -> None:
    path = add("p")
    other = dataclasses.replace(meta, digest="f" * 64)
    write_bag(path, Patient("p", None, ()), [], [], other)
    assert store.is_done("p", "f" * 64)
    assert not store.is_done("p", "d" * 64)
