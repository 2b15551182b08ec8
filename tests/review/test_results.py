from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from millie.outputs.patient.tables import read_predictions
from millie.review.cell_kinds import BY_CODE, OF_TYPES
from millie.review.jobs.results import store_analysis
from millie.review.models import AuditEvent

if TYPE_CHECKING:
    from pathlib import Path

    from millie.review.models import Sample


def test_an_analysis_says_what_the_run_says(analysed: Sample, run_of_one: Path) -> None:
    run = read_predictions(run_of_one / "samples" / "S-drawn" / "calls")
    analysis = analysed.analysis
    assert analysis is not None
    assert analysis.state == run.patients[0].state
    assert analysis.cells.count() == run.patients[0].n_cells > 0
    flagged = {cell.index for cell in analysis.cells.filter(flagged=True)}
    assert flagged <= {w.cell for winners in run.patients[0].winners.values() for w in winners}
    assert flagged


def test_the_type_that_a_cell_looks_like_is_its_suggested_kind(
    analysed: Sample, run_of_one: Path, tmp_path: Path
) -> None:
    shutil.copytree(run_of_one / "samples", tmp_path / "samples")
    run = tmp_path / "samples" / "S-drawn" / "calls"
    lines = (run / "cells.csv").read_text(encoding="utf-8-sig").splitlines()
    assert lines[0].endswith(",looks_like")  # the last column
    told = ["looks_like", "myeloblast", "band neutrophil", *[""] * (len(lines) - 3)]
    mixed = [f"{line.rpartition(',')[0]},{type_}" for line, type_ in zip(lines, told, strict=True)]
    (run / "cells.csv").write_text("\n".join(mixed) + "\n", encoding="utf-8-sig")
    again = store_analysis(analysed, run, tmp_path)
    labels = set(again.model["labels"])
    suggestions = list(again.cells.values_list("suggestion", flat=True))
    assert suggestions[:2] == ["blast", "neutrophil"]
    assert set(suggestions[2:]) <= labels


def test_a_cell_that_is_like_no_class_has_no_suggestion(
    analysed: Sample, run_of_one: Path, tmp_path: Path
) -> None:
    shutil.copytree(run_of_one / "samples", tmp_path / "samples")
    run = tmp_path / "samples" / "S-drawn" / "calls"
    head, *rows = (run / "cells.csv").read_text(encoding="utf-8-sig").splitlines()
    own = [i for i, name in enumerate(head.split(",")) if name.startswith("probability_")]
    cells = [row.split(",") for row in rows]
    for cell in cells:
        cell[-1] = ""
        for i in own:
            cell[i] = "0.05"
    text = "\n".join([head, *map(",".join, cells)]) + "\n"
    (run / "cells.csv").write_text(text, encoding="utf-8-sig")
    again = store_analysis(analysed, run, tmp_path)
    assert set(again.cells.values_list("suggestion", flat=True)) == {""}
    assert list(again.cells.values_list("certainty", flat=True)) == pytest.approx(
        [0.05] * len(cells)
    )


def test_every_kind_of_a_type_is_one() -> None:
    assert set(OF_TYPES.values()) <= set(BY_CODE)


def test_the_audit_trail_tells_of_it_without_a_name(analysed: Sample) -> None:
    event = AuditEvent.objects.get(action="sample.analysed")
    assert event.subject == analysed.pseudonym
    assert "Doe" not in event.details
