"""Adapter of AML-Cytomorphology_MLL_Helmholtz: genetic subtypes of AML and healthy controls.

Hehr et al., Explainable AI identifies diagnostic cells of genetic AML subtypes, PLOS Digital Health
2023 (SCEMILA). One folder a patient, in one of five class folders; ``metadata.csv`` gives age, sex
and the label again. Owns the translation of class folders into diagnoses and the comparison with
the table: a patient whose folder and row differ is an error, for nobody knows which is right.

The layout was not checked on the files: it is that of public loaders of the set. The experts' types
of some cells, which the authors' repository holds, are not read: how their numbers go with the
file names could not be verified.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from millie.errors import DataError, ManifestError, MissingError
from millie.readers.content import note, problem, unshared, without_copies
from millie.readers.images import find_images
from millie.readers.published import Dataset, Layout, count_notes
from millie.readers.table import Row, read_table
from millie.types import Cohort, ImageKind, ImageSource, Patient, PixelSize, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

LAYOUT = Layout(
    name="munich_aml",
    anchors=("data/",),
    tree="""\
ROOT/
├── metadata.csv      (patient_id, sex_1f_2m, age, bag_label, instance_count, ...)
└── data/
    ├── PML_RARA/<patient>/image_0.tif ...
    ├── {NPM1,CBFB_MYH11,RUNX1_RUNX1T1}/<patient>/*.tif
    └── control/<patient>/*.tif""",
)

LABELS = {
    "PML_RARA": "APL",
    "NPM1": "AML NPM1",
    "CBFB_MYH11": "AML CBFB::MYH11",
    "RUNX1_RUNX1T1": "AML RUNX1::RUNX1T1",
    "control": "normal",
}
"""Diagnosis of each class folder; APL is the AML with PML::RARA."""

PUBLISHED = {
    "APL": 24,
    "AML NPM1": 36,
    "AML CBFB::MYH11": 37,
    "AML RUNX1::RUNX1T1": 32,
    "normal": 60,
}
"""Patients of each diagnosis, 189 in all."""

UM_PX = 24.9 / 144
"""144 px are 24.9 um, by the paper."""

_TABLE = "metadata.csv"
_COLUMNS = ("patient_id", "bag_label")
_SEXES = {"1": "female", "2": "male"}


def prepare(root: Path) -> Cohort:
    """Read the published layout into a cohort; nothing is decoded.

    Args:
        root: the folder that holds ``metadata.csv`` and ``data``.

    Raises:
        ManifestError: the folder is not this set, the table breaks its rules, or it contradicts
            the folders.
    """
    root = LAYOUT.check(root)
    rows, problems = _rows(root)
    problems += _strangers(root, rows)
    patients = []
    for folder, label in LABELS.items():
        for place in _folders(root / "data" / folder):
            try:
                patient, notes = _patient(place, root, label, rows.get(place.name))
            except (DataError, MissingError) as error:
                if place.name in rows and isinstance(error, _Contradiction):
                    raise
                problems.append(problem(place.name, "", error, fatal=True))
                continue
            patients.append(patient)
            problems += notes
    if not patients:
        raise ManifestError(f"{root}: no patient in any class folder\n{LAYOUT.trees(root)}")
    _refuse_twice(patients)
    patients, shared = unshared(patients)
    counts = Counter(patient.label or "" for patient in patients)
    problems += [*shared, *count_notes(counts, PUBLISHED, "patients")]
    return Cohort("munich_aml", tuple(patients), tuple(problems))


class _Contradiction(ManifestError):
    """Folder and table give a patient two labels."""
