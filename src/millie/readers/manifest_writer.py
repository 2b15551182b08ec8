"""Manifests written: what :func:`write_manifest` writes, ``read_manifest`` reads back equal.

Owns the root to which names are relative and the paths relative to the manifest. The columns and
their rules are manifest.py.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from millie.errors import ConfigError, ManifestError
from millie.files import write_bytes
from millie.readers.manifest import COLUMNS
from millie.readers.table import table_bytes

if TYPE_CHECKING:
    from millie.types import Cohort, ImageSource, Patient


def write_new_manifest(cohort: Cohort, path: Path) -> None:
    """As :func:`write_manifest`, but over no other file, nor over a manifest that was edited.

    Raises:
        ConfigError: there is a file with other content, or a folder.
        ManifestError: a patient without images.
    """
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder: name the manifest itself, such as {path}/cohort.csv"
        )
    data = _manifest_bytes(cohort, path, path.parent)
    if path.exists() and path.stat().st_size and not (path.is_file() and path.read_bytes() == data):
        raise ConfigError(
            f"{path} exists and is not what would be written now (edited by hand, of other images, "
            "or no manifest): it is left as it is. Name another file, or move that one"
        )
    write_bytes(path, data)


def write_manifest(cohort: Cohort, path: Path, home: Path | None = None) -> None:
    """Write a cohort as a manifest, one row an image; missing parent folders are made.

    Paths are relative to the manifest. Patients, images, their order and every value come back
    equal from ``read_manifest`` (paths absolute, names as spelling.py spells them); the cohort's
    name becomes the file's, its problems are not kept. Cells that a spreadsheet would take for a
    formula get a leading ``'``.

    Args:
        cohort: to write.
        path: the CSV.
        home: folder that the manifest is to lie in later; None: it stays.

    Raises:
        ManifestError: a patient without images.
    """
    write_bytes(path, _manifest_bytes(cohort, path, home or path.parent))


def _manifest_bytes(cohort: Cohort, path: Path, home: Path) -> bytes:
    empty = [patient.id for patient in cohort.patients if not patient.images]
    if empty:
        raise ManifestError(f"{path}: patient {empty[0]} has no images; leave it out")
    base = home.resolve()
    root = _common_root(cohort, base)
    root_cell = "" if root == base else _relative(root, base)
    rows = (
        _cells_of(patient, image, base, root, root_cell)
        for patient in cohort.patients
        for image in patient.images
    )
    return table_bytes(COLUMNS, rows)


def _common_root(cohort: Cohort, base: Path) -> Path:
    """The folder to which the images' names are relative; else the one above all of them."""
    images = [image for patient in cohort.patients for image in patient.images]
    roots = {_root_by_name(image) for image in images}
    only = roots.pop() if len(roots) == 1 else None
    if only is not None:
        return only
    folders = [str(_absolute(image.path).parent) for image in images]
    return Path(os.path.commonpath(folders)) if folders else base


def _root_by_name(image: ImageSource) -> Path | None:
    path, name = _absolute(image.path), PurePath(image.name)
    count = len(name.parts)
    if name.is_absolute() or path.parts[-count:] != name.parts:
        return None
    return Path(*path.parts[:-count])


def _cells_of(
    patient: Patient, image: ImageSource, base: Path, root: Path, root_cell: str
) -> list[str]:
    path = _absolute(image.path)
    by_path = path.relative_to(root).as_posix()
    return [
        patient.id,
        patient.label or "",
        _relative(path, base),
        image.kind or "",
        "" if image.pixel_size is None else repr(image.pixel_size.um_px),
        patient.site,
        patient.stain,
        patient.scanner,
        patient.split,
        "" if patient.age is None else repr(patient.age).removesuffix(".0"),
        patient.sex,
        image.cell_label or "",
        "" if image.name == by_path else image.name,
        root_cell,
    ]


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - keeps links, which resolve() would follow


def _relative(path: Path, base: Path) -> str:
    return PurePath(os.path.relpath(path, base)).as_posix()
