"""Before and after: the strips show what the fold did, to cells of its test part."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from millie.bags.store import BagMeta, CellCrop, Store, write_bag
from millie.outputs.study.colour_pictures import colour_strips
from millie.segmentation.colour import fit
from millie.types import Cell, ImageKind, Patient, SourceRecord

COLOURS = {"A": (220, 200, 190), "B": (190, 205, 225)}


def crop(source: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noisy = rng.normal(COLOURS[source], 12, (32, 32, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, Store]:
    """Two patients of each source, one of each tested; statistics of the other one."""
    store = Store(tmp_path / "store")
    sources = {f"{s}{i}": s for s in "AB" for i in range(2)}
    for number, (patient, source) in enumerate(sources.items()):
        cells = [
            CellCrop(Cell(0, 1.0, 1.0, 0, 0, 8, 8, 9.0), crop(source, 10 * number + i),
                     np.ones((32, 32), np.uint8))
            for i in range(5)
        ]  # fmt: skip
        record = SourceRecord("f.png", f"{number:064x}", ImageKind.FIELD, 0.1, 99, 99, "", {})
        meta = BagMeta(32, 25.0, 25 / 32, "d" * 64)
        write_bag(
            store.path_of(patient), Patient(patient, "AML", ()), iter(cells), [record], meta, []
        )
    statistics = {s: fit(crop(s, 100 + i) for i in range(4)).to_dict() for s in "AB"}
    folds = [{"repeat": 0, "fold": 0, "target": "A", "statistics": statistics}]
    (tmp_path / "colours.json").write_text(json.dumps({"sources": sources, "folds": folds}))
    (tmp_path / "splits.json").write_text(json.dumps({"assignments": [{"test": ["A1", "B1"]}]}))
    return tmp_path, store


def mean_of(path: Path) -> np.ndarray:
    """Mean colour of the first cell; strips have white between small cells."""
    return np.asarray(Image.open(path))[8:24, 8:24].reshape(-1, 3).mean(axis=0)


def test_after_has_the_colours_of_the_target(study: tuple[Path, Store]) -> None:
    folder, store = study
    target, other = colour_strips(folder, store, folder / "figures")
    assert (target.source, target.is_target, target.after) == ("A", True, "")
    assert (other.source, other.is_target) == ("B", False)
    assert target.distance == (0, 0, 0)
    assert max(map(abs, other.distance)) > 0.005
    named = {p.name.split(".")[0]: mean_of(p) for p in (folder / "figures").iterdir()}
    assert set(named) == {"colours_A_before", "colours_B_before", "colours_B_after"}
    before, after = (
        np.abs(named[f"colours_B_{when}"] - named["colours_A_before"]).max()
        for when in ("before", "after")
    )
    assert before > 20
    assert after < 5


def test_nothing_without_transfer_or_store(study: tuple[Path, Store], tmp_path: Path) -> None:
    folder, store = study
    assert colour_strips(folder, None, tmp_path) == ()
    (folder / "colours.json").unlink()
    assert colour_strips(folder, store, tmp_path) == ()


def test_a_patient_whose_bag_is_gone_is_left_out(study: tuple[Path, Store]) -> None:
    folder, store = study
    store.path_of("B1").unlink()
    assert [s.source for s in colour_strips(folder, store, folder / "figures")] == ["A"]
