"""Reports of a folder of results: one HTML file a study, one a patient, one for the run.

Owns the entry points. Everything is made again from the files on disk, so a report can be redone
at any time and never disagrees with the tables beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from millie.bags.store import Store
from millie.errors import DataError, MissingFileError
from millie.files import write_text
from millie.outputs.overlays import FieldReader, Pictures
from millie.outputs.patient.records import ModelFacts
from millie.outputs.patient.tables import read_predictions, write_predictions
from millie.outputs.patient.worklist import write_overlays_of, write_pages
from millie.outputs.result_folder import (
    one_at_a_time,
    page_of,
    read_record,
    record_files,
    settle,
)
from millie.types import Prediction, Problem

Progress = Callable[[str, int, int], None]


def write_prediction_run(
    out: Path,
    card: Mapping[str, Any],
    predictions: Sequence[Prediction],
    store: Store,
    problems: Sequence[Problem] = (),
    *,
    read_field: FieldReader | None = None,
    created: datetime | None = None,
    progress: Progress | None = None,
    home: Path | None = None,
    pictures: Pictures = "winners",
) -> Path:
    """Write everything a prediction run leaves on disk.

    ``predictions.csv``, ``cells.csv``, ``predictions.json``, ``overlays/``, ``patients/`` and,
    last, ``report.html``.

    Args:
        out: folder of the run; made if missing.
        card: the bundle: ``name``, ``version``, ``sha256``, ``labels`` and, where there is one,
            ``positive``, the class that must not be missed; more is kept as it is.
        predictions: one a patient.
        store: the bags the predictions were made on.
        problems: what could not be used; the fatal ones name patients without a result.
        read_field: decodes an image of a bag again, to draw boxes on it; None: no fields are
            drawn. A field that raises DataError or MissingError, or whose SHA-256 has changed,
            is named in the report instead of drawn.
        created: time of the run; None: now.
        progress: ``progress(what, done, total)`` after each patient of each step.
        home: where the folder is to lie later, store and all; None: it stays.
        pictures: which fields and cells are drawn into ``overlays/``.

    Returns:
        path of ``report.html``.

    Raises:
        DataError: a prediction and its bag do not fit.
    """
    model = ModelFacts.from_card(card)
    write_predictions(out, model, predictions, store, problems, created=created, home=home)
    run = replace(read_predictions(out), store=store.root)
    write_overlays_of(run, read_field, progress, pictures)
    return write_pages(run, progress)


def write_report(folder: Path, store: Path | None = None) -> Path:
    """Make the report of a finished ``crossval`` or ``predict`` folder again.

    Args:
        folder: what the command wrote.
        store: of a study: the bag store, for pictures of cells; None: as the folder names it.
            Without it the report says that the pictures are missing.

    Returns:
        path of ``report.html``.

    Raises:
        MissingFileError: the folder or a file of it does not exist.
        DataError: the folder is of neither kind, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise MissingFileError(
            f"{folder} is not a folder; name the --out folder of millie crossval or millie predict"
        )
    if (folder / "predictions.json").is_file():
        return _calls_again(folder)
    if (folder / "metrics.json").is_file():
        from millie.outputs.study import report  # noqa: PLC0415 - studies alone need it

        path = write_text(folder / "report.html", report.study_page(folder, store))
        record_files(folder, "study", (path.name, *report.BESIDE))
        return path
    raise DataError(
        f"{folder} holds neither predictions.json (millie predict) nor metrics.json (millie "
        "crossval); name the --out folder of a finished run"
    )


def _calls_again(folder: Path) -> Path:
    run = read_predictions(folder)
    path = write_pages(run)
    pages = {path.name, *(page_of(result.patient) for result in run.patients)}
    if own := pages & read_record(folder).files.keys():  # others are not ours to list
        record_files(folder, "calls", own)
    return path


def rewrite_report(folder: Path) -> Path:
    """As :func:`write_report`, for a folder that a run may be writing to, or was killed in.

    Raises:
        BusyError: a run is writing there.
        MissingFileError, DataError: as :func:`write_report`.
    """
    if not folder.is_dir():
        return write_report(folder)
    with one_at_a_time(folder):
        settle(folder)
        return write_report(folder)
