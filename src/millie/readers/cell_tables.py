"""Tables of cells with their vectors, all patients in one file: AnnData (``.h5ad``) and Parquet.

Owns which columns are read and how text is told from its encodings: strings, nullable strings,
categories as AnnData (0.7 and later) and R's writers (anndataR, zellkonverter) put them. Neither
the AnnData library nor, for ``.h5ad``, any other extra is needed.

Source: AnnData on-disk format (anndata.readthedocs.io, "On-disk format").
"""

from __future__ import annotations

import importlib
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from millie.errors import DataError, MissingPackageError
from millie.readers.feature_files import (
    MOST_BYTES,
    FeatureFile,
    check_finite,
    check_size,
    hdf5_errors,
    own_dataset,
    own_part,
)
from millie.types import Cohort, ImageSource, Patient

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ENDINGS = (".h5ad", ".parquet")
"""Files that are read as a table of cells."""

_LABEL = "label"
_PLACES = ("x_px", "y_px")
_MOST_ROWS = 50_000_000  # as many cells as thousands of films hold
_NUMBERED = re.compile(r"(.*?)(\d{1,9})")


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns say whose a cell is.

    Attributes:
        patient: name of the column of patients.
        label: of the diagnosis; empty: ``label``, which may be missing.
    """

    patient: str = "patient"
    label: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """A table as read; ``patients`` and ``labels`` are None where there is no such column."""

    vectors: NDArray[np.float32]
    places: NDArray[np.float64]
    encoder: str
    patients: list[str | None] | None
    labels: list[str | None] | None
    known: list[str]

    def of(self, rows: NDArray[np.intp] | slice) -> FeatureFile:
        return FeatureFile(self.vectors[rows], self.places[rows], 0, None, self.encoder)


def is_table(path: Path) -> bool:
    """Whether a file is read as a table of cells, by its ending."""
    return path.suffix.lower() in ENDINGS


def read_whole_table(path: Path, name: str, columns: Columns | None = None) -> FeatureFile:
    """All vectors of a table that belongs to one patient.

    Args:
        path: where it lies.
        name: for messages.
        columns: of several patients the file is refused by the column of this name.

    Raises:
        DataError: no such table, or it holds cells of several patients.
        MissingPackageError: Parquet without pyarrow.
    """
    columns = columns or Columns()
    rows = _read(path, name, columns)
    if rows.patients is not None and len(set(rows.patients)) > 1:
        raise DataError(
            f"{name}: holds cells of {len(set(rows.patients))} patients (column "
            f"'{columns.patient}'): give the file itself, not a manifest that names it"
        )
    return rows.of(slice(None))


def read_patients(path: Path, columns: Columns) -> tuple[Cohort, dict[str, FeatureFile]]:
    """The patients of a table, and their cells.

    Rows without a patient are left out.

    Args:
        path: ``.h5ad``: vectors in ``X`` (dense), columns in ``obs``; ``.parquet``: vectors in a
            column of lists ``features``, or in numbered columns of one name (``f0``, ``f1``...).
        columns: of patient and diagnosis.

    Raises:
        DataError: damaged, no vectors, no column of patients, or a patient with two diagnoses.
        MissingPackageError: Parquet without pyarrow.
    """
    rows = _read(path, path.name, columns)
    owners = rows.patients
    if owners is None or (columns.label and rows.labels is None):
        missing = columns.patient if owners is None else columns.label
        known = ", ".join(rows.known[:20]) or "none"
        raise DataError(
            f"{path.name}: no column '{missing}'; its columns: {known}; name that of the patients "
            "with --patient-column, that of the diagnoses with --label-column"
        )
    of_patient: dict[str, list[int]] = defaultdict(list)
    for i, patient in enumerate(owners):
        if patient:
            of_patient[patient].append(i)
    if not of_patient:
        raise DataError(f"{path.name}: the column '{columns.patient}' is empty")
    source = ImageSource(path=path.absolute(), name=path.name)
    patients = tuple(
        Patient(patient, _label_of(patient, rows, own, path.name), (source,))
        for patient, own in of_patient.items()
    )
    cells = {patient: rows.of(np.array(own)) for patient, own in of_patient.items()}
    return Cohort(path.stem, patients), cells


def _label_of(patient: str, rows: _Rows, own: list[int], name: str) -> str | None:
    found = {rows.labels[i] for i in own} - {None, ""} if rows.labels is not None else set()
    if len(found) > 1:
        raise DataError(
            f"{name}: patient {patient} has the diagnoses {', '.join(sorted(map(str, found)))}; "
            "give each patient one"
        )
    return found.pop() if found else None


def _read(path: Path, name: str, columns: Columns) -> _Rows:
    rows = (_from_parquet if path.suffix.lower() == ".parquet" else _from_h5ad)(path, name, columns)
    if not len(rows.vectors):
        raise DataError(f"{name}: holds no cells")
    check_finite(rows.vectors, name)
    return rows


# ------------------------------------------------------------------------------- AnnData


def _from_h5ad(path: Path, name: str, columns: Columns) -> _Rows:
    with hdf5_errors(name), h5py.File(path, "r", locking=False) as file:
        if "X" not in file or "obs" not in file:
            raise DataError(f"{name}: no AnnData file: it has no X and obs")
        if _own_group(file, "X"):
            raise DataError(
                f"{name}: X is sparse, as counts of genes are; expected a dense matrix of the "
                "cells' vectors"
            )
        obs = _own_group(file, "obs")
        if obs is None:
            raise DataError(
                f"{name}: obs is no table of columns, as AnnData before 0.7 wrote it; read the "
                "file and write it again with a later one"
            )
        matrix = own_part(file, "X", name)
        if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
            raise DataError(f"{name}: X is {matrix.dtype} {matrix.shape}; expected numbers (N, D)")
        check_size(matrix.shape, name)
        count = matrix.shape[0]
        uns = _own_group(file, "uns") or ()
        told = own_part(uns, "encoder", name)[()] if "encoder" in uns else None
        return _Rows(
            np.asarray(matrix[()], np.float32),
            _spatial(file, count, name),
            _text(told) or "",
            _obs(obs, columns.patient, count, name),
            _obs(obs, columns.label or _LABEL, count, name),
            sorted(key for key in obs if not key.startswith("_")),
        )


def _own_group(parent: h5py.Group, key: str) -> h5py.Group | None:
    """A group that lies in the file itself; None: it is a dataset, a link, or not there."""
    own = isinstance(parent.get(key, getlink=True), h5py.HardLink)
    return parent[key] if own and isinstance(parent[key], h5py.Group) else None


def _spatial(file: h5py.File, count: int, name: str) -> NDArray[np.float64]:
    """Places (N, 2); NaN where the file gives none."""
    obsm = _own_group(file, "obsm") or ()
    if "spatial" not in obsm:
        return np.full((count, 2), np.nan)
    found = own_part(obsm, "spatial", name)
    if found.ndim != 2 or found.shape[0] != count or found.shape[1] < 2:
        raise DataError(f"{name}: obsm/spatial is {found.shape}; expected ({count}, 2)")
    return np.asarray(found[:, :2], np.float64)


def _obs(obs: h5py.Group, key: str, count: int, name: str) -> list[str | None] | None:
    """A column as text, None for a missing value; None: there is no such column."""
    if key not in obs:
        return None
    values = _values(obs, key, name)
    if len(values) != count:
        raise DataError(f"{name}: obs/{key} has {len(values)} values for {count} rows of X")
    return values


def _values(obs: h5py.Group, key: str, name: str) -> list[str | None]:
    group = _own_group(obs, key)
    if group is None:
        column = own_part(obs, key, name)
        if "categories" in column.attrs:  # AnnData 0.7: a reference to obs/__categories
            named = own_dataset(obs[column.attrs["categories"]], key, name)
            return _coded(_whole(column, name), _whole(named, name))
        return [_text(value) for value in _whole(column, name)]

    def part(which: str) -> NDArray[Any]:
        return _whole(own_part(group, which, name), name)

    if "codes" in group:
        return _coded(part("codes"), part("categories"))
    pairs = zip(part("values"), part("mask"), strict=True)
    return [None if missing else _text(value) for value, missing in pairs]


def _whole(column: h5py.Dataset, name: str) -> NDArray[Any]:
    """A column in memory; a small file may state billions of values, or very long ones."""
    if column.ndim != 1 or column.size > _MOST_ROWS or column.nbytes > MOST_BYTES:
        raise DataError(
            f"{name}: obs{column.name.removeprefix('/obs')} is {column.dtype} {column.shape}; "
            f"expected a column of at most {_MOST_ROWS:,} values"
        )
    return np.asarray(column[()])


def _coded(codes: NDArray[Any], categories: NDArray[Any]) -> list[str | None]:
    names = [_text(value) for value in categories]
    return [names[code] if code >= 0 else None for code in codes.tolist()]


def _text(value: object) -> str | None:
    """A value of a column as the name of a patient or class."""
    if isinstance(value, bytes):
        value = value.decode("utf-8")
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return None
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)  # numbers of patients beside missing ones
    return str(value).strip()


# ------------------------------------------------------------------------------- Parquet


def _from_parquet(path: Path, name: str, columns: Columns) -> _Rows:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingPackageError(
            f'{name}: Parquet needs pyarrow, which is not installed: pip install "millie[parquet]"'
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            return _parquet_rows(file, name, columns)
    except DataError:
        raise
    except (OSError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise DataError(
            f"{name}: cannot be read as Parquet with vectors ({error}); copy or write it again"
        ) from error


def _parquet_rows(file: Any, name: str, columns: Columns) -> _Rows:
    names, told = file.schema_arrow.names, file.schema_arrow.metadata or {}
    groups = range(file.metadata.num_row_groups)
    stated = sum(file.metadata.row_group(i).total_byte_size for i in groups)
    # a value that is repeated takes no bytes, however many rows have it
    if stated > MOST_BYTES or file.metadata.num_rows > _MOST_ROWS:
        raise DataError(f"{name}: larger than can be read; split it into several files")
    wanted = _vector_columns(names, name)
    keys = columns.patient, columns.label or _LABEL
    beside = [column for column in (*keys, *_PLACES) if column in names]
    table = file.read(columns=[*wanted, *beside])
    patients, labels = (
        [_text(value) for value in table.column(key).to_pylist()] if key in beside else None
        for key in keys
    )
    return _Rows(
        _parquet_vectors(table, wanted, name),
        _parquet_places(table),
        told.get(b"encoder", b"").decode("utf-8"),
        patients,
        labels,
        [column for column in names if column not in wanted],
    )


def _vector_columns(names: list[str], name: str) -> list[str]:
    """``features``, or the columns of one name that are numbered, in the order of the numbers."""
    if "features" in names:
        return ["features"]
    numbered: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for column in names:
        if found := _NUMBERED.fullmatch(column):
            numbered[found[1]].append((int(found[2]), column))
    most = max(numbered.values(), key=len, default=[])
    if len(most) < 2:
        raise DataError(
            f"{name}: no vectors; expected a column of lists 'features', or numbered columns such "
            "as f0, f1, f2"
        )
    return [column for _, column in sorted(most)]


def _parquet_vectors(table: Any, wanted: list[str], name: str) -> NDArray[np.float32]:
    if wanted != ["features"]:
        return np.stack([_numbers(table.column(column), name) for column in wanted], axis=1)
    rows = table.column("features")
    widths = set(importlib.import_module("pyarrow.compute").list_value_length(rows).to_pylist())
    if len(widths) != 1 or not (width := widths.pop()):
        raise DataError(f"{name}: the lists in 'features' are empty, missing or of several lengths")
    check_size((len(rows), width), name)
    return _numbers(rows.combine_chunks().flatten(), name).reshape(len(rows), width)


def _numbers(column: Any, name: str) -> NDArray[np.float32]:
    values = np.asarray(column.to_numpy(zero_copy_only=False) if column.null_count else column)
    if values.dtype.kind not in "fiu":
        raise DataError(f"{name}: a column of vectors holds {column.type}; expected numbers")
    return values.astype(np.float32)


def _parquet_places(table: Any) -> NDArray[np.float64]:
    if not set(_PLACES) <= set(table.column_names):
        return np.full((len(table), 2), np.nan)
    found = [np.array(table.column(n).to_pylist(), np.float64) for n in _PLACES]
    return np.stack(found, axis=1)
