from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millie.bags.bag_writer import CellCrop, write_bag
from millie.bags.bagfile import BagMeta, BagReader
from millie.bags.files import check_seal, new_file
from millie.errors import ConfigError, MissingFileError, StoreError
from millie.types import Cell, ImageKind, Patient, Problem, SourceRecord

Crops = Callable[..., list[CellCrop]]
Add = Callable[..., Path]

FINITE = st.floats(allow_nan=False, allow_infinity=False)
INT = st.integers(-(2**31), 2**31 - 1)
CELLS = st.builds(
    Cell,
    source=st.just(0), x_px=FINITE, y_px=FINITE, left_px=INT, top_px=INT, width_px=INT,
    height_px=INT, area_px=FINITE, area_um2=st.none() | FINITE, quality=st.floats(0, 1),
    at_border=st.booleans(), in_clump=st.booleans(), smudge=st.booleans(),
    label=st.none() | st.text(),
)  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 130])
def test_what_was_written_is_read(
    add: Add, crops: Crops, meta: BagMeta, tmp_path: Path, count: int
) -> None:
    with BagReader(add("Pat 1", count)) as bag:
        expected = crops(count)
        assert (bag.patient_id, bag.label, bag.n_cells) == ("Pat 1", "APL", count)
        assert bag.meta == meta
        assert bag.cells == [crop.cell for crop in expected]
        images, masks = bag.images(0, count), bag.masks(0, count)
        assert images.shape == (count, 16, 16, 3)
        assert masks.shape == (count, 16, 16)
        for crop, image, mask in zip(expected, images, masks, strict=True):
            np.testing.assert_array_equal(image, crop.image)
            np.testing.assert_array_equal(mask, crop.mask)
        assert bag.coordinates().tolist() == [[c.cell.x_px, c.cell.y_px] for c in expected]


def test_provenance_is_read_back(tmp_path: Path, crops: Crops, meta: BagMeta) -> None:
    patient = Patient("p\0\udce9", None, (), "site", "MGG", "scanner", "train", 61.5, "f")
    sources = [
        SourceRecord("ä.png", "00", ImageKind.FIELD, None, 10, 20, "/x", {"reasons": ["a", "b"]}),
        SourceRecord("b.png", "01", ImageKind.CELL, 0.1, 1, 2),
    ]
    problem = Problem("p", "c.jpg", "ImageError", "cut short", fatal=False)
    meta = dataclasses.replace(meta, um_px=None, problems=(problem,))
    later = Problem("p", "d.jpg", "ImageError", "empty", note=True)
    write_bag(tmp_path / "a.h5", patient, crops(2), sources, meta, [later])
    with BagReader(tmp_path / "a.h5") as bag:
        assert bag.patient == patient
        assert bag.sources == tuple(sources)
        assert bag.meta == dataclasses.replace(meta, problems=(problem, later))
        assert len(bag.sha256) == 64


@settings(max_examples=30, deadline=None)
@given(st.lists(CELLS, max_size=5))
def test_every_field_of_a_cell_survives(
    tmp_path_factory: pytest.TempPathFactory, cells: list[Cell]
) -> None:
    path = tmp_path_factory.mktemp("bag") / "a.h5"
    blank = (np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8))
    source = SourceRecord("a", "", ImageKind.CELL, None, 1, 1)
    crops = [CellCrop(cell, *blank) for cell in cells]
    write_bag(path, Patient("p", None, ()), crops, [source], BagMeta(16, 0, None, "d"))
    with BagReader(path) as bag:
        assert bag.cells == cells


def test_any_part_equals_the_whole(add: Add) -> None:
    with BagReader(add("p", 10)) as bag:
        whole = bag.images(0, 10)
        for start, stop in [(0, 3), (3, 10), (9, 10), (5, 99), (4, 4), (7, 2)]:
            np.testing.assert_array_equal(bag.images(start, stop), whole[start:stop])
            assert len(bag.masks(start, stop)) == len(whole[start:stop])
        np.testing.assert_array_equal(bag.image(7), whole[7])
        with pytest.raises(IndexError, match="cell 10 of a bag with 10"):
            bag.image(10)


def test_sources_may_grow_while_cells_are_cut(tmp_path: Path, crops: Crops, meta: BagMeta) -> None:
    sources: list[SourceRecord] = []

    def cut() -> Iterator[CellCrop]:
        for i, crop in enumerate(crops(3)):
            sources.append(SourceRecord(str(i), "", ImageKind.CELL, None, 1, 1))
            yield dataclasses.replace(crop, cell=dataclasses.replace(crop.cell, source=i))

    write_bag(tmp_path / "a.h5", Patient("p", None, ()), cut(), sources, meta)
    with BagReader(tmp_path / "a.h5") as bag:
        assert [bag.sources[cell.source].name for cell in bag.cells] == ["0", "1", "2"]


