"""Adapters of ALL-IDB1 (fields of blood film) and ALL-IDB2 (cells cut out of them).

Labati, Piuri, Scotti: ALL-IDB, the acute lymphoblastic leukemia image database for image
processing, ICIP 2011. Owns what both need to become honest cohorts:

- File names end in ``_1`` (ALL) or ``_0`` (healthy). Patients are unknown, so each image counts as
  one. Several images may come from one person: splits by image flatter every result.
- Two cameras. The fields of 1712 x 1368 px are all ALL; all healthy ones are 2592 x 1944 px. Size
  alone gives the class away, so each image gets the scale of its camera and everything later is cut
  in micrometres. Red cells of 7.2 um give 0.110 and 0.088 um/px (the resolution in the files, 144
  and 180 dpi, is of no use).
- ``Im093_0`` and ``Im108_0`` of ALL-IDB1 are the same file.
- Every crop of ALL-IDB2 was cut from an ALL-IDB1 field without rescaling: the sets are not
  independent. Matching by correlation with 24 of the fields found 14 of 60 crops (r > 0.97), each
  in a field of its own class and in the order of the fields. Crops up to Im071 come from the camera
  of the small fields, Im080 onwards from the other; the eight in between could not be assigned.

The ``.xyc`` files of ALL-IDB1 hold the centres of blasts, one ``x y`` a line: for evaluation only.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from millie.config import ReadingConfig
from millie.errors import DataError, ManifestError, MissingError
from millie.readers.content import note, problem, unlisted, unshared
from millie.readers.decoding import decoder_boundary, open_checked
from millie.readers.images import find_images, read_bytes
from millie.readers.published import CellAnnotation, Dataset, Layout, count_notes
from millie.types import Cohort, Finding, ImageKind, ImageSource, Patient, PixelSize, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

LAYOUT_1 = Layout(
    name="all_idb1",
    anchors=("im/",),
    tree="""\
ROOT/
├── im/Im001_1.jpg ... Im108_0.jpg      (_1: ALL, _0: healthy)
└── xyc/Im001_1.xyc ... Im108_0.xyc     (centres of blasts: x y, one per line)""",
)
LAYOUT_2 = Layout(
    name="all_idb2",
    anchors=("img/",),
    tree="""\
ROOT/
└── img/Im001_1.tif ... Im260_0.tif     (_1: ALL blast, _0: cell of a healthy donor)""",
)

LABELS = {"1": "ALL", "0": "normal"}
PUBLISHED_1 = {"ALL": 49, "normal": 59}
PUBLISHED_2 = {"ALL": 130, "normal": 130}

CAMERAS = {(1712, 1368): 0.110, (2592, 1944): 0.088}
"""Fields' width and height in px, and um/px measured on red cells."""
_SMALL_FIELDS, _LARGE_FIELDS = CAMERAS

_LAST_SMALL, _FIRST_LARGE = 71, 80  # numbers of ALL-IDB2 crops whose camera is known
_NAME = re.compile(r"im(\d{3})_([01])", re.IGNORECASE)
_BLAST, _NO_BLAST = "lymphoblast", "no blast"


def prepare_fields(root: Path) -> Cohort:
    """Read ALL-IDB1 into a cohort of fields; headers are read, nothing is decoded.

    Args:
        root: the folder that holds ``im`` and ``xyc``.

    Raises:
        ManifestError: the folder is not this set, or no file in it has such a name.
    """
    root = LAYOUT_1.check(root)
    named, problems = _named(root, "im", LAYOUT_1)
    patients = []
    for path, _, label in named:
        patient, flaw = _field(path, root, label)
        patients.append(patient)
        problems += [flaw] if flaw else []
    patients, copies = unshared(patients)
    problems += [*copies, *_camera_note(patients), *_mark_note(root, patients)]
    return _cohort("all_idb1", patients, problems, PUBLISHED_1)


