"""Figures for notebooks: the cells behind a call, a field with its cells, ROC curve, map of cells.

Each function reads what a command wrote and gives a :class:`matplotlib.figure.Figure`; nothing is
shown or saved by itself (``%matplotlib inline`` makes a notebook show it, ``figure.savefig`` writes
it). Colours, marks and curves are those of the reports, by the same code.

Example:
    >>> from millie import plots
    >>> plots.gallery("calls", "P-normal-01")       # doctest: +SKIP
    >>> plots.roc("study").savefig("roc.png")       # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from matplotlib.figure import Figure

from millie.bags.store import BagReader, Store
from millie.config import Config
from millie.errors import ConfigError, MissingFileError
from millie.outputs.overlays import draw_boxes, overlay_names
from millie.outputs.patient.evidence import weigh
from millie.outputs.patient.tables import read_cell_probabilities, read_predictions
from millie.outputs.study.figures import components_of, roc_of
from millie.outputs.study.records import read_study
from millie.pipeline.inputs import images_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from millie.outputs.patient.records import PatientResult, PredictionRun
    from millie.pipeline.inputs import PathLike

__all__ = ["embedding_map", "gallery", "overlay", "roc"]

_MAPS = {"diagnosis": "pca_diagnosis", "type": "pca_type"}
_COLUMNS = 6


def gallery(calls: PathLike, patient: str, *, against: bool = False, n: int = 12) -> Figure:
    """The cells that made a patient's call, strongest first.

    Args:
        calls: folder that ``millie predict`` wrote, its bag store still in place.
        patient: as in ``predictions.csv``.
        against: the cells of the strongest other class instead.
        n: cells at most, 1 or more.

    Returns:
        crops with the marks that the report gives them (numbers for, letters against) and the
        probability of the class for each cell alone.

    Raises:
        ConfigError: no such patient, or no cell speaks for the class.
        MissingFileError: the folder, the store or a bag does not exist.
        DataError: a file is damaged.
    """
    run, result = _result(calls, patient)
    evidence = weigh(result, run.model)
    name = (evidence.contrast or "") if against else evidence.focus
    shown = (evidence.cells_against if against else evidence.cells_for)[: max(1, n)]
    if not shown:
        raise ConfigError(f"{patient}: no cell speaks for {name or 'another class'}")
    scores = read_cell_probabilities(run.folder, run.model)[patient]
    alone = scores[:, run.model.labels.index(name)]
    with BagReader(Store(run.store).path_of(patient)) as bag:
        images = [bag.image(winner.cell) for winner in shown]
    words = [f"{evidence.marks[w.cell].text}   {alone[w.cell]:.2f}" for w in shown]
    return _cells(images, words, f"{patient}: cells for {name}")


def overlay(calls: PathLike, patient: str, field: int = 0) -> Figure:
    """A field of a patient with its cells boxed, those behind the call marked as in the report.

    Args:
        calls: as in :func:`gallery`; the image must still be where it was, unchanged.
        patient: as in ``predictions.csv``.
        field: number of the field among the patient's, from 0; single-cell images have none.

    Raises:
        ConfigError: no such patient or field.
        MissingFileError: the folder, the store, a bag or the image does not exist.
        DataError: a file is damaged, or the image cannot be read.
    """
    run, result = _result(calls, patient)
    store = Store(run.store)
    with BagReader(store.path_of(patient)) as bag:
        fields = sorted(overlay_names(bag.sources))
        if not 0 <= field < len(fields):
            raise ConfigError(
                f"{patient}: field {field}; expected 0 to {len(fields) - 1}"
                if fields
                else f"{patient}: single-cell images only; use gallery"
            )
        source = bag.sources[fields[field]]
        numbered = [(n, cell) for n, cell in enumerate(bag.cells) if cell.source == fields[field]]
    found = images_of(None, store, Config())(patient, source)
    cells = {n: cell if source.place is None else source.place.in_field(cell)
             for n, cell in numbered}  # fmt: skip
    marks = weigh(result, run.model).marks
    picture = draw_boxes(found.image, cells, marks, source.um_px)
    figure = Figure(figsize=(8, 8 * picture.height / picture.width), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(picture)
    axes.axis("off")
    return figure


def roc(study: PathLike) -> Figure:
    """The ROC curve of a cross-validation with its 95 % band over patients.

    Args:
        study: folder that ``millie crossval`` wrote.

    Raises:
        MissingFileError: the folder or a file of it does not exist.
        DataError: a file is damaged.
        ConfigError: only one class.
    """
    return roc_of(read_study(_folder(study)))


def embedding_map(study: PathLike, by: Literal["diagnosis", "type"] = "diagnosis") -> Figure:
    """Every cell of a cross-validation as a point: the two main axes of the encoder's vectors.

    Args:
        study: folder that ``millie crossval`` wrote.
        by: colour of a cell: its patient's diagnosis, or the type that an expert gave it.

    Raises:
        MissingFileError: the folder or a file of it does not exist.
        DataError: a file is damaged.
        ConfigError: no cell has a type.
    """
    found = components_of(read_study(_folder(study)))
    if _MAPS[by] not in found:
        raise ConfigError(
            f"{study} has no cell with a {by}: use by='diagnosis', or give cell_label in the "
            "manifest"
        )
    return found[_MAPS[by]]


def _folder(path: PathLike) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise MissingFileError(f"{folder} is not a folder; name the --out folder of a finished run")
    return folder


def _result(calls: PathLike, patient: str) -> tuple[PredictionRun, PatientResult]:
    run = read_predictions(_folder(calls))
    for result in run.patients:
        if result.patient == patient and not result.failed:
            return run, result
    known = ", ".join(result.patient for result in run.patients if not result.failed)
    raise ConfigError(f"no result of patient '{patient}' in {run.folder}; there are: {known}")


def _cells(images: Sequence[NDArray[np.uint8]], words: Sequence[str], title: str) -> Figure:
    """Crops in rows with a line below each."""
    columns = min(_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.4 * columns, 1.65 * rows + 0.4), layout="constrained")
    for place, (image, text) in enumerate(zip(images, words, strict=True), start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(image)
        axes.axis("off")
        axes.set_title(text, y=-0.22, fontsize=9)
    figure.suptitle(title.replace("$", r"\$"), fontsize=10.5, fontweight="bold")
    return figure
