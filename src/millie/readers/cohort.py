"""Patients: from a manifest, or from folders and files named on the command line.

Owns what a patient is when there is no manifest, and what labels must be before training.
Manifests are read and written by manifest.py; published data sets by datasets.py.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from millie.errors import ConfigError, DataError, ManifestError, MissingFileError
from millie.files import is_litter, resolved
from millie.readers.content import note, problem
from millie.readers.dicom import check_one_patient, is_directory, once_a_slide
from millie.readers.images import SLIDE_EXTENSIONS, find_images, other_files, unread_pictures
from millie.readers.manifest import read_manifest
from millie.readers.manifest_writer import write_manifest, write_new_manifest
from millie.readers.spelling import tidy
from millie.readers.stray import left_aside
from millie.types import Cohort, Finding, ImageSource, Patient, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["check_labels", "read_folders", "read_manifest", "write_manifest", "write_new_manifest"]


def read_folders(paths: Sequence[Path]) -> Cohort:
    """Patients without labels from folders and image files.

    The rule: each folder given is one patient, named after the folder, and every image under it
    belongs to that patient, however deep; a DICOMDIR stands for its folder. Image files are grouped
    by the folder they are in; that folder is the patient. A folder of patients is therefore given
    as ``cohort/*``; a note says so where all images of a folder are in several sub-folders.

    Args:
        paths: folders and image files; outputs show an image by the folder's name and its path
            in it, so no output says where on a disk it lay.

    Raises:
        MissingFileError: a path does not exist.
        ConfigError: nothing is named, two folders of one name, or an image in two patients.
        ManifestError: not one patient has an image.
    """
    if not paths:
        raise ConfigError("no input; give a folder of images, image files or a manifest")
    patients: list[Patient] = []
    problems: list[Problem] = []
    for name, place, files in _groups(paths):
        try:
            found = find_images(place) if files is None else files
            unread = unread_pictures(place) if files is None else []
            patient = _patient(name, place, found)
        except DataError as error:
            problems.append(Problem(name, "", type(error).__name__, str(error), fatal=True))
            continue
        patients.append(patient)
        problems += _spread_note(name, place, found)
        problems += _slides_note(name, found)
        problems += [problem(name, (place / file).as_posix(), error) for file, error in unread]
        problems += left_aside(name, place) if files is None else []
    if not patients:
        raise ManifestError(
            problems[0].message if problems else f"{paths[0]}: no image; give a patient's folder"
        )
    _refuse_shared(patients)
    return Cohort("folders", tuple(patients), tuple(problems))


def _groups(paths: Sequence[Path]) -> Iterator[tuple[str, Path, list[Path] | None]]:
    """Yield patient, folder, and its files where these were named themselves."""
    groups: dict[Path, list[Path] | None] = {}
    for path in paths:
        if is_litter(path.name):
            continue
        if path.is_dir() or is_directory(path):
            groups[path if path.is_dir() else path.parent] = None
            continue
        if not path.exists():
            raise MissingFileError(f"{path} does not exist; check the path")
        named = groups.setdefault(path.parent, [])
        if named is not None and path not in named:
            named.append(path)
    names: dict[str, Path] = {}
    for place, files in groups.items():
        name = tidy(place.resolve().name) or "patient"
        other = names.setdefault(name, place)
        if other is not place:
            raise ConfigError(
                f"two folders are called {name} ({other} and {place}), and patients take their "
                "folder's name; rename one, or write a manifest"
            )
        yield name, place, files


def _patient(name: str, place: Path, files: Sequence[Path]) -> Patient:
    if not files:
        kinds = sorted({path.suffix or path.name for path in other_files(place)})
        holds = f"holds only {', '.join(kinds[:8])}" if kinds else "is empty"
        lost = unread_pictures(place)
        if lost and lost[0][0] == ".":  # the folder itself
            raise ManifestError(str(lost[0][1]))
        remedy = "Give a folder with the images of one patient"
        if lost:
            remedy = "Export its images as JPEG, PNG, TIFF or BMP"
        raise ManifestError(
            f"{place}: no images (JPEG, PNG, TIFF, BMP, whole slides); the folder {holds}. {remedy}"
        )
    check_one_patient(place, files)
    folder = place.resolve().name
    sources = [
        ImageSource(path=path, name=Path(folder, path.relative_to(place)).as_posix())
        for path in once_a_slide(files)
    ]
    return Patient(id=name, label=None, images=tuple(sources))


def _spread_note(name: str, place: Path, files: Sequence[Path]) -> Iterator[Problem]:
    """Tell when a folder may be a folder of patients: images in several sub-folders only."""
    tops = {path.relative_to(place).parts[0] for path in files if path.parent != place}
    if len(tops) > 1 and all(path.parent != place for path in files):
        folder = place.resolve().name  # results name no place on this machine
        yield note(
            name, "",
            f"images from {len(tops)} sub-folders of {folder} ({_some(sorted(tops))}) read as one "
            f"patient; if each sub-folder is a patient, give {folder}/*",
            Finding.ONE_PATIENT,
        )  # fmt: skip


def _slides_note(name: str, files: Sequence[Path]) -> Iterator[Problem]:
    """Tell when a folder may hold the slides of several patients, as archives of slides do."""
    slides = [path.name for path in files if path.suffix.lower() in SLIDE_EXTENSIONS]
    if len(slides) > 1:
        yield note(
            name, "",
            f"{len(slides)} whole slides ({_some(slides)}) read as one patient; if each is a "
            "patient, name them in a manifest (columns patient, label, path)",
            Finding.ONE_PATIENT,
        )  # fmt: skip


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _refuse_shared(patients: Sequence[Patient]) -> None:
    owners: dict[Path, str] = {}
    for patient in patients:
        for image in patient.images:
            other = owners.setdefault(resolved(image.path), patient.id)
            if other != patient.id:
                raise ConfigError(
                    f"{image.name} belongs to both {other} and {patient.id}: one input is inside "
                    "the other; give each patient once"
                )


def check_labels(cohort: Cohort, known: Sequence[str] = ()) -> None:
    """Check that a cohort can be trained on: every patient labelled, two classes or more.

    Args:
        cohort: from a manifest or a data set.
        known: the labels that are allowed; empty: any.

    Raises:
        ManifestError: a patient without a label, an unknown label, labels that differ only in
            case or spacing, or fewer than two classes.
    """
    for patient in cohort.patients:
        if patient.label is None:
            raise ManifestError(
                f"{cohort.name}: patient {patient.id} has no label, which training needs; fill in "
                "the column label, or leave the patient out"
            )
        if known and patient.label not in known:
            near = difflib.get_close_matches(patient.label, known, n=1)
            meant = f"; did you mean '{near[0]}'?" if near else ""
            raise ManifestError(
                f"{cohort.name}: patient {patient.id} has the unknown label '{patient.label}'; "
                f"expected one of {', '.join(known)}{meant}"
            )
    _check_classes(cohort)


def _check_classes(cohort: Cohort) -> None:
    spelt: dict[str, str] = {}
    for label in cohort.labels:
        other = spelt.setdefault("".join(label.split()).casefold(), label)
        if other != label:
            raise ManifestError(
                f"{cohort.name}: the labels '{other}' and '{label}' differ only in spelling; "
                "spell them the same way if they are one diagnosis"
            )
    if len(cohort.labels) < 2:
        raise ManifestError(
            f"{cohort.name}: all patients have the label {', '.join(cohort.labels) or '(none)'}; "
            "training needs at least two classes"
        )
