"""Manifests: the CSV table of patients, diagnoses and images, read.

Owns the columns and the rules that a table must keep (one label and one split a patient, no row
twice, no path out of the root). Does not decode images; written are manifests by
manifest_writer.py.

Columns: ``patient``, ``label`` (may be empty), ``path`` (file, folder or glob, relative to the
manifest), and optional ``kind``, ``um_px``, ``site``, ``stain``, ``scanner``, ``split``, ``age``,
``sex``, ``cell_label`` (expert's type of a single cell; evaluation only), ``name`` (what outputs
show; else the path relative to the root) and ``root`` (the folder to which names are relative; it
only narrows: nothing outside the manifest's own folder, or the one given with it, is ever read).
"""

from __future__ import annotations

import difflib
import math
import os
import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from millie.errors import (
    ConfigError,
    DataError,
    ImageError,
    ManifestError,
    MissingError,
    MissingFileError,
)
from millie.files import resolved
from millie.readers.content import note, problem
from millie.readers.dicom import check_one_patient, is_directory, once_a_slide
from millie.readers.headers import column_meant, missing_text
from millie.readers.images import find_images, unread_pictures
from millie.readers.spelling import Spellings, existing, exists, is_no_name, tidy
from millie.readers.table import MAX_AGE_YEARS, Row, read_table
from millie.readers.wildcard import LeavesRootError, matching
from millie.types import Cohort, ImageKind, ImageSource, Patient, PixelSize, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

REQUIRED = ("patient", "label", "path")
OF_PATIENT = ("label", "site", "stain", "scanner", "split", "age", "sex")
"""Columns that hold one value a patient, whichever of its rows give it."""
COLUMNS = (
    "patient", "label", "path", "kind", "um_px", "site", "stain", "scanner", "split", "age", "sex",
    "cell_label", "name", "root",
)  # fmt: skip

_WILDCARD = re.compile(r"[*?\[]")
_LONGEST_SHOWN = 200
_WINDOWS_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def read_manifest(path: Path, root: Path | None = None, labels: Sequence[str] = ()) -> Cohort:
    """Read a manifest into a cohort.

    Files that do not exist become problems, fatal where a patient has no other; whatever makes the
    table itself doubtful is raised.

    Args:
        path: CSV in UTF-8, separated by comma, semicolon or tab.
        root: folder that nothing may leave, whatever the table says; None: the manifest's own.
        labels: the labels that are allowed; empty: any.

    Raises:
        MissingFileError: there is no such manifest, or no such root.
        ManifestError: no CSV, a column is missing, a cell is malformed, an unknown label, a
            patient with two labels or in two splits, a row twice, a path out of the root, no
            usable image at all. The message names the line and the remedy.
    """
    columns, rows = read_table(path)
    _check_columns(path, columns)
    reader = _Reader(path, _root_of(path, rows, root), frozenset(labels))
    for row in rows:
        reader.add(row)
    unused = [column for column in columns if column and column not in COLUMNS]
    free = [column for column in COLUMNS if column not in columns]
    notes = [note("", "", f"{path}: {_ignored(column, free)}") for column in unused]
    return reader.cohort(notes)


def is_manifest(path: Path) -> bool:
    """Whether a file is a table with the columns of a manifest."""
    try:
        columns, _ = read_table(path)
    except (DataError, MissingError):
        return False
    return set(REQUIRED) <= set(columns)


def _ignored(column: str, free: Sequence[str]) -> str:
    ours = column_meant(column, free)
    return f"column '{column}' ignored" + (f"; if you mean '{ours}', rename it" if ours else "")


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if text := missing_text(REQUIRED, columns, COLUMNS):
        raise ManifestError(f"{path}, line 1: {text} (label may stay empty for prediction)")
    for column in columns:
        near = difflib.get_close_matches(column, COLUMNS, n=1, cutoff=0.8)
        if near and column not in COLUMNS and near[0] not in columns:
            raise ManifestError(
                f"{path}, line 1: unknown column '{column}'; if you mean '{near[0]}', rename it, "
                "otherwise choose a less similar name"
            )


def _root_of(path: Path, rows: Sequence[Row], limit: Path | None) -> Path:
    """The folder that no path may leave, resolved: a column may only narrow it."""
    if limit is not None and not limit.is_dir():
        raise MissingFileError(f"--root {limit}: no such folder; check the path")
    base = path.parent.resolve()
    outer = base if limit is None else limit.resolve()
    named = {row.cells.get("root", "").strip() for row in rows}
    if len(named) > 1:
        raise ManifestError(
            f"{path}: column root has several folders ({', '.join(sorted(named))}); "
            "use one manifest per root"
        )
    text = named.pop()
    root = (base / text).resolve() if text else outer
    if not root.is_relative_to(outer):
        raise ManifestError(
            f"{path}: column root names {text}, which is outside {outer}; a table cannot widen the "
            f"folder that is read. If its images belong there, say so: --root {root}"
        )
    return root


