"""The figure of an experiment in seven panels, a to g, as the paper's figures show them.

Owns letters and order: a ROC of patients, b their confusion matrix, c ROC of cells, d their
confusion matrix, e cells in two dimensions by diagnosis, f by type, g the flagged cells. Each panel
is an SVG and a PDF of its own (g a JPEG). Where the data of a panel are missing its letter is left
free, so that letters mean the same in every run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from millie.bags.store import BagReader, Store
from millie.files import write_bytes
from millie.outputs.figure_files import write_figures
from millie.outputs.figures import confusion_figure, roc_lines_figure
from millie.outputs.gallery import data_uri, jpeg_bytes, shrunk
from millie.outputs.study.figures import study_figures
from millie.outputs.study.records import CellScore, Study, read_cells
from millie.reproduce.comparison import Panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from millie.reproduce.cell_tests import CellTestResult

_TITLES = {
    "a": "ROC of patients",
    "b": "confusion of patients",
    "c": "ROC of single cells",
    "d": "confusion of single cells",
    "e": "cells in two dimensions, by diagnosis",
    "f": "cells in two dimensions, by type",
    "g": "flagged cells",
}
_STUDY = {"a": "roc", "b": "confusion", "c": "cells_roc", "d": "cells_confusion",
          "e": "pca_diagnosis", "f": "pca_type"}  # fmt: skip
_FILES = {"a": "roc", "b": "confusion", "c": "cells_roc", "d": "cells_confusion", "e": "pca",
          "f": "pca_types", "g": "flagged_cells"}  # fmt: skip

_COLUMNS, _ROWS = 8, 3
_SIDE_PX, _GAP_PX = 120, 4
_CELLS_A_PATIENT = 3


def write_panels(
    folder: Path, study: Study, store: Store, tests: Sequence[CellTestResult]
) -> list[Panel]:
    """Draw the panels, write them, and return them in the order of their letters."""
    drawn = study_figures(study)
    figures = {letter: drawn[name] for letter, name in _STUDY.items() if name in drawn}
    figures |= _of_tests(tests)
    named = {f"{letter}_{_FILES[letter]}": figure for letter, figure in sorted(figures.items())}
    uris = write_figures(folder, named)
    panels = [Panel(name[0], _TITLES[name[0]], uri) for name, uri in uris.items()]
    picture = flagged_cells(study, store)
    if picture is not None:
        content = jpeg_bytes(picture)
        write_bytes(folder / f"g_{_FILES['g']}.jpg", content)
        title = f"{_TITLES['g']}: highest probability of {study.positive}, scored as test cells"
        panels.append(Panel("g", title, data_uri(content, "image/jpeg")))
    return panels


def _of_tests(tests: Sequence[CellTestResult]) -> dict[str, Figure]:
    """Panels c and d from the tests of single cells: all curves, the first test's matrix."""
    done = [result for result in tests if result.roc is not None]
    if not done:
        return {}
    curves = {result.test.title: result.roc for result in done if result.roc is not None}
    found = {"c": roc_lines_figure(curves, "Single cells")}
    first = done[0]
    if first.confusion is not None:
        columns = (f"not called {first.test.score}", f"called {first.test.score}")
        rows = ("others", first.test.targets[0])
        found["d"] = confusion_figure(first.confusion, rows, columns, "Cells")
    return found


def flagged_cells(study: Study, store: Store) -> Image.Image | None:
    """The cells most like the positive class, of patients who have it, as a sheet; None without."""
    path = study.folder / "cells.csv"
    if not path.is_file() or not store.root.is_dir():
        return None
    index = study.classes.index(study.positive)
    having = {p.patient for p in study.patients if p.label == study.positive}
    chosen: list[CellScore] = []
    taken: Counter[str] = Counter()
    ordered = sorted(read_cells(study), key=lambda c: (-c.probabilities[index], c.patient, c.cell))
    for cell in ordered:
        if cell.patient in having and taken[cell.patient] < _CELLS_A_PATIENT:
            taken[cell.patient] += 1
            chosen.append(cell)
        if len(chosen) == _COLUMNS * _ROWS:
            break
    return sheet(_crops(chosen, store)) if chosen else None


def _crops(chosen: Sequence[CellScore], store: Store) -> list[NDArray[np.uint8]]:
    crops = []
    for cell in chosen:
        with BagReader(store.path_of(cell.patient), verify=False) as bag:
            crops.append(bag.image(cell.cell))
    return crops


def sheet(crops: Sequence[NDArray[np.uint8]]) -> Image.Image:
    """Crops side by side on white, row by row."""
    rows = -(-len(crops) // _COLUMNS)
    step = _SIDE_PX + _GAP_PX
    columns = min(_COLUMNS, len(crops))
    page = Image.new("RGB", (columns * step - _GAP_PX, rows * step - _GAP_PX), "white")
    for number, crop in enumerate(crops):
        row, column = divmod(number, _COLUMNS)
        page.paste(shrunk(crop, _SIDE_PX), (column * step, row * step))
    return page
