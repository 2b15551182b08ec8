"""Adapter of the Johns Hopkins APL against AML set (Sidhom et al., npj Precision Oncology 2021).

Owns what that set needs to become an honest cohort:

- Only APL patients have an extra folder level for the smear, so depth would give the label away:
  everything under a patient's folder is that patient's, and images are ordered by their digest,
  which depends on neither folder nor cell type.
- Identical files are one cell, counted once. Most of ``Unsigned slides`` repeats signed cells; a
  cell filed under two cell types gets no cell label. A file found under two patients is left out of
  both, because its owner is unknown.
- The class folders under ``Signed slides`` are technologists' cell types: they become
  ``cell_label``, for evaluation only. Images labelled as something other than a leukocyte stay in
  the bag, because leaving them out would use the cell labels.
- A few unsigned files are overviews at half the magnification: fields, not cells.
- Damaged files stay in the cohort, listed as problems here and again where they are decoded, so
  that the record travels with the images.

Scale. Neither the files nor the paper state it. Red cells that are whole, round (axes within 15 %)
and isolated measure 74.3 px in the crops (median of 74 patients' medians, 2,642 cells; 5 to 95 % of
patients 68 to 81 px) and 37.4 px in the five overviews; a mean red cell of 7.2 um gives 0.097 and
0.19 um/px. The ratio is 2.0 within the error: the set is taken as 0.1 and 0.2 um/px, the nominal
values of a 100x and a 50x objective on this scanner.
"""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from millie.config import ReadingConfig
from millie.errors import DataError, ManifestError, MissingError
from millie.files import is_visible
from millie.readers.content import (
    contested_note,
    copy_note,
    note,
    problem,
    sha256_of,
    shared_problem,
    unlisted,
)
from millie.readers.decoding import decoder_boundary, open_checked
from millie.readers.images import find_images, read_bytes
from millie.readers.published import Dataset, Layout
from millie.readers.table import Row, age_of, read_table
from millie.types import Cohort, Finding, ImageKind, ImageSource, Patient, PixelSize, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

LAYOUT = Layout(
    name="apl_aml",
    anchors=("master.csv", "All/"),
    tree="""\
ROOT/
├── master.csv                  (Patient_ID, Diagnosis, Cohort, Age at Diagnosis, Gender)
└── All/
    ├── Patient_00/
    │   ├── Signed slides/<cell type>/*.jpg
    │   └── Unsigned slides/*.jpg
    └── Patient_32/<smear>/Signed slides/<cell type>/*.jpg""",
)

CELL_UM_PX = 0.1
OVERVIEW_UM_PX = 0.2

PUBLISHED_PATIENTS = {("APL", "Discovery"): 22, ("AML", "Discovery"): 60}
"""Patients of the Discovery cohort by diagnosis; the later Validation cohort has the other 24."""
PUBLISHED_TOTAL = 106

SPLITS = {"discovery": "train", "validation": "test"}
"""The published protocol: learn on the Discovery cohort, test on the later one."""

CELL_TYPES = {
    "artifact": "artefact",
    "band neutrophils": "band neutrophil",
    "basophil": "basophil",
    "blast, no lineage spec": "blast",
    "eosinophils": "eosinophil",
    "erythroblast": "erythroblast",
    "giant thrombocyte": "giant thrombocyte",
    "lymphocyte": "lymphocyte",
    "lymphocyte, variant": "variant lymphocyte",
    "metamyelocyte": "metamyelocyte",
    "monocyte": "monocyte",
    "myelocyte": "myelocyte",
    "plasma cells": "plasma cell",
    "prolymphocyte": "prolymphocyte",
    "promonocyte": "promonocyte",
    "promyelocyte": "promyelocyte",
    "segmented neutrophils": "segmented neutrophil",
    "smudge cells": "smudge cell",
    "thrombocyte aggregation": "thrombocyte aggregation",
    "unidentified": "unidentified",
}
"""Class folders as published, in lower case, and the names of the types; typing errors apart."""

NON_LEUKOCYTES = frozenset(
    {"artefact", "erythroblast", "giant thrombocyte", "thrombocyte aggregation"}
)
"""Cell types that are no leukocytes; evaluation may leave them out, training may not."""

_MASTER_COLUMNS = ("patient_id", "diagnosis", "cohort", "age at diagnosis", "gender")
_OVERVIEW_SIDE_PX = 1000  # crops reach 440 px, overviews begin at 2,864
_SIGNED = "signed slides"


@dataclass(frozen=True, slots=True)
class _File:
    """One file on disk. ``cell_type`` is None unless signed; ``flaw`` names what is wrong."""

    path: Path
    name: str
    sha256: str
    signed: bool
    cell_type: str | None
    kind: ImageKind | None
    flaw: Problem | None


