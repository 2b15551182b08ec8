"""Cells of other sets that the model has seen: found again, by their pictures, in its bags.

Some published sets were cut out of others (ALL-IDB2 out of ALL-IDB1), and a cell that was found
twice is not cut at the same pixel twice: the middle of one picture is looked for in the other. Owns
the search; what is done about it is the business of :mod:`millie.reproduce.cell_tests`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from millie.bags.store import BagReader, Store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Pictures = NDArray[np.float32]

SEEN = 0.99
"""Correlation from which two pictures are of one cell. Of 60 cells of ALL-IDB2, cut out of fields
of which 24 were there, nine reach 0.996 and the next 0.958; of 1,879 cells of PBC against 4,924 of
the APL set of Johns Hopkins, which share none, the highest has 0.973."""

_SIDE_PX, _WINDOW_PX, _SHIFT_PX = 24, 16, 4  # 1 px is about 1 um of a 25 um crop
_BLOCK = 1024


def seen_cells(training: Store, external: Store, patients: Iterable[str]) -> set[tuple[str, str]]:
    """Images of single cells whose cell is in the training store too.

    Args:
        training: bags of the model's patients.
        external: bags of the cells to be tested; each image holds one cell.
        patients: of the external store.

    Returns:
        (patient, name of the image).
    """
    known = _pictures(training, [bag.patient for bag in training.index()])[1]
    names, tested = _pictures(external, sorted(patients))
    highest = highest_correlations(tested, known)
    return {name for name, r in zip(names, highest, strict=True) if r >= SEEN}


def highest_correlations(tested: Pictures, known: Pictures) -> NDArray[np.float32]:
    """For each picture the highest correlation of its middle with any place near another's middle.

    Args:
        tested: (n, side, side).
        known: (m, side, side).

    Returns:
        (n,) from -1 to 1; 0 where there is nothing to compare with.
    """
    highest = np.zeros(len(tested), np.float32)
    if len(tested) == 0 or len(known) == 0:
        return highest
    middles = _windows(tested, 0, 0)
    highest -= 1
    shifts = range(-_SHIFT_PX, _SHIFT_PX + 1)
    for start in range(0, len(known), _BLOCK):
        block = known[start : start + _BLOCK]
        for down in shifts:
            for right in shifts:
                products = middles @ _windows(block, down, right).T
                highest = np.maximum(highest, products.max(axis=1))
    return highest


def _windows(pictures: Pictures, down: int, right: int) -> Pictures:
    """Windows of all pictures, (n, window * window), each of mean 0 and length 1."""
    top, left = ((_SIDE_PX - _WINDOW_PX) // 2 + shift for shift in (down, right))
    cut = pictures[:, top : top + _WINDOW_PX, left : left + _WINDOW_PX].reshape(len(pictures), -1)
    centred = cut - cut.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(length, 1e-6), np.float32)


def _pictures(store: Store, patients: Iterable[str]) -> tuple[list[tuple[str, str]], Pictures]:
    """Patient and image of each cell, and its picture: small and grey."""
    names: list[tuple[str, str]] = []
    pictures: list[NDArray[np.uint8]] = []
    for patient in patients:
        with BagReader(store.path_of(patient), verify=False) as bag:
            sources = [source.name for source in bag.sources]
            for number, cell in enumerate(bag.cells):
                grey = cv2.cvtColor(bag.image(number), cv2.COLOR_RGB2GRAY)
                small = cv2.resize(grey, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)
                pictures.append(np.asarray(small, np.uint8))
                names.append((patient, sources[cell.source]))
    empty = np.zeros((0, _SIDE_PX, _SIDE_PX), np.uint8)
    return names, np.asarray(np.stack(pictures) if pictures else empty, np.float32)
