"""Adapters of fields with a list of diagnoses: the ASH image bank, bone marrow of Riechert et al.

Neither set has a published folder layout that could be checked. The ASH image bank is a web site
from which single images are saved; the bone-marrow set (Eckardt et al. 2022, with S. Riechert) is
available from its authors. So the layout here is millie's own: images, and a list ``diagnoses.csv``
that says what each shows. Owns that list, the spellings of a diagnosis, and the boxes around cells.

``diagnoses.csv``: columns ``image`` (path from the root), ``diagnosis``, and optional ``patient``,
``um_px``, ``age``, ``sex``, ``site``. Without ``patient`` each image counts as one; images of one
person must share their ``patient``, otherwise they end up in different folds.

``cells/<image>.csv`` (bone marrow): columns ``y0``, ``x0``, ``y1``, ``x1`` and optional ``type``,
in that order, row before column, header optional. Read as x before y the boxes would be mirrored
at the diagonal, and on a nearly square image nobody would notice: a box outside its image is an
error. For evaluation only.
"""

from __future__ import annotations

import csv
import difflib
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from millie.config import ReadingConfig
from millie.errors import ConfigError, ManifestError, MissingFileError
from millie.readers.content import note, problem, unlisted, unshared, without_copies
from millie.readers.decoding import decoder_boundary, open_checked
from millie.readers.headers import missing_text
from millie.readers.images import find_images, read_bytes
from millie.readers.published import CellAnnotation, Dataset, Layout, count_notes
from millie.readers.spelling import Spellings, existing, tidy
from millie.readers.table import Row, age_of, read_table
from millie.types import Cohort, ImageKind, ImageSource, Patient, PixelSize, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LIST = "diagnoses.csv"
_COLUMNS = ("image", "diagnosis")
_OPTIONAL = ("patient", "um_px", "age", "sex", "site")
_BOX = ("y0", "x0", "y1", "x1")

DIAGNOSES = {
    "acute lymphoblastic leukemia": "ALL",
    "acute myeloid leukemia": "AML",
    "acute promyelocytic leukemia": "APL",
    "all": "ALL",
    "aml": "AML",
    "aml m3": "APL",
    "apl": "APL",
    "apml": "APL",
    "control": "normal",
    "donor": "normal",
    "healthy": "normal",
    "normal": "normal",
}
"""Words of lists, lower case, American spelling, without hyphens, and the label they stand for."""

_ASH_LAYOUT = Layout(
    name="ash",
    anchors=(LIST,),
    tree=f"""\
ROOT/
├── {LIST}        (image, diagnosis; optional patient, um_px, age, sex, site)
└── *.jpg, or in folders, as the column image says""",
)
_MARROW_LAYOUT = Layout(
    name="marrow_riechert",
    anchors=(LIST, "images/"),
    tree=f"""\
ROOT/
├── {LIST}        (image, diagnosis; optional patient, um_px, age, sex, site)
├── images/*.jpg         (fields of view)
└── cells/<image>.csv    (optional: y0, x0, y1, x1, type; one cell per line)""",
)


def prepare(root: Path, layout: Layout, published: Mapping[str, int]) -> Cohort:
    """Read a list of diagnoses and its images into a cohort of fields; nothing is decoded.

    Args:
        root: the folder that holds ``diagnoses.csv``.
        layout: of the set.
        published: samples by label, to compare with.

    Raises:
        ManifestError: the folder is not this set, or the list breaks its rules: a column is
            missing, an unknown diagnosis, an image twice, a path out of the root, a patient with
            two diagnoses, no image at all.
    """
    root = layout.check(root)
    path = root / LIST
    columns, rows = read_table(path)
    if text := missing_text(_COLUMNS, columns, (*_COLUMNS, *_OPTIONAL)):
        raise ManifestError(f"{path}: {text}\n{layout.trees(root)}")
    problems: list[Problem] = []
    own: dict[str, list[tuple[Row, ImageSource]]] = {}
    spellings = Spellings(path)
    for id_, row, image in _listed(path, rows, spellings):
        if image.path.is_file():
            own.setdefault(id_, []).append((row, image))
        else:
            error = MissingFileError(f"line {row.line}: {image.name} does not exist")
            problems.append(problem(id_, image.name, error))
    if not own:
        raise ManifestError(f"{path}: none of the listed images exists\n{layout.trees(root)}")
    patients = []
    for id_, pairs in own.items():
        images, copies = without_copies(id_, [image for _, image in pairs])
        patients.append(_patient(path, id_, [row for row, _ in pairs], images, spellings))
        problems += copies
    patients, shared = unshared(patients)
    problems += [*shared, *_unlisted(root, rows), *_patient_note(columns), *spellings.notes()]
    counts = Counter(patient.label or "" for patient in patients)
    problems += count_notes(counts, published, "samples")
    return Cohort(layout.name, tuple(patients), tuple(problems))


