"""Colour transfer as pictures: test cells of each source before and after, beside the target's.

Owns the choice of cells and the strips. What was done is read from ``colours.json`` of the study
(statistics of the first fold's training part) and applied to cells of that fold's test patients,
as the fold itself did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from millie.bags.store import BagReader, Store
from millie.files import safe_id, write_bytes
from millie.outputs.gallery import data_uri, jpeg_bytes, shrunk
from millie.outputs.tables import read_json
from millie.segmentation.colour import ColourStatistics, transfer

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FILE = "colours.json"
_CELLS = 8
_SIDE_PX, _GAP_PX = 84, 3


@dataclass(frozen=True, slots=True)
class ColourStrip:
    """Cells of one source.

    Attributes:
        source: its name.
        is_target: its colours are those that all get.
        before: cells as they were cut, side by side, as a data URI.
        after: the same cells as the networks saw them; empty for the target.
        distance: of its mean colour from the target's, log10 units (l, alpha, beta), as measured
            on the training part.
    """

    source: str
    is_target: bool
    before: str
    after: str
    distance: tuple[float, float, float]


def colour_strips(folder: Path, store: Store | None, figures: Path) -> tuple[ColourStrip, ...]:
    """Strips of all sources, the target first; empty where no colours were transferred.

    Each strip is also written as a JPEG beside the figures of the study.

    Raises:
        DataError: ``colours.json`` or a bag is damaged.
        ConfigError: its statistics are none.
    """
    path = folder / _FILE
    if store is None or not path.is_file():
        return ()
    content = read_json(path)
    first = content["folds"][0]
    tested = _first_test(folder)
    statistics = {
        name: ColourStatistics.from_dict(values) for name, values in first["statistics"].items()
    }
    target = str(first["target"])
    order = sorted(statistics, key=lambda name: (name != target, name))
    strips = []
    for name in order:
        crops = _crops(store, _patients(content["sources"], name, tested))
        if crops:
            strips.append(_strip(name, target, statistics, crops, figures))
    return tuple(strips)


def _first_test(folder: Path) -> set[str]:
    return set(read_json(folder / "splits.json")["assignments"][0]["test"])


def _patients(sources: Mapping[str, Any], name: str, tested: set[str]) -> list[str]:
    """Patients of a source, those of the test part if there are any."""
    own = sorted(patient for patient, source in sources.items() if source == name)
    return [patient for patient in own if patient in tested] or own


def _crops(store: Store, patients: Sequence[str]) -> list[NDArray[np.uint8]]:
    """Cells evenly over the patients' bags; patients whose bag is gone are left out."""
    there = [patient for patient in patients if store.path_of(patient).is_file()][:_CELLS]
    crops: list[NDArray[np.uint8]] = []
    for number, patient in enumerate(there):
        wanted = _CELLS // len(there) + (number < _CELLS % len(there))
        with BagReader(store.path_of(patient), verify=False) as bag:
            chosen = np.linspace(0, bag.n_cells - 1, min(wanted, bag.n_cells)).astype(int)
            crops += [bag.image(int(i)) for i in chosen]
    return crops


def _strip(
    name: str,
    target: str,
    statistics: Mapping[str, ColourStatistics],
    crops: Sequence[NDArray[np.uint8]],
    figures: Path,
) -> ColourStrip:
    own, wanted = statistics[name], statistics[target]
    first, second, third = (a - b for a, b in zip(own.mean, wanted.mean, strict=True))
    before, after = _write(figures, f"colours_{name}_before", crops), ""
    if name != target:
        changed = [transfer(crop, own, wanted) for crop in crops]
        after = _write(figures, f"colours_{name}_after", changed)
    return ColourStrip(name, name == target, before, after, (first, second, third))


def _write(folder: Path, name: str, crops: Sequence[NDArray[np.uint8]]) -> str:
    """Crops side by side as a JPEG; returns its data URI."""
    step = _SIDE_PX + _GAP_PX
    page = Image.new("RGB", (len(crops) * step - _GAP_PX, _SIDE_PX), "white")
    for number, crop in enumerate(crops):
        page.paste(shrunk(crop, _SIDE_PX), (number * step, 0))
    content = jpeg_bytes(page)
    write_bytes(folder / f"{safe_id(name)}.jpg", content)
    return data_uri(content, "image/jpeg")
