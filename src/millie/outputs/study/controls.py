"""Confound controls of a study as they lie on disk, in typed form.

Owns the reading of ``controls.json``; figures and verdicts are made by the evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from millie.outputs.study.records import Measure, Study, measure_of, measures, title_of
from millie.outputs.tables import read_json


@dataclass(frozen=True, slots=True)
class CellGroup:
    """Cells of one group of types, scored alone.

    Attributes:
        name: for people.
        n_by_class: patients with enough of these cells.
        median_cells: of these cells a patient.
        measures: ``auc`` of these cells; of the same patients ``whole``, by the whole bag, and
            ``drawn``, by as many random cells; the differences ``minus_whole`` and
            ``minus_drawn``. Empty: too few patients.
    """

    name: str
    n_by_class: dict[str, int]
    median_cells: float
    measures: dict[str, Measure]


@dataclass(frozen=True, slots=True)
class Control:
    """The same pipeline on something that should not give the class away.

    Attributes:
        name: for people; also ``description`` and ``verdict``.
        measures: the AUC first; empty: cannot be measured.
        groups: of cell types scored alone; empty: another control.
    """

    name: str
    description: str
    verdict: str
    measures: tuple[Measure, ...]
    groups: tuple[CellGroup, ...] = ()


def read_controls(study: Study) -> tuple[tuple[Control, ...], str]:
    """Confound controls and their verdict in words; empty where none were run.

    They stand in ``controls.json`` or under ``controls`` in ``metrics.json``: an object with
    ``verdict`` and a list ``controls`` of objects with ``name``, ``description`` and estimates.
    """
    path = study.folder / "controls.json"
    content = read_json(path) if path.is_file() else study.metrics.get("controls")
    if not isinstance(content, Mapping):
        return (), ""
    entries = content.get("controls", [])
    controls = tuple(
        Control(
            title_of(str(entry.get("name", ""))),
            str(entry.get("description", "")),
            str(entry.get("verdict", "")),
            tuple(measures({k: v for k, v in entry.items() if isinstance(v, Mapping)})),
            tuple(_cell_group(group) for group in entry.get("groups", ())),
        )
        for entry in entries
        if isinstance(entry, Mapping)
    )
    return controls, str(content.get("verdict", ""))


def _cell_group(entry: Mapping[str, Any]) -> CellGroup:
    found = {name: measure_of(title_of(name), value) for name, value in entry.items()}
    return CellGroup(
        str(entry["name"]).capitalize(),
        {str(k): int(v) for k, v in entry["n_by_class"].items()},
        float(entry["median_cells"]),
        {name: measure for name, measure in found.items() if measure is not None},
    )