def diagnosis(text: str) -> str | None:
    """The label that a diagnosis in a list stands for; None if it is not known."""
    words = tidy(text).lower().replace("leukaemia", "leukemia").replace("-", " ")
    return DIAGNOSES.get(" ".join(words.split()))


def _listed(
    path: Path, rows: list[Row], spellings: Spellings
) -> Iterator[tuple[str, Row, ImageSource]]:
    """Patient and image of each row, checked."""
    root = path.parent
    lines: dict[Path, int] = {}
    for row in rows:
        name = row.cells["image"].strip().replace("\\", "/")
        if not name or "\0" in name:
            raise row.fail(path, "column image is empty or invalid; give a file")
        place = (existing(root, name) or root / name).resolve()
        if not place.is_relative_to(root):
            raise row.fail(path, f"{name} is outside {root}; copy the image there")
        if place in lines:
            raise row.fail(path, f"{name} is already on line {lines[place]}; remove one")
        lines[place] = row.line
        image = ImageSource(
            path=place,
            name=place.relative_to(root).as_posix(),
            kind=ImageKind.FIELD,
            pixel_size=_scale(path, row, spellings),
        )
        yield spellings.name(row, "patient") or image.name, row, image


def _scale(path: Path, row: Row, spellings: Spellings) -> PixelSize | None:
    text = spellings.value(row, "um_px")
    try:
        return PixelSize(float(text)) if text else None
    except (ConfigError, ValueError) as error:
        raise row.fail(path, f"um_px '{text}': expected um/px, such as 0.1 ({error})") from error


def _patient(
    path: Path,
    id_: str,
    rows: list[Row],
    images: tuple[ImageSource, ...],
    spellings: Spellings,
) -> Patient:
    labels: dict[str, Row] = {}
    for row in rows:
        label = diagnosis(row.cells["diagnosis"])
        if label is None:
            near = difflib.get_close_matches(row.cells["diagnosis"].lower(), DIAGNOSES, n=1)
            meant = f"; did you mean '{near[0]}'?" if near else ""
            raise row.fail(
                path,
                f"unknown diagnosis '{row.cells['diagnosis']}'; expected one of "
                f"{', '.join(sorted(set(DIAGNOSES.values())))}, or written out{meant}",
            )
        labels.setdefault(label, row)
    if len(labels) > 1:
        (one, first), (two, second) = list(labels.items())[:2]
        raise second.fail(
            path, f"patient {id_} has {two}, but {one} on line {first.line}; correct one"
        )
    return Patient(
        id=id_,
        label=next(iter(labels)),
        images=images,
        site=spellings.value(rows[0], "site"),
        age=age_of(spellings.value(rows[0], "age")),
        sex=spellings.value(rows[0], "sex"),
    )


def _unlisted(root: Path, rows: list[Row]) -> Iterator[Problem]:
    names = [row.cells["image"].strip().replace("\\", "/") for row in rows]
    listed = {(existing(root, name) or root / name).resolve() for name in names}
    for path in find_images(root):
        if path.resolve() not in listed:
            name = path.relative_to(root).as_posix()
            yield unlisted("", name, f"no row in {LIST}: left out")


def _patient_note(columns: list[str]) -> Iterator[Problem]:
    if "patient" not in columns:
        text = f"{LIST} has no column patient: each image counts as one patient"
        yield note("", "", f"{text}; give all images of one person the same patient")


def boxes(root: Path) -> dict[str, tuple[CellAnnotation, ...]]:
    """Boxes around cells of the bone-marrow set, by name of the image; for evaluation only.

    Raises:
        ManifestError: the folder is not this set, a line is not a box, or a box leaves its image
            (the order is y0, x0, y1, x1).
    """
    root = _MARROW_LAYOUT.check(root)
    found = {}
    for path in find_images(root / "images"):
        table = root / "cells" / f"{path.stem}.csv"
        if table.is_file():
            name = path.relative_to(root).as_posix()
            found[name] = tuple(_boxes(table, *_size(path, name)))
    return found