def prepare(root: Path) -> Cohort:
    """Read the published layout into a cohort.

    Every file is read once (for its digest and header), none is decoded. Labels, ``split``
    (Discovery is ``train``, Validation is ``test``), age and sex come from ``master.csv``.

    Args:
        root: the folder that holds ``master.csv`` and ``All``.

    Raises:
        ManifestError: the folder is not this set (the message shows both trees), or
            ``master.csv`` breaks its rules.
    """
    root = LAYOUT.check(root)
    rows = _read_master(root / "master.csv")
    problems = list(_strangers(root, rows))
    files: dict[str, list[_File]] = {}
    for id_ in rows:
        try:
            files[id_] = [_read_file(path, root, id_) for path in find_images(root / "All" / id_)]
        except (DataError, MissingError) as error:
            problems.append(problem(id_, "", error, fatal=True))
    problems += _leave_out_shared(files)
    patients = []
    for id_, own in files.items():
        images, found = _merge(id_, own)
        problems += found
        if images:
            patients.append(_patient(rows[id_], id_, images))
        else:
            nothing = ManifestError(f"{id_}: no images under {root / 'All' / id_}")
            problems.append(problem(id_, "", nothing, fatal=True))
    if not patients:
        raise ManifestError(
            f"{root}: no patient in master.csv has an image in All\n{LAYOUT.trees(root)}"
        )
    cohort = Cohort("apl_aml", tuple(patients), tuple(problems))
    notes = (*_type_notes(files, cohort), *_count_notes(cohort))
    return Cohort(cohort.name, cohort.patients, (*cohort.problems, *notes))


def _read_master(path: Path) -> dict[str, Row]:
    """Rows of ``master.csv`` by patient, in its order."""
    columns, table = read_table(path)
    missing = [column for column in _MASTER_COLUMNS if column not in columns]
    if missing:
        raise ManifestError(
            f"{path}: column {', '.join(missing)} missing; found {', '.join(columns)}. "
            "Use the file as published"
        )
    rows: dict[str, Row] = {}
    for row in table:
        id_ = row.cells["patient_id"].strip()
        if not id_ or PurePath(id_).name != id_:
            raise row.fail(path, f"Patient_ID '{id_}' is not a folder name; use the published file")
        if id_ in rows:
            raise row.fail(path, f"{id_} is already on line {rows[id_].line}; remove one")
        if row.cells["diagnosis"].strip() not in {"APL", "AML"}:
            raise row.fail(
                path, f"unknown label '{row.cells['diagnosis']}' of {id_}; expected APL or AML"
            )
        if row.cells["cohort"].strip().lower() not in SPLITS:
            raise row.fail(
                path,
                f"unknown cohort '{row.cells['cohort']}' of {id_}; "
                "expected Discovery or Validation",
            )
        rows[id_] = row
    return rows


def _strangers(root: Path, rows: Mapping[str, Row]) -> Iterator[Problem]:
    """Folders without a diagnosis."""
    for folder in sorted((root / "All").iterdir()):
        if folder.is_dir() and is_visible(folder.name) and folder.name not in rows:
            text = f"All/{folder.name} has no row in master.csv: left out"
            yield unlisted(folder.name, "", text)


def _read_file(path: Path, root: Path, patient: str) -> _File:
    name = path.relative_to(root).as_posix()
    folders = [part.lower() for part in path.relative_to(root).parts[:-1]]
    signed = _SIGNED in folders
    deeper = folders[folders.index(_SIGNED) + 1 :] if signed else []
    config = ReadingConfig()
    data, kind, flaw = b"", None, None
    try:
        data = read_bytes(path, name, config)
        with decoder_boundary(name):
            size = open_checked(data, name, config).size
        kind = ImageKind.FIELD if max(size) >= _OVERVIEW_SIDE_PX else ImageKind.CELL
    except (DataError, MissingError) as error:
        flaw = problem(patient, name, error)
    # Files without content are not copies of each other: their name stands for it.
    return _File(
        path=path,
        name=name,
        sha256=sha256_of(data or name.encode(errors="surrogatepass")),
        signed=signed,
        cell_type=cell_type(deeper[0]) if deeper else None,
        kind=kind,
        flaw=flaw,
    )


def cell_type(folder: str) -> str:
    """The type that a class folder stands for, with typing errors (``Arifact``) corrected.

    A folder like no published one gives its own name in lower case.
    """
    name = " ".join(folder.lower().split())
    if name in CELL_TYPES:
        return CELL_TYPES[name]
    near = difflib.get_close_matches(name, CELL_TYPES, n=1, cutoff=0.85)
    return CELL_TYPES[near[0]] if near else name


def _leave_out_shared(files: dict[str, list[_File]]) -> Iterator[Problem]:
    """Take out, in place, every image whose bytes occur in two patients."""
    owners: dict[str, set[str]] = defaultdict(set)
    for id_, own in files.items():
        for file in own:
            owners[file.sha256].add(id_)
    for id_, own in files.items():
        for file in [f for f in own if len(owners[f.sha256]) > 1]:
            own.remove(file)
            whose = ", ".join(sorted(owners[file.sha256]))
            yield shared_problem(id_, file.name, whose)


