"""The index page of a prediction run: every patient by urgency, failed ones named.

Owns the page and the writing of the patients' pages beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from millie.bags.store import BagReader, Store, safe_id
from millie.errors import DataError
from millie.files import write_text
from millie.outputs.gallery import Album
from millie.outputs.overlays import FieldReader, Pictures, write_overlays
from millie.outputs.page import render
from millie.outputs.patient.evidence import weigh
from millie.outputs.patient.records import PatientResult, PredictionRun
from millie.outputs.patient.remarks import remarks_on
from millie.outputs.patient.report import (
    evidence_order,
    failed_page,
    patient_page,
    quality_facts,
)
from millie.outputs.patient.states import StateWords, words_for
from millie.outputs.patient.tables import read_cell_probabilities
from millie.outputs.result_folder import page_of

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Row:
    """A patient's line in the worklist.

    Attributes:
        result: the patient's call.
        words: of its state.
        href: the patient's page, relative to the index.
        remarks: names of the quality facts that a person should check.
    """

    result: PatientResult
    words: StateWords
    href: str
    remarks: tuple[str, ...]


def by_urgency(results: Iterable[PatientResult], urgent: str | None) -> list[PatientResult]:
    """Patients in the order of a worklist: state, then the score that worries most, then name.

    Args:
        results: in any order.
        urgent: the class that must not wait; None: the highest probability counts.
    """

    def key(result: PatientResult) -> tuple[int, float, str]:
        top = max(result.probabilities.values(), default=0.0)
        worry = result.probabilities.get(urgent, top) if urgent else top
        return words_for(result.state).rank, -worry, result.patient

    return sorted(results, key=key)


def write_overlays_of(
    run: PredictionRun,
    read_field: FieldReader | None,
    progress: Progress | None = None,
    pictures: Pictures = "winners",
) -> dict[str, list[str]]:
    """Write ``overlays/<safe id>/`` for every patient of a run.

    Args:
        run: as read back from disk.
        read_field: decodes a field again; None: contact sheets of single-cell crops only.
        progress: called after each patient.
        pictures: which are drawn.

    Returns:
        by patient the fields that could not be read again or have changed since.
    """
    scores = read_cell_probabilities(run.folder, run.model)
    store, lost = Store(run.store), {}
    results = [result for result in run.patients if not result.failed]
    for done, result in enumerate(results, start=1):
        with BagReader(store.path_of(result.patient)) as bag:
            album, evidence = Album(bag), weigh(result, run.model)
            own = _scores_of(scores, result, album)
            order = evidence_order(own, run.model.labels.index(evidence.focus))
            folder = run.folder / "overlays" / safe_id(result.patient)
            lost[result.patient] = write_overlays(
                folder, album, evidence.marks, order, read_field, pictures
            )
        if progress is not None:
            progress("overlays", done, len(results))
    return {patient: names for patient, names in lost.items() if names}


def write_pages(run: PredictionRun, progress: Progress | None = None) -> Path:
    """Write ``patients/<safe id>.html`` for every patient, then ``report.html``.

    Returns:
        path of ``report.html``.

    Raises:
        MissingFileError: the store or a bag is gone.
        DataError: a bag and the tables of the run do not fit.
    """
    scores = read_cell_probabilities(run.folder, run.model)
    remarks: dict[str, list[str]] = {}
    for done, result in enumerate(run.patients, start=1):
        page = failed_page(run, result)
        if not result.failed:
            page, remarks[result.patient] = _page(run, result, scores)
        write_text(run.folder / page_of(result.patient), page)
        if progress is not None:
            progress("report", done, len(run.patients))
    return write_text(run.folder / "report.html", index_page(run, remarks))


def _page(
    run: PredictionRun, result: PatientResult, scores: Mapping[str, NDArray[np.float32]]
) -> tuple[str, list[str]]:
    """A patient's page, and the names of the quality facts to check."""
    overlays = run.folder / "overlays" / safe_id(result.patient)
    with BagReader(Store(run.store).path_of(result.patient)) as bag:
        album = Album(bag)
        remarks = remarks_on(result, run.model)
        facts = quality_facts(album, result, run.problems_of(result.patient), remarks)
        own = _scores_of(scores, result, album)
        page = patient_page(
            run, result, album, own, facts=facts, remarks=remarks, overlays=overlays
        )
    return page, [fact.name.lower() for fact in facts if fact.check]


def _scores_of(
    scores: Mapping[str, NDArray[np.float32]], result: PatientResult, album: Album
) -> NDArray[np.float32]:
    own = scores.get(result.patient)
    found = 0 if own is None else len(own)
    if own is None or found != len(album.cells):
        raise DataError(
            f"{result.patient}: cells.csv has {found} cells, the bag {len(album.cells)}; "
            "the bag store has changed since the run: run millie predict again"
        )
    return own


def index_page(run: PredictionRun, remarks: Mapping[str, Sequence[str]]) -> str:
    """Make the HTML of the worklist.

    Args:
        run: all patients.
        remarks: by patient the names of quality facts that a person should check.
    """
    results = by_urgency(run.patients, run.model.urgent)
    rows = [_row(result, remarks) for result in results if not result.failed]
    failed = [_row(result, remarks) for result in results if result.failed]
    tally = Counter(row.words for row in (*rows, *failed))
    return render(
        "worklist.html.j2",
        rows=rows,
        failed=failed,
        tally=sorted(tally.items(), key=lambda item: (item[0].rank, item[0].title)),
        model=run.model,
        created=run.created,
        problems=[p for p in run.problems if not p.fatal],
    )


def _row(result: PatientResult, remarks: Mapping[str, Sequence[str]]) -> Row:
    remarked = tuple(remarks.get(result.patient, ()))
    return Row(result, words_for(result.state), quote(page_of(result.patient)), remarked)