def _size(path: Path, name: str) -> tuple[int, int]:
    config = ReadingConfig()
    data = read_bytes(path, name, config)
    with decoder_boundary(name):
        return open_checked(data, name, config).size


def _boxes(table: Path, width_px: int, height_px: int) -> Iterator[CellAnnotation]:
    text = table.read_text("utf-8-sig", errors="replace")
    for line, cells in enumerate(csv.reader(text.splitlines()), 1):
        values = [cell.strip() for cell in cells]
        if not any(values) or (line == 1 and tuple(v.lower() for v in values[:4]) == _BOX):
            continue
        try:
            y0, x0, y1, x1 = (float(value) for value in values[:4])
        except ValueError as error:
            raise ManifestError(
                f"{table}, line {line}: {', '.join(cells)} is not a box; expected y0, x0, y1, x1, "
                "type"
            ) from error
        if not (0 <= x0 < x1 <= width_px and 0 <= y0 < y1 <= height_px):
            raise ManifestError(
                f"{table}, line {line}: box y {y0:g} to {y1:g}, x {x0:g} to {x1:g} is outside the "
                f"image ({width_px} x {height_px} px); expected the order y0, x0, y1, x1"
            )
        label = values[4].lower() if len(values) > 4 else ""
        yield CellAnnotation((x0 + x1) / 2, (y0 + y1) / 2, label, (x0, y0, x1 - x0, y1 - y0))


ASH = Dataset(
    name="ash",
    summary="images saved from the ASH image bank, with a list of diagnoses",
    description=(
        "Fields of blood films and bone marrow that you save from the image bank of the American "
        "Society of Hematology. The MILLIE paper used 63 images of AML, and 30 of APL against 40 "
        "of normal films and other AML; it does not say which."
    ),
    source="imagebank.hematology.org, image by image; write diagnoses.csv yourself.",
    terms="Copyright ASH and the contributors; see the site's terms of use before any use.",
    patients="From the column patient; without it each image counts as one.",
    labels=f"{', '.join(sorted(set(DIAGNOSES.values())))}, abbreviated or written out.",
    traps=(
        (
            "There is no bulk download and no fixed list: every user has a different set, and no "
            "published count to compare it with."
        ),
        (
            "Microscope, camera and magnification differ from image to image and um/px is not "
            "given: fill in um_px where you know it, otherwise it is estimated from red cells."
        ),
        "Many images have arrows, scale bars, text or several panels: leave those out.",
        "A case often has several images: give them the same patient.",
        "With healthy films from another source, camera and diagnosis cannot be told apart.",
    ),
    verified="millie's own layout; the image bank has none.",
    layout=_ASH_LAYOUT,
    prepare=partial(prepare, layout=_ASH_LAYOUT, published={}),
)

MARROW_RIECHERT = Dataset(
    name="marrow_riechert",
    summary="bone marrow of AML, APL and healthy donors, 1,331 samples",
    description=(
        "Fields of bone-marrow smears at 50x with boxes around cells: 236 healthy donors, 1,052 "
        "AML and 43 APL according to the MILLIE paper (Eckardt et al., BMC Cancer 2022, count 236, "
        "1,048 and 51)."
    ),
    source=(
        "The authors (Technical University and University Hospital Dresden); Eckardt et al., doi "
        "10.1186/s12885-022-09307-8, availability of data."
    ),
    terms="As the authors grant; see the paper before any use.",
    patients="From the column patient; without it each image counts as one.",
    labels="APL, AML, normal (from diagnoses.csv).",
    traps=(
        "Boxes are y0, x0, y1, x1, row before column: a box outside its image is refused.",
        (
            "Patients come from multicentre trials, healthy donors do not: check the confounder "
            "controls."
        ),
        "50x: a cell is half as many pixels across as at 100x; fill in um_px, or it is estimated.",
        "43 APL in 1,331: accuracy is meaningless, as never calling APL already gives 0.97.",
    ),
    verified="millie's own layout (the published one could not be checked): arrange files like it.",
    layout=_MARROW_LAYOUT,
    prepare=partial(
        prepare, layout=_MARROW_LAYOUT, published={"normal": 236, "AML": 1052, "APL": 43}
    ),
    annotations=boxes,
)