def _merge(patient: str, files: Iterable[_File]) -> tuple[tuple[ImageSource, ...], list[Problem]]:
    """One image for each content, ordered by digest, and what is to be said about them."""
    problems: list[Problem] = []
    by_content: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        by_content[file.sha256].append(file)
    images = []
    for _, same in sorted(by_content.items()):
        kept, *copies = sorted(same, key=lambda f: (not f.signed, f.name))
        problems += [copy_note(patient, copy.name, kept.name) for copy in copies]
        types = sorted({f.cell_type for f in same if f.cell_type is not None})
        if len(types) > 1:
            problems.append(contested_note(patient, kept.name, types))
        if kept.flaw is not None:
            problems.append(kept.flaw)
        if kept.kind is ImageKind.FIELD:
            text = "an overview image: read as a field, not as a single cell"
            problems.append(note(patient, kept.name, text, Finding.OVERVIEW))
        images.append(_source(kept, types[0] if len(types) == 1 else None))
    return tuple(images), problems


def _source(file: _File, label: str | None) -> ImageSource:
    scale = {ImageKind.CELL: PixelSize(CELL_UM_PX), ImageKind.FIELD: PixelSize(OVERVIEW_UM_PX)}
    return ImageSource(
        path=file.path,
        name=file.name,
        kind=file.kind,
        pixel_size=scale.get(file.kind) if file.kind else None,
        cell_label=label,
    )


def _patient(row: Row, id_: str, images: tuple[ImageSource, ...]) -> Patient:
    return Patient(
        id=id_,
        label=row.cells["diagnosis"].strip(),
        images=images,
        site="Johns Hopkins",
        scanner="CellaVision",
        split=SPLITS[row.cells["cohort"].strip().lower()],
        age=age_of(row.cells["age at diagnosis"]),
        sex=row.cells["gender"].strip(),
    )


def _type_notes(files: Mapping[str, Sequence[_File]], cohort: Cohort) -> Iterator[Problem]:
    """Types that no published folder has, and images signed as no leukocyte."""
    labels = Counter(i.cell_label for p in cohort.patients for i in p.images if i.cell_label)
    odd = {t: n for t, n in labels.items() if t in NON_LEUKOCYTES}
    if odd:
        named = ", ".join(f"{n} {t}" for t, n in sorted(odd.items()))
        text = "not leukocytes by their label, but kept (cell labels are used for evaluation only)"
        yield note("", "", f"{named}: {text}")
    seen = {f.cell_type for own in files.values() for f in own if f.cell_type}
    for name in sorted(seen - set(CELL_TYPES.values())):
        yield note("", "", f"cell type '{name}' is not a published one: kept as written")


def _count_notes(cohort: Cohort) -> Iterator[Problem]:
    """Say where the numbers of patients are not the published ones: a subset is no failure."""
    total = len(cohort.patients)
    if total != PUBLISHED_TOTAL:
        yield note("", "", f"{total} of the {PUBLISHED_TOTAL} published patients: a subset")
    splits = {split: name.capitalize() for name, split in SPLITS.items()}
    got = Counter((p.label, splits[p.split]) for p in cohort.patients)
    for (label, name), published in PUBLISHED_PATIENTS.items():
        if got[label, name] != published:
            text = f"{label} patients in {name}: {got[label, name]}; published: {published}"
            yield note("", "", text)


APL_AML = Dataset(
    name="apl_aml",
    summary="APL against other AML, single cells of blood films, 106 patients",
    description=(
        "CellaVision crops of single leukocytes in peripheral blood, APL against other AML: 106 "
        "patients, 25,724 files, 0.1 um/px (Sidhom et al., npj Precision Oncology 2021). The "
        "Discovery cohort becomes split 'train', the later Validation cohort split 'test'."
    ),
    source=(
        "figshare doi 10.6084/m9.figshare.14294675; "
        "kaggle.com/eugeneshenderov/acute-promyelocytic-leukemia-apl; github.com/sidhomj/DeepAPL"
    ),
    terms="Copyright Johns Hopkins University; see the source before any use.",
    patients="As published; everything under a patient's folder is that patient's.",
    labels="APL, AML (from master.csv).",
    traps=(
        (
            "Only APL patients have an extra folder level for the smear, so folder depth gives the "
            "label away: images are ordered by their digest instead."
        ),
        "Most files in Unsigned slides are copies of signed cells: counted once.",
        "A cell filed under two cell types gets no cell label.",
        "A few unsigned files are overviews at half the magnification: read as fields.",
        "A few files are truncated: they are listed, not silently dropped.",
        "The class folders are cell labels: used for evaluation only.",
        "The Validation cohort was collected later; a random split over both hides this.",
    ),
    verified="Against the published files of the Discovery cohort.",
    layout=LAYOUT,
    prepare=prepare,
)
