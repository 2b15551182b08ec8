from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import scipy

from millie.review.cells.differential import count_kinds

if TYPE_CHECKING:
    from millie.review.models import Sample


def test_shares_are_of_leukocytes_with_the_exact_interval(analysed: Sample) -> None:
    analysis = analysed.analysis
    assert analysis is not None
    kinds = ["blast"] * 3 + ["lymphocyte"] * 5 + ["erythroblast"] * 2 + ["artefact"]
    for index, kind in enumerate(kinds):
        analysis.cells.filter(index=index).update(decision=kind)
    found = count_kinds(analysis)
    assert (found.n_leukocytes, found.n_decided, found.n_cells) == (8, 11, analysis.n_cells)
    rows = {row.title: row for row in found.rows}
    blasts = rows["Blast"]
    assert blasts.share == pytest.approx(3 / 8)
    # Clopper-Pearson by the quantiles of the beta distribution.
    assert blasts.low == pytest.approx(scipy.stats.beta.ppf(0.025, 3, 6))
    assert blasts.high == pytest.approx(scipy.stats.beta.ppf(0.975, 4, 5))
    assert rows["Erythroblast"].share is None
    assert rows["Not a cell: artefact"].share is None
