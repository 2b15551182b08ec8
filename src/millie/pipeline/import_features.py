"""Vectors computed elsewhere as a bag store: any encoder's features, evaluated like our own.

Owns the way from a manifest whose paths are feature files to bags, and that no vector lies under
two diagnoses. There are no pictures in such a store: what needs them says so.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from millie.bags.store import Store
from millie.bags.vectors import UNNAMED, write_vectors
from millie.config import Config
from millie.errors import ConfigError, DataError, MissingError
from millie.outputs.exports.target import check_new, new_folder
from millie.pipeline.results import SegmentResult
from millie.pipeline.segment_cohort import Progress, silent
from millie.readers.cell_tables import Columns, is_table, read_patients, read_whole_table
from millie.readers.feature_files import FeatureFile, read_feature_file
from millie.types import Cell, Finding, ImageKind, Problem, SourceRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from millie.types import Cohort, ImageSource, Patient


Load = Callable[["Patient", "ImageSource"], FeatureFile]
"""Reads a file of vectors, or of a table the rows of the patient; raises as the readers."""


def load_file(_: Patient, source: ImageSource) -> FeatureFile:
    """Read a file that belongs to one patient."""
    if is_table(source.path):
        return read_whole_table(source.path, source.name)
    return read_feature_file(source.path, source.name)


def rows_of(table: Path, columns: Columns | None = None) -> tuple[Cohort, Load]:
    """Patients of a table of cells, and what gives their vectors.

    Raises:
        DataError, MissingPackageError: as :func:`millie.readers.cell_tables.read_patients`.
    """
    cohort, cells = read_patients(table, columns or Columns())
    return cohort, lambda patient, _: cells[patient.id]


def import_vectors(
    cohort: Cohort,
    out: Path,
    encoder: str = "",
    progress: Progress = silent,
    load: Load = load_file,
) -> SegmentResult:
    """Make a bag store of the files that a cohort names.

    Args:
        cohort: from a manifest; each "image" is a file of vectors.
        out: a new or empty folder.
        encoder: name of what computed them; empty: as the files say.
        progress: called after each patient.
        load: gives the vectors; see :func:`rows_of` for tables of several patients.

    Raises:
        ConfigError: ``out`` exists, or files are of several encoders or widths.
        DataError: no patient has usable vectors, or one vector lies under two diagnoses.
    """
    check_new(out)
    with new_folder(out) as new:
        cells, problems = fill_vectors(Store(new), cohort, encoder, progress, load)
    return SegmentResult(out, len(cells), 0, cells, tuple(problems))


def fill_vectors(
    store: Store, cohort: Cohort, encoder: str, progress: Progress, load: Load = load_file
) -> tuple[dict[str, int], list[Problem]]:
    """Write a bag for each patient, and describe the store.

    Returns:
        Number of cells by patient, and what could not be used.

    Raises:
        ConfigError, DataError: as :func:`import_vectors`.
    """
    problems = list(cohort.problems)
    seen: dict[bytes, Patient] = {}
    cells: dict[str, int] = {}
    kinds: set[tuple[int, str]] = set()
    digests: dict[Path, str] = {}
    for done, patient in enumerate(cohort.patients):
        progress("import", done, len(cohort.patients))
        files, lost = _files_of(patient, load)
        problems += lost
        if not files:
            continue
        kinds |= {(f.vectors.shape[1], encoder or f.encoder or UNNAMED) for f in files.values()}
        _check_one_kind(kinds)
        problems += _shared(patient, files, seen)
        cells[patient.id] = _write(store, patient, files, digests)
    progress("import", len(cohort.patients), len(cohort.patients))
    if not cells:
        raise DataError(f"no usable vectors: {problems[0].message if problems else 'no patients'}")
    ((_, name),) = kinds
    store.describe(cohort.name, Config(), cohort.labels, problems, encoder=name)
    return cells, problems


def _files_of(patient: Patient, load: Load) -> tuple[dict[int, FeatureFile], list[Problem]]:
    """A patient's usable files by their position, and what is wrong with the others."""
    files, lost = {}, []
    for index, source in enumerate(patient.images):
        try:
            files[index] = load(patient, source)
        except (DataError, MissingError) as error:
            message = str(error).replace(str(source.path), source.name)
            lost.append(Problem(patient.id, source.name, type(error).__name__, message))
    if not files:
        lost = [replace(problem, fatal=True) for problem in lost]
    return files, lost


def _check_one_kind(kinds: set[tuple[int, str]]) -> None:
    if len(kinds) > 1:
        told = ", ".join(f"{name} ({width} numbers)" for width, name in sorted(kinds))
        raise ConfigError(
            f"the files are of several kinds: {told}; import the files of one encoder, and name it "
            "with --encoder if only the names differ"
        )


def _shared(
    patient: Patient, files: Mapping[int, FeatureFile], seen: dict[bytes, Patient]
) -> list[Problem]:
    """Notes on vectors that lie under another patient too.

    Raises:
        DataError: under another diagnosis.
    """
    found: Counter[Patient] = Counter()
    own: list[bytes] = []
    for file in files.values():
        telling = file.vectors[file.vectors.std(axis=1) > 0]  # one constant tells nothing
        own += [hashlib.sha256(row.tobytes()).digest() for row in telling]
    for key in own:
        if key in seen:
            found[seen[key]] += 1
    for other, n in found.items():
        text = f"{n} of its {len(own)} vectors are in patient {other.id} too"
        if other.label != patient.label:
            raise DataError(
                f"{patient.id}: {text}, with another diagnosis ({patient.label}, {other.label}); "
                "find out whose they are and take them out of the other patient"
            )
    seen.update((key, patient) for key in own)
    return [
        Problem(patient.id, "", Finding.SAME_CELL,
                f"{n} of its {len(own)} vectors are in patient {other.id} too", note=True)
        for other, n in found.items()
    ]  # fmt: skip


def _write(
    store: Store, patient: Patient, files: Mapping[int, FeatureFile], digests: dict[Path, str]
) -> int:
    """Write a bag; ``digests`` keeps the SHA-256 of files, which several patients may share."""
    cells: list[Cell] = []
    sources: list[SourceRecord] = []
    for index, file in files.items():
        source = patient.images[index]
        if source.path not in digests:
            with source.path.open("rb") as stream:  # up to gigabytes
                digests[source.path] = hashlib.file_digest(stream, "sha256").hexdigest()
        sha256 = digests[source.path]
        cells += _cells(len(sources), file, source.cell_label)
        sources.append(SourceRecord(source.name, sha256, ImageKind.SLIDE, file.um_px, 0, 0))
    vectors = np.concatenate([file.vectors for file in files.values()])
    digest = hashlib.sha256("\n".join(source.sha256 for source in sources).encode()).hexdigest()
    write_vectors(store.path_of(patient.id), patient, cells, vectors, sources, digest)
    return len(cells)


def _cells(source: int, file: FeatureFile, label: str | None) -> list[Cell]:
    centres: NDArray[np.float64] = file.corners_px + file.side_px / 2
    corners = np.nan_to_num(file.corners_px).astype(np.int64)
    return [
        Cell(source, x, y, left, top, file.side_px, file.side_px, 0.0, label=label)
        for (x, y), (left, top) in zip(centres.tolist(), corners.tolist(), strict=True)
    ]
