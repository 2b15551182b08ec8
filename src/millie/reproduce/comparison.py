"""The table 'paper | here | interval | protocol differences', as rows, as CSV, as a page.

Owns which figure here stands beside which printed value, and that every row names how far the two
can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millie.files import Value, write_csv, write_text
from millie.outputs.page import render
from millie.reproduce.experiments import PAPER, Printed

if TYPE_CHECKING:
    from millie.outputs.study.colour_pictures import ColourStrip
    from millie.outputs.study.controls import Control
    from millie.reproduce.cell_tests import CellTestResult
    from millie.reproduce.experiments import Experiment

HEADER = (
    "experiment", "profile", "quantity", "paper", "here", "low", "high", "method", "n",
    "protocol_differences",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        quantity: what is compared.
        paper: as printed; empty: the paper has no such value.
        here: our value, or None; ``low`` and ``high`` its interval.
        method: of the interval, or why there is no value.
        n: on how many patients or cells.
        differences: of the protocol.
    """

    quantity: str
    paper: str
    here: float | None
    low: float | None
    high: float | None
    method: str
    n: str
    differences: tuple[str, ...]


def compare(
    experiment: Experiment,
    metrics: Mapping[str, Any],
    tests: Sequence[CellTestResult],
    differences: Sequence[str],
) -> list[Row]:
    """A row for every printed value, then for every figure that the paper does not have.

    Args:
        experiment: the entry of the table.
        metrics: content of ``metrics.json``.
        tests: of single cells.
        differences: of this run (profile, missing data), added to those of the experiment.
    """
    by_name = {result.test.name: result for result in tests}
    common = (*experiment.differences, *differences)
    rows, told = [], set()
    for printed in experiment.printed:
        kind, _, name = printed.measure.partition(":")
        if kind == "cells":
            told.add(name)
            rows.append(_cell_row(printed.quantity, printed.text, by_name.get(name), differences))
        else:
            rows.append(_patient_row(printed, metrics, common))
    rows += [
        _cell_row(f"AUC: {result.test.title}", "", result, differences)
        for result in tests
        if result.test.name not in told
    ]
    return rows


def _patient_row(printed: Printed, metrics: Mapping[str, Any], differences: tuple[str, ...]) -> Row:
    counts = ", ".join(f"{n} {name}" for name, n in metrics["n_by_class"].items())
    found = metrics["headline"].get(printed.measure)
    if found is None:
        return Row(printed.quantity, printed.text, None, None, None, "not measured", counts,
                   differences)  # fmt: skip
    return Row(
        printed.quantity, printed.text, found["value"], found["low"], found["high"],
        found["method"], counts, differences,
    )  # fmt: skip


def _cell_row(
    quantity: str, paper: str, result: CellTestResult | None, differences: Sequence[str]
) -> Row:
    if result is None:
        return Row(quantity, paper, None, None, None, "not run", "", ())
    n = f"{result.n_target} cells against {result.n_other}"
    told = (*result.caveats, *differences)
    if result.auc is None:
        return Row(quantity, paper, None, None, None, result.why, n, told)
    auc = result.auc
    return Row(quantity, paper, auc.value, auc.low, auc.high, auc.method, n, told)


def write_comparison(path: Path, experiment: str, profile: str, rows: Sequence[Row]) -> Path:
    """Write the table as CSV."""
    lines: list[Sequence[Value]] = [
        (
            experiment, profile, row.quantity, row.paper, row.here, row.low, row.high, row.method,
            row.n, "; ".join(row.differences),
        )
        for row in rows
    ]  # fmt: skip
    return write_csv(path, HEADER, lines)


@dataclass(frozen=True, slots=True)
class Panel:
    """A lettered part of the figure: a picture as a data URI, and what it shows."""

    letter: str
    title: str
    uri: str


def write_page(
    path: Path,
    experiment: Experiment,
    profile: str,
    rows: Sequence[Row],
    *,
    panels: Sequence[Panel],
    missing: Sequence[str],
    controls: tuple[Sequence[Control], str],
    strips: Sequence[ColourStrip] = (),
) -> Path:
    """Write the table with the figure, the controls and what is missing as one page."""
    shared = [
        text for text in (rows[0].differences if rows else ())
        if all(text in row.differences for row in rows)
    ]  # fmt: skip
    page = render(
        "reproduction.html.j2",
        experiment=experiment,
        paper=PAPER,
        profile=profile,
        rows=rows,
        own=[[text for text in row.differences if text not in shared] for row in rows],
        shared=shared,
        panels=panels,
        missing=missing,
        controls=controls[0],
        verdict=controls[1],
        strips=strips,
    )
    return write_text(path, page)