class _Reader:
    """Collects rows into patients, in the order in which they first appear."""

    def __init__(self, manifest: Path, root: Path, labels: frozenset[str]) -> None:
        self.manifest = manifest
        self.base = manifest.parent.resolve()
        self.root = root
        self.labels = frozenset(map(tidy, labels))
        self.spellings = Spellings(manifest)
        self.facts: dict[str, dict[str, tuple[str, int]]] = {}
        self.images: dict[str, list[ImageSource]] = {}
        self.lines: dict[Path, tuple[str, int]] = {}
        self.names: set[tuple[str, str]] = set()
        self.spelt: dict[str, tuple[str, int]] = {}
        self.problems: list[Problem] = []

    def add(self, row: Row) -> None:
        """Take in one row.

        Raises:
            ManifestError: the row breaks a rule.
        """
        patient = self.spellings.name(row, "patient")
        if is_no_name(patient):
            raise row.fail(self.manifest, "column patient is empty; every row needs a patient")
        self._add_facts(patient, row)
        images = self.images.setdefault(patient, [])
        files = self._files(patient, row)
        if len(files) > 1 and row.cells.get("name"):
            raise row.fail(self.manifest, "one name for several files; leave column name empty")
        for file in files:
            self._claim(patient, file, row)
            images.append(self._source(patient, file, row))

    def _add_facts(self, patient: str, row: Row) -> None:
        facts = self.facts.setdefault(patient, {})
        for column in OF_PATIENT:
            value = self.spellings.value(row, column)
            if not value:
                continue
            known, line = facts.setdefault(column, (value, row.line))
            if known != value:
                raise row.fail(
                    self.manifest,
                    f"patient {patient} has {column} '{value}', but '{known}' on line {line}; "
                    f"a patient has one {column}: correct it, or use two patient names",
                )
            if column == "label":
                self._check_spelling(value, row)
            if column == "label" and self.labels and value not in self.labels:
                allowed = ", ".join(sorted(self.labels))
                raise row.fail(self.manifest, f"unknown label '{value}'; allowed: {allowed}")

    def _check_spelling(self, label: str, row: Row) -> None:
        other, line = self.spelt.setdefault("".join(label.split()).casefold(), (label, row.line))
        if other != label:
            raise row.fail(
                self.manifest,
                f"label '{label}', but '{other}' on line {line}: they differ only in spelling and "
                "would count as two diagnoses; spell them the same way",
            )

    def _files(self, patient: str, row: Row) -> list[Path]:
        """The files that a row names; none found is a problem, not an error."""
        text = row.cells["path"]
        if not text.strip() or "\0" in text:
            raise row.fail(self.manifest, "column path is empty or invalid; give a file or folder")
        text = self._as_it_exists(text)
        named = Path(os.path.normpath(self.base / text))
        try:
            if exists(named) or not _WILDCARD.search(text):
                files = self._named(patient, named, row)
            else:
                files = self._matching(patient, text, row)
        except (ImageError, MissingError) as error:
            self.problems.append(Problem(patient, text, type(error).__name__, str(error)))
            return []
        return files

    def _as_it_exists(self, text: str) -> str:
        """A path as written; else without blanks at its ends, and with / for backslashes.

        Whichever names an existing file, accents in either form.
        """
        stripped = text.strip()
        slashes = stripped.replace("\\", "/")
        found = (existing(self.base, form) for form in (text, stripped, slashes))
        return next((str(path) for path in found if path), slashes)

    def _named(self, patient: str, named: Path, row: Row) -> list[Path]:
        self._check_inside(named, row)
        if not exists(named):
            raise MissingFileError(f"line {row.line}: {_why_missing(named, row.cells['path'])}")
        if is_directory(named):
            named = named.parent
        if not named.is_dir():
            if not named.is_file():
                raise ImageError(f"line {row.line}: {named} is not a file but a device or pipe")
            return [named]
        for file, error in unread_pictures(named):
            self.problems.append(problem(patient, f"{row.cells['path']}/{file}", error))
        return self._some(find_images(named), named, row)

    def _matching(self, patient: str, pattern: str, row: Row) -> list[Path]:
        parts = PurePath(pattern).parts
        first = next(i for i, part in enumerate(parts) if _WILDCARD.search(part))
        before = PurePath(*parts[:first]).as_posix()
        folder = Path(os.path.normpath(existing(self.base, before) or self.base / before))
        self._check_inside(folder, row)
        if ".." in parts[first:]:
            raise row.fail(self.manifest, f"'..' after a wildcard in {pattern}; write the path out")
        try:
            found = matching(folder, parts[first:], self.root)
        except LeavesRootError:
            raise self._outside(row) from None
        for file in found.images:
            self._check_inside(file, row)
        for path, error in found.lost:
            source = PurePath(os.path.relpath(path, self.base)).as_posix()
            self.problems.append(problem(patient, source, error))
        return self._some(found.images, folder, row)

    @staticmethod
    def _some(files: list[Path], place: Path, row: Row) -> list[Path]:
        if not files:
            raise MissingFileError(f"line {row.line}: no images in {place}; check the path")
        check_one_patient(place, files)
        return once_a_slide(files)

    def _check_inside(self, path: Path, row: Row) -> None:
        if not resolved(path).is_relative_to(self.root):
            raise self._outside(row)

    def _outside(self, row: Row) -> ManifestError:
        return row.fail(
            self.manifest,
            f"path {row.cells['path']} is outside {self.root}; move the file there, or name the "
            "folder that holds all images with --root",
        )

    def _claim(self, patient: str, file: Path, row: Row) -> None:
        """A file belongs to one row."""
        owner, line = self.lines.setdefault(resolved(file), (patient, row.line))
        if line != row.line or owner != patient:
            raise row.fail(
                self.manifest,
                f"{file.name} of {patient} is already on line {line} ({owner}); "
                "remove one of the two rows",
            )

    def _source(self, patient: str, file: Path, row: Row) -> ImageSource:
        # A file reached by a link lies in the root by its target, maybe not by its own path.
        inside = file if file.is_relative_to(self.root) else resolved(file)
        name = row.cells.get("name") or inside.relative_to(self.root).as_posix()
        if (patient, name) in self.names:
            raise row.fail(self.manifest, f"two images named {name}; give them different names")
        self.names.add((patient, name))
        return ImageSource(
            path=file,
            name=name,
            kind=self._kind(row),
            pixel_size=self._pixel_size(row),
            cell_label=self.spellings.value(row, "cell_label") or None,
        )

    def _kind(self, row: Row) -> ImageKind | None:
        text = self.spellings.value(row, "kind").lower()
        if text and text not in set(ImageKind):
            raise row.fail(self.manifest, f"kind '{text}'; expected field, cell, slide or empty")
        return ImageKind(text) if text else None

    def _pixel_size(self, row: Row) -> PixelSize | None:
        text = self.spellings.value(row, "um_px")
        try:
            return PixelSize(float(text)) if text else None
        except (ConfigError, ValueError) as error:
            raise row.fail(
                self.manifest,
                f"um_px '{text}': expected micrometres per pixel, such as 0.1 ({error})",
            ) from error

    def _age(self, patient: str) -> float | None:
        text, line = self.facts[patient].get("age", ("", 0))
        try:
            age = float(text) if text else None
        except ValueError:
            age = math.nan
        if age is not None and not 0 <= age <= MAX_AGE_YEARS:
            raise ManifestError(
                f"{self.manifest}, line {line}: age '{text}'; expected 0 to 130 years, or empty"
            )
        return age

    def cohort(self, notes: Iterable[Problem]) -> Cohort:
        """The patients that have images; a fatal problem for each that has none.

        Raises:
            ManifestError: no patient has an image, or an age is malformed.
        """
        patients = []
        for patient, images in self.images.items():
            if not images:
                text = "none of its images exists; correct the paths"
                self.problems.append(Problem(patient, "", "MissingFileError", text, fatal=True))
                continue
            facts = {column: value for column, (value, _) in self.facts[patient].items()}
            patients.append(
                Patient(
                    id=patient,
                    label=facts.get("label"),
                    images=tuple(images),
                    site=facts.get("site", ""),
                    stain=facts.get("stain", ""),
                    scanner=facts.get("scanner", ""),
                    split=facts.get("split", ""),
                    age=self._age(patient),
                    sex=facts.get("sex", ""),
                )
            )
        if not patients:
            raise ManifestError(
                f"{self.manifest}: no usable images; the first problem: {self.problems[0].message}"
            )
        return Cohort(
            self.manifest.stem, tuple(patients), (*self.problems, *self.spellings.notes(), *notes)
        )


def _why_missing(named: Path, written: str) -> str:
    if _WINDOWS_DRIVE.match(written.strip()):
        return (
            f"{written} is on a Windows drive, which this machine does not have: copy the images "
            "beside the manifest and write their paths relative to it"
        )
    if len(str(named)) > _LONGEST_SHOWN:
        return f"{str(named)[:_LONGEST_SHOWN]}... does not exist or is too long; check the path"
    if named.is_symlink():
        return f"{named} is a link to nothing; copy the file there"
    return f"{named} does not exist; check the path"
