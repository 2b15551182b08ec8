"""Copies of cells: found however they were encoded, sized and turned; other cells never taken."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from millie.bags.copies import KnownCells, shared_between
from millie.bags.fingerprints import RADIUS, fingerprint, same_picture
from millie.bags.store import BagMeta, CellCrop, Store, write_bag
from millie.synthetic import CellType, draw_cell
from millie.types import Cell, ImageKind, Patient, SourceRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from millie.bags.fingerprints import Fingerprint
    from millie.synthetic import SyntheticField

    Picture = tuple[np.ndarray, np.ndarray]

SIDE_PX = 224
KINDS = (CellType.MYELOBLAST, CellType.LYMPHOCYTE, CellType.MONOCYTE, CellType.PROMYELOCYTE)


@cache
def film(seed: int) -> SyntheticField:
    """A crop of one drawn cell."""
    rng = np.random.default_rng(seed)
    return draw_cell(KINDS[seed % len(KINDS)], 25 / SIDE_PX, SIDE_PX, rng)


def drawn(seed: int, change: Callable[[np.ndarray], np.ndarray] = lambda image: image) -> Picture:
    """The cell and its mask, changed."""
    own = np.repeat((film(seed).cell_labels > 0)[..., None] * np.uint8(255), 3, axis=2)
    return change(film(seed).image), (change(own)[..., 0] > 127).astype(np.uint8)


def known_by(picture: Picture) -> Fingerprint:
    return fingerprint(*picture)


def alike(first: Fingerprint, second: Fingerprint) -> bool:
    apart = np.linalg.norm(first.rings.astype(float) - second.rings.astype(float))
    return bool(apart <= RADIUS) and same_picture(first.picture, second.picture)


def turned(image: np.ndarray, degrees: float) -> np.ndarray:
    middle = (SIDE_PX - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), degrees, 1)
    return cv2.warpAffine(image, turn, (SIDE_PX, SIDE_PX), borderMode=cv2.BORDER_REPLICATE)


def resized(image: np.ndarray, factor: float) -> np.ndarray:
    other = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return cv2.resize(other, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda image: image,
    "jpeg": lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [1, 40])[1], 1),
    "half": lambda image: resized(image, 0.5),
    "quarter turn": lambda image: np.ascontiguousarray(np.rot90(image)),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "turned": lambda image: turned(image, 37),
    "turned a little": lambda image: turned(image, 6),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_is_known_again(change: str) -> None:
    found = [
        alike(known_by(drawn(seed)), known_by(drawn(seed, CHANGES[change]))) for seed in range(12)
    ]
    assert sum(found) >= 11


def test_other_cells_are_not_taken_for_copies() -> None:
    prints = [known_by(drawn(seed)) for seed in range(60)]
    pairs = [(i, j) for i in range(60) for j in range(i) if alike(prints[i], prints[j])]
    assert pairs == []


def test_a_picture_without_texture_is_nobodys_copy() -> None:
    blank = np.full((SIDE_PX, SIDE_PX, 3), 230, np.uint8)
    disc = cv2.circle(blank.copy(), (112, 112), 60, (120, 60, 160), -1)
    noisy = disc + np.random.default_rng(0).integers(0, 3, disc.shape, dtype=np.uint8)
    nothing = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    own = (disc[..., 0] < 200).astype(np.uint8)
    assert not alike(fingerprint(blank, nothing), fingerprint(blank, nothing))
    assert not alike(fingerprint(disc, own), fingerprint(noisy, own))


def test_known_cells_name_the_image_that_came_first() -> None:
    known = KnownCells()
    for seed in range(300):
        noise = np.random.default_rng(seed).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        one = fingerprint(noise, np.ones((48, 48), np.uint8))
        assert known.copied(one) is None
        known.add(one, f"noise {seed}")
    for seed in range(7):
        known.add(known_by(drawn(seed)), f"{seed}.png")
    assert known.copied(known_by(drawn(4, CHANGES["quarter turn"]))) == "4.png"
    assert known.copied(known_by(drawn(11))) is None


def put(store: Store, patient: str, label: str | None, images: dict[str, Picture]) -> Path:
    crops = [
        CellCrop(Cell(i, 1, 1, 0, 0, 9, 9, 50.0), *picture)
        for i, picture in enumerate(images.values())
    ]
    sources = [
        SourceRecord(name, f"{i:064x}", ImageKind.CELL, 0.1, SIDE_PX, SIDE_PX)
        for i, name in enumerate(images)
    ]
    path = store.path_of(patient)
    meta = BagMeta(SIDE_PX, 25.0, 25 / SIDE_PX, "digest")
    write_bag(path, Patient(patient, label, ()), crops, sources, meta)
    return path


@pytest.mark.parametrize(
    ("labels", "contradicts"),
    [
        (("APL", "APL"), False),
        (("APL", None), False),
        ((None, None), False),
        (("APL", "AML"), True),
    ],
)
def test_a_cell_under_two_patients_is_told_at_both(
    tmp_path: Path, labels: tuple[str | None, str | None], contradicts: bool
) -> None:
    store = Store(tmp_path)
    bags = [
        put(store, "a", labels[0], {"a1.jpg": drawn(1), "a2.jpg": drawn(2)}),
        put(store, "b", labels[1], {"b1.png": drawn(3), "b2.png": drawn(2, CHANGES["turned"])}),
        put(store, "c", "AML", {"c1.png": drawn(4)}),
        tmp_path / "gone.h5",
    ]
    (pair,) = shared_between(bags)
    assert pair.cells == ((1, 1),)
    assert pair.contradicts is contradicts
    first, second = pair.problems()
    assert (first.patient, first.source) == ("a", "a2.jpg")
    assert (second.patient, second.source) == ("b", "b2.png")
    assert {first.note, second.note} == {not contradicts}
    for problem in (first, second):
        assert "a2.jpg" in problem.message
        assert "b2.png" in problem.message


def test_patients_without_common_cells_share_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    bags = [
        put(store, p, None, {f"{i}.png": drawn(i) for i in range(8 * k, 8 * k + 8)})
        for k, p in enumerate("abc")
    ]
    assert shared_between(bags) == []
    assert shared_between(bags[:1]) == []
    assert shared_between([]) == []
