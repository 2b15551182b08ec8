"""Adapter of AML-Cytomorphology_MLL_Helmholtz: genetic subtypes of AML and healthy controls.

Hehr et al., Explainable AI identifies diagnostic cells of genetic AML subtypes, PLOS Digital Health
2023 (SCEMILA). One folder per patient, in one of five class folders; ``metadata.csv`` gives age,
sex and the label again. Owns the translation of class folders into diagnoses and the comparison
with the table: a patient whose folder and row disagree is an error, because either may be wrong.

The layout was not checked against the files: it is that of public loaders of the set. The expert
cell types in the authors' repository are not read: how their numbers map to the file names could
not be verified.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from millie.errors import DataError, ManifestError, MissingError
from millie.files import is_visible
from millie.readers.content import note, problem, unlisted, unshared, without_copies
from millie.readers.images import find_images
from millie.readers.published import Dataset, Layout, count_notes
from millie.readers.table import Row, age_of, read_table
from millie.types import Cohort, ImageKind, ImageSource, Patient, PixelSize, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
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
_SEXES = {"1": "Female", "2": "Male"}


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
    places = [place for folder in LABELS for place in _folders(root / "data" / folder)]
    _check_places(root, places, rows)
    problems += _strangers(root, places, rows)
    patients = []
    for place in places:
        try:
            patient, copies = _patient(place, root, rows.get(place.name))
        except (DataError, MissingError) as error:
            problems.append(problem(place.name, "", error, fatal=True))
            continue
        patients.append(patient)
        problems += copies
    if not patients:
        raise ManifestError(f"{root}: no patients in any class folder\n{LAYOUT.trees(root)}")
    patients, shared = unshared(patients)
    counts = Counter(patient.label or "" for patient in patients)
    problems += [*shared, *count_notes(counts, PUBLISHED, "patients")]
    return Cohort("munich_aml", tuple(patients), tuple(problems))


def _rows(root: Path) -> tuple[dict[str, Row], list[Problem]]:
    """Rows of the table by patient; without the table a note."""
    path = root / _TABLE
    if not path.is_file():
        others = [p.name for p in sorted(root.iterdir()) if "metadata" in p.name.lower()]
        hint = f" (found {', '.join(others)}: save its table as {_TABLE})" if others else ""
        text = f"{_TABLE} is missing{hint}: age and sex unknown, labels not cross-checked"
        return {}, [note("", "", text)]
    columns, table = read_table(path)
    missing = [column for column in _COLUMNS if column not in columns]
    if missing:
        raise ManifestError(
            f"{path}: column {', '.join(missing)} missing; found {', '.join(columns)}. "
            "Use the file as published"
        )
    rows: dict[str, Row] = {}
    for row in table:
        id_ = row.cells["patient_id"].strip()
        if id_ in rows:
            raise row.fail(path, f"{id_} is already on line {rows[id_].line}; remove one")
        rows[id_] = row
    return rows, []


def _folders(place: Path) -> list[Path]:
    if not place.is_dir():
        return []
    return sorted(p for p in place.iterdir() if p.is_dir() and is_visible(p.name))


def _check_places(root: Path, places: Sequence[Path], rows: Mapping[str, Row]) -> None:
    """Refuse a patient in two class folders, or in another than the table says."""
    first: dict[str, Path] = {}
    for place in places:
        other = first.setdefault(place.name, place)
        if other is not place:
            raise ManifestError(
                f"patient {place.name} is in both {other.parent.name} and {place.parent.name}; "
                "unpack the set again"
            )
        row = rows.get(place.name)
        if row is not None and row.cells["bag_label"].strip() != place.parent.name:
            raise row.fail(
                root / _TABLE,
                f"{place.name} is {row.cells['bag_label']} here, but its folder is in "
                f"data/{place.parent.name}; unpack the set again",
            )


def _strangers(root: Path, places: Sequence[Path], rows: Mapping[str, Row]) -> Iterator[Problem]:
    """Class folders that are not published, and patients of the table without a folder."""
    for folder in _folders(root / "data"):
        if folder.name not in LABELS:
            place = f"data/{folder.name}"
            yield unlisted("", place, f"{place} is not a published class: left out")
    absent = sorted(set(rows) - {place.name for place in places})
    if absent:
        some = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        yield note("", "", f"patients in {_TABLE} without a folder: {len(absent)} ({some})")


def _patient(place: Path, root: Path, row: Row | None) -> tuple[Patient, tuple[Problem, ...]]:
    scale = PixelSize(UM_PX)
    found = [
        ImageSource(
            path=path,
            name=path.relative_to(root).as_posix(),
            kind=ImageKind.CELL,
            pixel_size=scale,
        )
        for path in find_images(place)
    ]
    if not found:
        raise ManifestError(f"{place.name}: no images under {place}")
    images, copies = without_copies(place.name, found)
    cells = row.cells if row is not None else {}
    patient = Patient(
        id=place.name,
        label=LABELS[place.parent.name],
        images=images,
        site="Munich Leukemia Laboratory",
        age=age_of(cells.get("age", "")),
        sex=_SEXES.get(cells.get("sex_1f_2m", "").strip().removesuffix(".0"), ""),
    )
    return patient, copies


MUNICH_AML = Dataset(
    name="munich_aml",
    summary="genetic subtypes of AML (APL among them) and controls, 189 patients",
    description=(
        "Crops of single leukocytes in peripheral blood, 144 x 144 px (24.9 um), TIFF, of 129 "
        "patients with AML (24 APL, 36 NPM1, 37 CBFB::MYH11, 32 RUNX1::RUNX1T1) and 60 controls, "
        "about 430 a patient (Hehr et al., PLOS Digital Health 2023)."
    ),
    source="The Cancer Imaging Archive, AML-Cytomorphology_MLL_Helmholtz, doi 10.7937/6PPE-4020.",
    terms="Creative Commons Attribution as on the collection's page; TCIA data usage policy.",
    patients="As published: one folder each.",
    labels="APL, AML NPM1, AML CBFB::MYH11, AML RUNX1::RUNX1T1, normal (from the class folders).",
    traps=(
        (
            "The differential count in the table has no abnormal promyelocytes: those of APL are "
            "counted as myeloblasts."
        ),
        "At 0.17 um/px a crop has a third of the pixels of other sets: compare at the same um/px.",
        "metadata.csv may come as a spreadsheet: save the table as CSV UTF-8.",
    ),
    verified="Not against files: folders as in public loaders, scale and counts from the paper.",
    layout=LAYOUT,
    prepare=prepare,
)
