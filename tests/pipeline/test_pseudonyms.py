"""Names planted wherever files can carry them: with pseudonyms, none is in any byte of a result."""

from __future__ import annotations

import csv
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import pytest
from PIL import Image

from millie import pipeline
from millie.bags.store import BagReader, Store
from millie.config import Config
from millie.errors import BusyError, ConfigError
from millie.files import held
from millie.pipeline.pseudonyms import pseudonymised
from millie.types import Cohort, ImageSource, Patient, Problem

UM_PX = ["segmentation.um_px=0.12"]
CANARY = "Kanari"
"""In each planted name."""


@pytest.fixture
def planted(films: Path, tmp_path: Path) -> Path:
    """A manifest of two patients, with a canary wherever a name can stand."""
    folder = tmp_path / f"{CANARY}ward"
    rows = [["patient", "label", "path", "name"]]
    for number, patient in enumerate(pipeline.read_cohort([films]).patients[:2]):
        own = folder / f"{CANARY}{number} Anna Müller"
        own.mkdir(parents=True)
        exif = Image.Exif()
        exif[0x010E] = f"{CANARY} in EXIF"
        with Image.open(patient.images[0].path) as image:
            image.save(own / f"{CANARY}_{number}.jpg", quality=95, exif=exif, comment=CANARY)
        (own / f"{CANARY} torn.jpg").write_bytes(b"no image")
        (own / f"{CANARY}.svs").write_bytes(b"slide")
        rows += [[f"{CANARY}, Anna {number}", "", own.name, ""]]
    rows += [[f"{CANARY}, Anna 0", "", f"{CANARY} lost.jpg", ""]]
    rows += [[f"{CANARY}, Berta", "", f"{CANARY} gone.jpg", f"{CANARY} as shown"]]
    with (folder / f"{CANARY}.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder / f"{CANARY}.csv"


def texts(folder: Path) -> Iterator[bytes]:
    """Every name below a folder, every byte, and what HDF5 files keep in compressed form."""
    for path in folder.rglob("*"):
        yield path.relative_to(folder).as_posix().encode()
        if path.is_file():
            yield path.read_bytes()
        if path.suffix == ".h5":
            with h5py.File(path) as file:
                yield from (repr(value).encode() for value in file.attrs.values())
                found: list[bytes] = []
                file.visititems(
                    lambda _, one, found=found: (
                        found.append(one[()].tobytes()) if isinstance(one, h5py.Dataset) else None
                    )
                )
                yield from found


def leaks(folder: Path) -> list[bytes]:
    return [text[:80] for text in texts(folder) if CANARY.lower().encode() in text.lower()]


def linked(table: Path) -> dict[str, str]:
    """Pseudonyms of patients and images by name."""
    with table.open(encoding="utf-8-sig", newline="") as stream:
        return {r["name"]: r["pseudonym"] for r in csv.DictReader(stream) if r["kind"] != "problem"}


def test_no_name_is_in_any_result_and_all_are_in_the_table(
    bundle: Path, planted: Path, tiny_config: Config, tmp_path: Path
) -> None:
    table = tmp_path / "apart" / "names.csv"
    config = tiny_config.with_settings(UM_PX)
    cut = pipeline.segment(planted, tmp_path / "store", config, pseudonyms=table)
    called = pipeline.predict(bundle, planted, tmp_path / "calls", settings=UM_PX, pseudonyms=table)
    again = pipeline.predict(bundle, tmp_path / "store", tmp_path / "again", settings=UM_PX)
    found = pipeline.detect(
        planted.parent, tmp_path / "cells.csv", config, tmp_path / "drawn", pseudonyms=table
    )
    pipeline.segment(planted, tmp_path / "plain", config)
    assert leaks(tmp_path / "plain"), "the search finds names where they are"
    for name in ("store", "calls", "again", "drawn"):
        assert list(texts(tmp_path / name))
        assert not leaks(tmp_path / name), name
    assert CANARY not in (tmp_path / "cells.csv").read_text()
    for result in (cut, called, again, found):
        assert result.failures
        assert CANARY not in str(result.to_dict()["problems"]) + str(result.rows())
    assert [p.patient for p in called.predictions] == sorted(cut.patients)
    drawn = list((tmp_path / "calls" / "overlays").glob("*/image-*.jpg"))
    assert len(drawn) == 2, "fields are found again without a path in the bag"
    text = table.read_text(encoding="utf-8-sig")
    for name in (f"{CANARY}, Anna 0", f"{CANARY}, Berta", f"{CANARY} lost.jpg", f"{CANARY}.svs"):
        assert name in text
    assert stat.S_IMODE(table.stat().st_mode) == 0o600
    assert [path.name for path in table.parent.iterdir()] == ["names.csv"]


def test_bags_without_pseudonyms_hold_no_absolute_path(
    two_folders: list[Path], tiny_config: Config, tmp_path: Path
) -> None:
    (two_folders[0] / "torn.jpg").write_bytes(b"no image")
    (two_folders[0] / "gone.jpg").symlink_to("nowhere.jpg")
    config = tiny_config.with_settings(UM_PX)
    pipeline.segment(two_folders, tmp_path / "store", config)
    with BagReader(Store(tmp_path / "store").path_of("a")) as bag:
        assert [source.name for source in bag.sources] == ["a/field.jpg"]
        assert bag.sources[0].path == "../a/field.jpg"
        assert [problem.source for problem in bag.meta.problems] == ["a/torn.jpg"]
    for path in (tmp_path / "store").glob("*.h5"):
        assert str(tmp_path).encode() not in path.read_bytes()


def test_fields_are_drawn_from_a_store_that_moved_with_its_images(
    bundle: Path, two_folders: list[Path], tiny_config: Config, tmp_path: Path
) -> None:
    pipeline.segment(two_folders, tmp_path / "store", tiny_config.with_settings(UM_PX))
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in (*two_folders, tmp_path / "store"):
        path.rename(moved / path.name)
    pipeline.predict(bundle, moved / "store", tmp_path / "calls", settings=UM_PX)
    drawn = [path.parent.name for path in (tmp_path / "calls" / "overlays").glob("*/field.jpg")]
    assert sorted(drawn) == ["a", "b"]


COHORT = Cohort(
    "films",
    (Patient("Anna", "APL", (ImageSource(Path("/x/1.jpg"), "x/1.jpg"),)),
     Patient("=cmd()", None, (ImageSource(Path("/x/\udcff.jpg"), "x/\udcff.jpg"),))),
    (Problem("Anna", "x/1.jpg", "Note", "/x/1.jpg is odd", note=True),),
)  # fmt: skip


def test_the_table_given_again_gives_the_same_pseudonyms_and_another_table_others(
    tmp_path: Path,
) -> None:
    first = pseudonymised(COHORT, tmp_path / "names.csv", [])
    names = linked(tmp_path / "names.csv")
    assert pseudonymised(COHORT, tmp_path / "names.csv", []) == first
    assert linked(tmp_path / "names.csv") == names
    other = pseudonymised(COHORT, tmp_path / "other.csv", [])
    ids = {patient.id for cohort in (first, other) for patient in cohort.patients}
    assert len(ids) == 4
    (note,) = first.problems
    assert (note.patient, note.source) == (first.patients[0].id, first.patients[0].images[0].name)
    assert "/x" not in note.message
    assert [p.images[0].path for p in first.patients] == [p.images[0].path for p in COHORT.patients]


def test_parts_of_a_cohort_that_begin_together_wait_for_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, lock = tmp_path / "names.csv", tmp_path / ".names.csv.lock"
    with ThreadPoolExecutor(4) as pool:
        with held(lock, table):
            parts = [pool.submit(pseudonymised, COHORT, table, []) for _ in range(4)]
            time.sleep(0.2)
            assert not any(part.done() for part in parts)
            assert not table.exists()
        assert len({part.result() for part in parts}) == 1
    monkeypatch.setattr("millie.pipeline.pseudonyms._WAIT_S", 0.0)
    with held(lock, table), pytest.raises(BusyError, match=r"names\.csv is in use"):
        pseudonymised(COHORT, table, [])


@pytest.mark.parametrize("place", ["out/names.csv", "out/a/../b/names.csv", "out"])
def test_a_table_among_the_results_is_refused(place: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be kept apart from"):
        pseudonymised(COHORT, tmp_path / place, [tmp_path / "out"])
    assert not (tmp_path / "out").exists()


def test_another_table_is_not_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("patient,label,path\nAnna,APL,1.jpg\n")
    with pytest.raises(ConfigError, match=r"is no table of pseudonyms .* left as it is"):
        pseudonymised(COHORT, mine, [])
    assert mine.read_text().startswith("patient,label,path")


def test_results_that_have_names_are_not_added_to(
    planted: Path, tiny_store: Path, tiny_config: Config, bundle: Path, tmp_path: Path
) -> None:
    table = tmp_path / "names.csv"
    with pytest.raises(ConfigError, match="made without pseudonyms"):
        pipeline.segment(planted, tiny_store, tiny_config, pseudonyms=table)
    with pytest.raises(ConfigError, match="keeps the names that it was cut with"):
        pipeline.predict(bundle, tiny_store, tmp_path / "calls", pseudonyms=table)
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "anna.jpg").write_bytes(b"x")
    with pytest.raises(ConfigError, match="made without pseudonyms"):
        pipeline.detect(planted.parent, None, tiny_config, tmp_path / "drawn", pseudonyms=table)
    assert not table.exists()
