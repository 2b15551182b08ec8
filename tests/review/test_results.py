from __future__ import annotations

from typing import TYPE_CHECKING

from millie.outputs.patient.tables import read_predictions
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


def test_the_audit_trail_tells_of_it_without_a_name(analysed: Sample) -> None:
    event = AuditEvent.objects.get(action="sample.analysed")
    assert event.subject == analysed.pseudonym
    assert "Doe" not in event.details
