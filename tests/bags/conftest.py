"""Small bags of noise for the tests of the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from millie.bags.store import BagMeta, CellCrop, Store, write_bag
from millie.types import Cell, ImageKind, Patient, SourceRecord

SIZE_PX = 16
SOURCE = SourceRecord(
    "a/cell 1.jpg", "ab" * 32, ImageKind.CELL, 0.1, 360, 363, diagnostics={"scale": "file"}
)


def noise_crops(count: int, seed: int = 0, size_px: int = SIZE_PX) -> Iterator[CellCrop]:
    rng = np.random.default_rng(seed)
    for i in range(count):
        cell = Cell(
            0, i + 0.25, i + 0.5, i, -i, 9, 8, 60.5,
            area_um2=None if i % 2 else 100.125, quality=0.75, at_border=i % 3 == 0,
            in_clump=i % 3 == 1, smudge=i % 3 == 2, label=None if i % 4 else f"type {i % 5}",
        )  # fmt: skip
        image = rng.integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
        yield CellCrop(cell, image, rng.integers(0, 3, (size_px, size_px), dtype=np.uint8))


@pytest.fixture
def crops() -> Callable[..., list[CellCrop]]:
    def make(count: int, seed: int = 0, size_px: int = SIZE_PX) -> list[CellCrop]:
        return list(noise_crops(count, seed, size_px))

    return make


@pytest.fixture
def meta() -> BagMeta:
    return BagMeta(SIZE_PX, 25.0, 0.1, "d" * 64, diagnostics={"red_cells": 12})


@pytest.fixture
def add(tmp_path: Path, meta: BagMeta) -> Callable[..., Path]:
    """Write the bag of a patient into the store at ``tmp_path / "store"``; returns its file."""

    def write(patient: str, count: int = 3, seed: int = 0, label: str | None = "APL") -> Path:
        path = Store(tmp_path / "store").path_of(patient)
        write_bag(path, Patient(patient, label, ()), noise_crops(count, seed), [SOURCE], meta)
        return path

    return write