def test_wrong_crops_are_refused_and_leave_nothing(
    tmp_path: Path, crops: Crops, meta: BagMeta
) -> None:
    patient = Patient("p", None, ())
    source = [SourceRecord("a", "", ImageKind.CELL, None, 1, 1)]
    path = tmp_path / "a.h5"
    (good,) = crops(1)
    with pytest.raises(ConfigError, match=r"expected uint8 \(16, 16, 3\)"):
        write_bag(path, patient, crops(1, size_px=17), source, meta)
    with pytest.raises(ConfigError, match="expected 0, 1 or 2"):
        write_bag(path, patient, [dataclasses.replace(good, mask=good.mask + 9)], source, meta)
    with pytest.raises(ConfigError, match="names a source beyond the 0 given"):
        write_bag(path, patient, [good], [], meta)
    with pytest.raises(ConfigError, match="JSON"):
        write_bag(path, patient, [good], source, dataclasses.replace(meta, diagnostics={"a": path}))
    assert list(tmp_path.iterdir()) == []


def test_another_patients_bag_is_never_written_over(add: Add, crops: Crops, meta: BagMeta) -> None:
    path = add("p")
    with pytest.raises(StoreError, match="holds the bag of patient 'p', not of 'q'"):
        write_bag(path, Patient("q", None, ()), [], [], meta)
    add("p", 5)
    with BagReader(path) as bag:
        assert bag.n_cells == 5


def test_bags_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with new_file(tmp_path / "a.h5") as new:
        new.hdf["x"] = 1
    with pytest.raises(StoreError, match="not a bag"):
        BagReader(tmp_path / "a.h5")
    with new_file(tmp_path / "b.h5") as new:
        new.hdf["cells/table"] = 1
        new.hdf.attrs["schema"] = 99
    with pytest.raises(StoreError, match="schema 99, this version reads 2"):
        BagReader(tmp_path / "b.h5")
    with pytest.raises(MissingFileError, match="does not exist"):
        BagReader(tmp_path / "c.h5")


def test_an_unfinished_bag_is_refused(tmp_path: Path) -> None:
    with new_file(tmp_path / "a.h5") as new:
        new.hdf["x"] = 1
    data = (tmp_path / "a.h5").read_bytes()
    with h5py.File(tmp_path / "b.h5", "w", userblock_size=512) as file:
        file["x"] = 1
    (tmp_path / "b.h5").write_bytes(data[:512] + (tmp_path / "b.h5").read_bytes()[512:])
    with pytest.raises(StoreError, match="changed since"):
        BagReader(tmp_path / "b.h5")
    with pytest.raises(StoreError, match="unfinished"):
        BagReader(tmp_path / "b.h5", verify=False)


def test_damage_is_refused_and_unverified_gives_no_other_error(add: Add) -> None:
    path = add("p", 4)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for bit in rng.integers(512 * 8, len(good) * 8, 150):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bad)
        with pytest.raises(StoreError, match="changed since"):
            BagReader(path)
        with suppress(StoreError), BagReader(path, verify=False) as bag:
            _ = bag.cells, bag.sources
            bag.images(0, 4)
            bag.masks(0, 4)


def test_a_stream_of_cells_is_written_in_constant_memory(tmp_path: Path, meta: BagMeta) -> None:
    cell = Cell(0, 1, 2, 3, 4, 5, 6, 7)
    meta = dataclasses.replace(meta, size_px=64)
    source = SourceRecord("a", "", ImageKind.CELL, None, 1, 1)

    def peak(count: int) -> int:
        rng = np.random.default_rng(0)
        mask = np.ones((64, 64), np.uint8)
        stream = (
            CellCrop(cell, rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), mask)
            for _ in range(count)
        )
        tracemalloc.start()
        write_bag(tmp_path / f"{count}.h5", Patient("p", None, ()), stream, [source], meta)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(64)
    assert peak(640) < 1.3 * peak(128)


WRITER = """
import sys
from pathlib import Path
import numpy as np
from millie.bags.store import BagMeta, CellCrop, Store, write_bag
from millie.types import Cell, ImageKind, Patient, SourceRecord
store, first = Store(Path(sys.argv[1])), int(sys.argv[2])
rng = np.random.default_rng(0)
image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
crop = CellCrop(Cell(0, 1, 2, 3, 4, 5, 6, 7), image, np.ones((64, 64), np.uint8))
source = SourceRecord("a", "", ImageKind.CELL, None, 1, 1)
print("ready", flush=True)
for i in range(first, 10_000):
    patient = f"p{i}"
    write_bag(store.path_of(patient), Patient(patient, None, ()), [crop] * 200, [source],
              BagMeta(64, 0, None, "d"))
    print(i, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_writer_leaves_no_half_bag(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = 0
    for _ in range(4):
        writer = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", WRITER, str(tmp_path), str(first)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, 0.4))
        writer.kill()
        lines = writer.communicate()[0].split()
        first = int(lines[-1]) + 1 if lines else first
        for i in range(first):
            with BagReader(tmp_path / f"p{i}.h5") as bag:
                assert bag.n_cells == 200
    for path in tmp_path.glob("*.h5"):
        check_seal(path)
