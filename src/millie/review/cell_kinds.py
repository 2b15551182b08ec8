"""The kinds of cell that a person can name, with their keys.

The words follow the ICSH recommendations for grading blood cell morphology (Palmer et al.,
Int J Lab Hematol 37:287, 2015): promyelocytes of APL are counted beside blasts, never among normal
promyelocytes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CellKind:
    """One choice.

    Attributes:
        code: as stored and exported.
        title: as shown.
        key: on the keyboard.
    """

    code: str
    title: str
    key: str


KINDS = (
    CellKind("blast", "Blast", "1"),
    CellKind("promyelocyte", "Promyelocyte", "2"),
    CellKind("immature_granulocyte", "Myelocyte or metamyelocyte", "3"),
    CellKind("neutrophil", "Neutrophil, band or segmented", "4"),
    CellKind("lymphocyte", "Lymphocyte", "5"),
    CellKind("monocyte", "Monocyte", "6"),
    CellKind("eosinophil", "Eosinophil", "7"),
    CellKind("basophil", "Basophil", "8"),
    CellKind("erythroblast", "Erythroblast", "9"),
    CellKind("unidentified", "Unidentified cell", "u"),
    CellKind("artefact", "Not a cell: artefact", "x"),
)
OF_TYPES = {
    "segmented neutrophil": "neutrophil",
    "band neutrophil": "neutrophil",
    "metamyelocyte": "immature_granulocyte",
    "myelocyte": "immature_granulocyte",
    "promyelocyte": "promyelocyte",
    "eosinophil": "eosinophil",
    "basophil": "basophil",
    "monocyte": "monocyte",
    "lymphocyte": "lymphocyte",
    "erythroblast": "erythroblast",
    "no leukocyte": "artefact",
    "lymphoblast": "blast",
    "myeloblast": "blast",
}
"""Kinds of the types that an encoder tells, as ``looks_like`` in ``cells.csv`` names them."""
BY_CODE = {kind.code: kind for kind in KINDS}
ARTEFACT = "artefact"