def prepare_cells(root: Path) -> Cohort:
    """Read ALL-IDB2 into a cohort of single cells, each a patient of its own.

    Args:
        root: the folder that holds ``img``.

    Raises:
        ManifestError: the folder is not this set, or no file in it has such a name.
    """
    root = LAYOUT_2.check(root)
    named, problems = _named(root, "img", LAYOUT_2)
    patients = []
    for path, number, label in named:
        size = _camera_of_crop(number)
        image = ImageSource(
            path=path,
            name=path.relative_to(root).as_posix(),
            kind=ImageKind.CELL,
            pixel_size=PixelSize(CAMERAS[size]) if size else None,
            cell_label=_BLAST if label == LABELS["1"] else _NO_BLAST,
        )
        patients.append(Patient(path.stem, label, (image,), scanner=_camera_name(size)))
    patients, copies = unshared(patients)
    text = "every cell was cut from an ALL-IDB1 field: not a test set for a model trained on those"
    return _cohort("all_idb2", patients, [*problems, *copies, note("", "", text)], PUBLISHED_2)


def blasts(root: Path) -> dict[str, tuple[CellAnnotation, ...]]:
    """The centres of blasts in ALL-IDB1, by name of the image; for evaluation only.

    A field with no blast has an empty tuple; one without a file of centres is not in the result.

    Raises:
        ManifestError: the folder is not this set, or a line is not two numbers.
    """
    root = LAYOUT_1.check(root)
    named, _ = _named(root, "im", LAYOUT_1)
    return {
        path.relative_to(root).as_posix(): tuple(_marks(marks))
        for path, _, _ in named
        if (marks := _marks_of(root, path)).is_file()
    }


def _marks_of(root: Path, image: Path) -> Path:
    return root / "xyc" / f"{image.stem}.xyc"


def _marks(path: Path) -> Iterator[CellAnnotation]:
    for line, text in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        if not text.strip():
            continue
        try:
            x_px, y_px = (float(value) for value in text.split())
        except ValueError as error:
            raise ManifestError(
                f"{path}, line {line}: '{text}' is not x and y in pixels; use the published file"
            ) from error
        yield CellAnnotation(x_px, y_px, _BLAST)


def _named(
    root: Path, folder: str, layout: Layout
) -> tuple[list[tuple[Path, int, str]], list[Problem]]:
    """Files with their number and label, and those whose name gives neither."""
    named, problems = [], []
    for path in find_images(root / folder):
        match = _NAME.fullmatch(path.stem)
        if match:
            named.append((path, int(match[1]), LABELS[match[2]]))
        else:
            text = "no label in the file name (expected a name like Im001_1): left out"
            problems.append(unlisted("", path.relative_to(root).as_posix(), text))
    if not named:
        raise ManifestError(
            f"{root} is not the set {layout.name}; no image in {folder} has a name like Im001_1\n"
            f"{layout.trees(root)}"
        )
    return named, problems


def _field(path: Path, root: Path, label: str) -> tuple[Patient, Problem | None]:
    name = path.relative_to(root).as_posix()
    flaw, size = None, None
    config = ReadingConfig()
    try:
        data = read_bytes(path, name, config)
        with decoder_boundary(name):
            size = open_checked(data, name, config).size
        if size not in CAMERAS:
            text = f"{size[0]} x {size[1]} px is not a size found in ALL-IDB1: scale left unknown"
            flaw = note(path.stem, name, text, Finding.NO_SCALE)
    except (DataError, MissingError) as error:
        flaw = problem(path.stem, name, error)
    um_px = CAMERAS.get(size) if size else None
    scale = PixelSize(um_px) if um_px else None
    image = ImageSource(path=path, name=name, kind=ImageKind.FIELD, pixel_size=scale)
    return Patient(path.stem, label, (image,), scanner=_camera_name(size)), flaw


def _camera_of_crop(number: int) -> tuple[int, int] | None:
    if number <= _LAST_SMALL:
        return _SMALL_FIELDS
    return _LARGE_FIELDS if number >= _FIRST_LARGE else None


def _camera_name(size: tuple[int, int] | None) -> str:
    return f"camera {size[0]} x {size[1]}" if size else ""


