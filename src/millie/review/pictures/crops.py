"""Crops of cells as JPEG, out of the bag that the prediction was made on.

A crop of an analysis never changes, so a browser may keep it; nothing is stored here. The last few
bags stay open: opening one costs ten times as much as reading a crop.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg

from millie.bags.store import BagReader, Store
from millie.outputs.patient.tables import read_predictions

if TYPE_CHECKING:
    from pathlib import Path

_QUALITY = 90
_OPEN_BAGS = 8


def crop_jpeg(folder: Path, index: int) -> bytes:
    """One crop with its colours at full resolution, for stain is what a reader looks at.

    Args:
        folder: of the run.
        index: of the cell in the bag.

    Raises:
        IndexError: there is no such cell.
        DataError, MissingFileError: the run or its bag is damaged or gone.
    """
    pixels = np.ascontiguousarray(open_bag(folder).image(index))
    encoded: bytes = simplejpeg.encode_jpeg(
        pixels, quality=_QUALITY, colorspace="RGB", colorsubsampling="444"
    )
    return encoded


def open_bag(folder: Path) -> BagReader:
    """The bag of the one patient of a run; stays open, and is shared by threads."""
    written = (folder / "predictions.json").stat().st_mtime_ns
    return _bag(folder, written)


@lru_cache(maxsize=_OPEN_BAGS)
def _bag(folder: Path, written: int) -> BagReader:  # noqa: ARG001 - a newer run is another bag
    run = read_predictions(folder)
    # Only the head is compared with its digest: the worker has verified the bag as a whole.
    return BagReader(Store(run.store).path_of(run.patients[0].patient), verify=False)
