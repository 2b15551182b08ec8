"""What an author takes from a study: its tables as CSV.

Owns their names and columns. They hold what the page shows, nothing else; the figures beside them
are written by :mod:`millie.outputs.figure_files`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from millie.files import Value, write_csv
from millie.outputs.study.characteristics import characteristic_rows
from millie.outputs.study.checklists import CHECKLIST_HEADER, checklist_rows
from millie.outputs.study.controls import CellGroup, Control
from millie.outputs.study.indeterminates import INDETERMINATE_HEADER, indeterminate_rows
from millie.outputs.study.overlap_proof import OverlapProof
from millie.outputs.study.patient_flow import FLOW_HEADER, flow_rows
from millie.outputs.study.records import Matrix, Measure, Study
from millie.outputs.study.subgroups import SUBGROUP_HEADER, subgroup_rows
from millie.outputs.study.supplement import RobustnessCurve, Supplement
from millie.statistics.rates import PredictiveValues

TABLES = "tables"

Table = tuple[Sequence[str], Sequence[Sequence[Value]]]


def write_tables(
    study: Study, supplement: Supplement, controls: Sequence[Control] = ()
) -> list[Path]:
    """Write the folder ``tables`` into that of the study; returns the paths."""
    return [
        write_csv(study.folder / TABLES / f"{name}.csv", header, rows)
        for name, (header, rows) in tables(study, supplement, controls).items()
    ]


def tables(
    study: Study, supplement: Supplement, controls: Sequence[Control] = ()
) -> dict[str, Table]:
    """Header and rows of each table that there is something for, by name."""
    found: dict[str, Table] = {
        "figures_of_merit": (_MEASURES, _measures((*study.headline, *study.others))),
        "checklists": (CHECKLIST_HEADER, checklist_rows(supplement.checklists)),
        "indeterminates": (INDETERMINATE_HEADER, indeterminate_rows(supplement.indeterminates)),
        "hashes": (("file", "sha256"), supplement.hashes),
    }
    if controls:
        found["controls"] = (
            ("control", *_MEASURES),
            [(c.name, *row) for c in controls for row in _measures(c.measures)],
        )
    groups = [group for control in controls for group in control.groups]
    if groups:
        found["cell_groups"] = _cell_groups(study, groups)
    if study.confusion is not None:
        found["confusion"] = _confusion(study.confusion)
    if supplement.flow is not None:
        found["patient_flow"] = (FLOW_HEADER, flow_rows(supplement.flow))
    if supplement.characteristics:
        found["characteristics"] = characteristic_rows(study, supplement.characteristics)
    if supplement.predictive is not None:
        found["predictive_values"] = _predictive(supplement.predictive)
    if supplement.subgroups:
        found["subgroups"] = (SUBGROUP_HEADER, subgroup_rows(supplement.subgroups))
    if supplement.overlap is not None:
        found["overlap"] = _overlap(supplement.overlap)
    if supplement.robustness:
        found["robustness"] = _robustness(supplement.robustness)
    return found


_MEASURES = ("measure", "value", "low", "high", "method")


def _measures(found: Sequence[Measure]) -> list[Sequence[Value]]:
    return [(m.title, m.value, m.low, m.high, m.method) for m in found]


def _cell_groups(study: Study, groups: Sequence[CellGroup]) -> Table:
    """A row a measure; a group of too few patients has one without a value."""
    counted = ("group", *(f"n_{name}" for name in study.classes), "median_cells")
    rows: list[Sequence[Value]] = []
    for group in groups:
        counts = (group.n_by_class.get(name, 0) for name in study.classes)
        about: tuple[Value, ...] = (group.name, *counts, group.median_cells)
        found = _measures(tuple(group.measures.values()))
        rows += [(*about, *row) for row in found or [("too few patients", *[None] * 4)]]
    return (*counted, *_MEASURES), rows


def _confusion(table: Matrix) -> Table:
    rows: list[Sequence[Value]] = [
        (name, *counts) for name, counts in zip(table.rows, table.counts, strict=True)
    ]
    return ("diagnosis", *table.columns), rows


def _predictive(values: PredictiveValues) -> Table:
    header = ("prevalence", "ppv", "ppv_low", "ppv_high", "npv", "npv_low", "npv_high")
    columns = (values.prevalence, *values.positive, *values.negative)
    rows = [tuple(float(v) for v in row) for row in zip(*columns, strict=True)]
    return header, rows


def _overlap(proof: OverlapProof) -> Table:
    pairs = [("file", pair) for pair in proof.files] + [("cell", pair) for pair in proof.cells]
    rows = [(kind, p.first, p.second, p.what, p.splits) for kind, p in pairs]
    return ("kind", "patient", "other_patient", "shared", "splits_that_separate_them"), rows


def _robustness(curves: Sequence[RobustnessCurve]) -> Table:
    rows = [(c.name, c.x_label, c.measure, *point) for c in curves for point in c.points]
    return ("change", "strength_of", "measure", "strength", "value", "low", "high"), rows