def _camera_note(patients: Iterable[Patient]) -> Iterator[Problem]:
    held = Counter((patient.scanner, patient.label) for patient in patients)
    small = _camera_name(_SMALL_FIELDS)
    if held[small, "ALL"] and not held[small, "normal"]:
        yield note(
            "",
            "",
            f"all {held[small, 'ALL']} images of 1712 x 1368 px show ALL: image size gives the "
            "class away; cut cells in um (crops.size_um), and check the confounder controls",
        )


def _mark_note(root: Path, patients: Iterable[Patient]) -> Iterator[Problem]:
    images = [patient.images[0].path for patient in patients]
    absent = sum(not _marks_of(root, path).is_file() for path in images)
    if absent:
        text = f"{absent} of {len(images)} images have no file of blast centres in xyc"
        yield note("", "", f"{text}: cells found in them cannot be checked")


def _cohort(
    name: str, patients: list[Patient], problems: list[Problem], published: dict[str, int]
) -> Cohort:
    counts = Counter(patient.label or "" for patient in patients)
    text = "patients unknown: each image counts as one, and several may come from one person"
    notes = [note("", "", text), *count_notes(counts, published, "images")]
    return Cohort(name, tuple(patients), (*problems, *notes))


_SOURCE = "On request from the University of Milan: scotti.di.unimi.it/all (form, then a link)."
_TERMS = "Research use after a signed request; cite Labati, Piuri, Scotti 2011; no redistribution."
_BY_IMAGE = "Unknown: each image counts as one. Images of one person may end up in two folds."

ALL_IDB1 = Dataset(
    name="all_idb1",
    summary="ALL against healthy donors, fields of blood films, 108 images",
    description=(
        "Fields of view of peripheral blood, 49 with ALL and 59 healthy, JPEG, with the centres of "
        "blasts marked; 0.110 um/px (1712 x 1368 px) and 0.088 um/px (2592 x 1944 px), measured on "
        "red cells. The MILLIE paper counts 57 and 69."
    ),
    source=_SOURCE,
    terms=_TERMS,
    patients=_BY_IMAGE,
    labels="ALL, normal (from the file names: _1, _0).",
    traps=(
        (
            "All images of 1712 x 1368 px show ALL: size, scale and camera give the class away. "
            "Each image gets its own um/px, and its camera is given in the column scanner."
        ),
        "15 of the positive images have an arrow drawn into the picture.",
        "Im093_0 and Im108_0 are the same file: counted once.",
        "The cells of all_idb2 were cut from these fields.",
        "Only blasts are marked; an unmarked cell in an ALL field may be any leukocyte.",
    ),
    verified="Against 24 of the 108 published images and their marks.",
    layout=LAYOUT_1,
    prepare=prepare_fields,
    annotations=blasts,
)

ALL_IDB2 = Dataset(
    name="all_idb2",
    summary="lymphoblasts against cells of healthy donors, 260 single cells",
    description=(
        "Single-cell crops, about 257 x 257 px, TIFF: 130 ALL blasts and 130 cells of healthy "
        "donors, cut from ALL-IDB1 without rescaling."
    ),
    source=_SOURCE,
    terms=_TERMS,
    patients=_BY_IMAGE,
    labels="ALL, normal (from the file names). Cell labels: lymphoblast, no blast.",
    traps=(
        "Every crop comes from an ALL-IDB1 field: a model trained there has seen these cells.",
        (
            "Crops Im001 to Im071 come from the camera that took ALL only (0.110 um/px, bluish "
            "background), Im080 onwards from the other (0.088); Im072 to Im079 get no scale."
        ),
        "'no blast' is any leukocyte of a healthy donor, mostly mature ones.",
        "A few crops are clipped at the edge of the field (for example 257 x 220 px).",
    ),
    verified="Against 60 of the 260 published crops; 14 were found again in 24 ALL-IDB1 fields.",
    layout=LAYOUT_2,
    prepare=prepare_cells,
)
