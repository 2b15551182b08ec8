"""From a prediction run on disk to an analysis with its cells in the database.

The run's folder stays as ``millie predict`` wrote it: reports, exports and pictures are made from
it. The database holds what lists and galleries must find fast.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
from django.db import transaction

from millie.bags.store import BagReader, Store
from millie.outputs.patient.evidence import weigh
from millie.outputs.patient.states import words_for
from millie.outputs.patient.tables import read_cell_probabilities, read_predictions
from millie.outputs.tables import read_csv
from millie.review.cell_kinds import OF_TYPES
from millie.review.models import Analysis, Cell, Sample
from millie.review.records.audit import record
from millie.review.records.reopening import reopen
from millie.statistics.metrics import likeliest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from millie.bags.bagfile import BagReader as Bag
    from millie.outputs.patient.records import ModelFacts, PatientResult, PredictionRun

PASS, CHECK, FAIL = "pass", "check", "fail"
_BATCH = 1000


def store_analysis(
    sample: Sample, folder: Path, root: Path, *, based_on: Analysis | None = None,
    excluded: list[int] | None = None, actor: str = "system",
) -> Analysis:  # fmt: skip
    """Keep the one patient of a run as the sample's latest analysis.

    Args:
        sample: whose images the run was made on; its images have the names of the bag's sources.
        folder: of the run, inside ``root``.
        root: the data folder.
        based_on: the analysis whose cells were called again; None: it was made from images.
        excluded: cells of ``based_on`` that were left out.
        actor: for the audit trail.

    Raises:
        DataError, MissingFileError: the run is damaged or not there.
    """
    run = read_predictions(folder)
    (result,) = run.patients
    urgent = run.model.urgent
    top = max(result.probabilities.values(), default=0.0)
    with transaction.atomic():
        signed = Sample.objects.select_for_update().get(pk=sample.pk)
        analysis = Analysis.objects.create(
            sample=sample,
            number=sample.analyses.count() + 1,
            state=result.state,
            rank=words_for(result.state).rank,
            label=result.label,
            worry=result.probabilities.get(urgent, top) if urgent else top,
            n_cells=result.n_cells,
            light=_light(result),
            model_name=run.model.title,
            model_sha256=run.model.sha256,
            model=run.model.to_card(),
            result=asdict(result) | {"missed_share": result.missed_share},
            folder=folder.relative_to(root).as_posix(),
            based_on=based_on,
            excluded=excluded or [],
        )
        if not result.failed:
            Cell.objects.bulk_create(_cells(analysis, run, result), batch_size=_BATCH)
        sample.analysis = analysis
        sample.save(update_fields=["analysis"])
        record(
            actor, "sample.analysed", sample.pseudonym, state=result.state,
            model_sha256=run.model.sha256, number=analysis.number, excluded=len(excluded or []),
        )  # fmt: skip
        reopen(signed, "analysed")
    return analysis


def _light(result: PatientResult) -> str:
    """Images and cells at a glance: a measure beyond its limit fails."""
    if result.failed:
        return FAIL
    if any(not measure.passed for measure in result.quality):
        return FAIL if result.state.endswith("INDETERMINATE") else CHECK
    return PASS


def _cells(analysis: Analysis, run: PredictionRun, result: PatientResult) -> Iterator[Cell]:
    scores = read_cell_probabilities(run.folder, run.model)[result.patient]
    positions = {image.name: image.position for image in analysis.sample.images.all()}
    kinds = _kinds(run.folder, result.patient)
    evidence = weigh(result, run.model)
    strength = {winner.cell: winner.contribution for winner in result.winners[evidence.focus]}
    with BagReader(Store(run.store).path_of(result.patient)) as bag:
        # "S-pseudonym/image-1.svs_at_2048_0": named by folder, file and place in a slide.
        names = [source.name.rpartition("/")[2].partition("_at_")[0] for source in bag.sources]
        images = [positions[name] for name in names]
        rows = _rows(analysis, bag, images, scores, run.model, strength, set(evidence.marks))
        for cell, kind in zip(rows, kinds, strict=True):
            cell.suggestion = kind or cell.suggestion
            yield cell


def _kinds(folder: Path, patient: str) -> list[str]:
    """The kind that each cell looks most like; empty where the encoder of the run tells none."""
    rows = [row for row in read_csv(folder / "cells.csv", ["patient"]) if row["patient"] == patient]
    return [OF_TYPES.get(row.get("looks_like", ""), "") for row in rows]


def _rows(
    analysis: Analysis, bag: Bag, images: list[int], scores: NDArray[np.float32],
    model: ModelFacts, strength: Mapping[int, float], flagged: set[int],
) -> Iterator[Cell]:  # fmt: skip
    sources = bag.sources
    for index, (cell, row) in enumerate(zip(bag.cells, scores.tolist(), strict=True)):
        remarks = {"touches another": cell.in_clump, "cut": cell.at_border, "smudge": cell.smudge}
        yield Cell(
            analysis=analysis,
            index=index,
            image=images[cell.source],
            left_px=cell.left_px,
            top_px=cell.top_px,
            width_px=cell.width_px,
            height_px=cell.height_px,
            um_px=sources[cell.source].um_px,
            probabilities=[round(value, 6) for value in row],
            suggestion=likeliest(row, model.labels),
            certainty=max(row),
            strength=strength.get(index, 0.0),
            flagged=index in flagged,
            remarks=", ".join(word for word, is_so in remarks.items() if is_so),
        )
