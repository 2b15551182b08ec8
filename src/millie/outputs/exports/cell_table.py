"""All cells of a run in one table with their vectors: AnnData (``.h5ad``) and Parquet.

Owns the columns, and AnnData's layout on disk: text is written as plain variable-length strings
and categories as codes, the encodings that R's readers (anndataR, zellkonverter) know. The AnnData
library is not needed, and its nullable strings, which R cannot read, cannot occur.

Source: AnnData on-disk format 0.1.0 to 0.2.0 (anndata.readthedocs.io, "On-disk format").
"""

from __future__ import annotations

import importlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from millie.errors import MissingPackageError
from millie.files import spelt_out
from millie.outputs.exports.samples import INTENDED_USE, STATUS
from millie.statistics.metrics import likeliest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from millie.outputs.exports.feature_bags import Embedded
    from millie.outputs.patient.records import PredictionRun

_TEXT = h5py.string_dtype("utf-8")
_FLAGS = ("at_border", "in_clump", "smudge")


@dataclass(frozen=True, slots=True, eq=False)
class CellTable:
    """Cells of all samples.

    Attributes:
        names: of the cells, distinct.
        columns: by name; text, numbers (NaN: unknown) or bool, each (N,).
        features: float32 (N, D).
        about: what the table is from and for.
    """

    names: list[str]
    columns: dict[str, NDArray[Any]]
    features: NDArray[np.float32]
    about: dict[str, str]


def cell_table(run: PredictionRun, bags: Iterable[Embedded]) -> CellTable:
    """The cells of a run; none of them has a class, the patient has a state."""
    rows: list[dict[str, Any]] = []
    names, blocks, encoders = [], [], set()
    for bag in bags:
        sample = bag.sample
        for i, cell in enumerate(sample.cells):
            scores = sample.probabilities[i].tolist()
            rows.append({
                "patient": spelt_out(sample.result.patient),
                "state": sample.result.state,
                "image": spelt_out(sample.sources[cell.source].name),
                "looks_like": likeliest(scores, run.model.labels),
                **{f"probability_{k}": p for k, p in zip(run.model.labels, scores, strict=True)},
                "x_px": cell.x_px,
                "y_px": cell.y_px,
                "area_um2": np.nan if cell.area_um2 is None else cell.area_um2,
                "quality": cell.quality,
                **{flag: bool(getattr(cell, flag)) for flag in _FLAGS},
            })  # fmt: skip
            names.append(f"{spelt_out(sample.result.patient)}/{i}")
        blocks.append(np.asarray(bag.features, np.float32))
        encoders.add(bag.encoder)
    columns = {key: _column([row[key] for row in rows]) for key in (rows[0] if rows else {})}
    features = np.concatenate(blocks) if blocks else np.zeros((0, 0), np.float32)
    about = {
        "model": run.model.title, "model_sha256": run.model.sha256, "called": run.created,
        "encoder": ", ".join(sorted(encoders)), "status": STATUS, "intended_use": INTENDED_USE,
    }  # fmt: skip
    return CellTable(names, columns, features, about)


def as_h5ad(table: CellTable) -> bytes:
    """AnnData: ``X`` vectors, ``obs`` columns, ``obsm/spatial`` places, ``uns`` what it is."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        _encoded(file, "anndata", "0.1.0")
        _array(file, "X", table.features)
        _frame(file, "obs", table.names, table.columns)
        features = [f"feature_{i}" for i in range(table.features.shape[1])]
        _frame(file, "var", features, {})
        for name in ("layers", "obsp", "varm", "varp"):
            _encoded(file.create_group(name), "dict", "0.1.0")
        places = _encoded(file.create_group("obsm"), "dict", "0.1.0")
        if table.names:
            spatial = np.stack([table.columns["x_px"], table.columns["y_px"]], axis=1)
            _array(places, "spatial", spatial)
        about = _encoded(file.create_group("uns"), "dict", "0.1.0")
        for key, text in table.about.items():
            _encoded(about.create_dataset(key, data=text, dtype=_TEXT), "string", "0.2.0")
    return stream.getvalue()


def parquet_packages() -> tuple[Any, Any]:
    """What writes Parquet.

    Raises:
        MissingPackageError: pyarrow is not installed.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingPackageError(
            'Parquet needs pyarrow, which is not installed: pip install "millie[parquet]"'
        ) from error


def as_parquet(table: CellTable) -> bytes:
    """Parquet: the columns, and the vector of each cell as a list in ``features``.

    Raises:
        MissingPackageError: pyarrow is not installed.
    """
    arrow, parquet = parquet_packages()
    flat = arrow.array(table.features.reshape(-1))
    columns = {
        "cell": arrow.array(table.names, arrow.string()),
        **{name: arrow.array(values.tolist()) for name, values in table.columns.items()},
        "features": arrow.FixedSizeListArray.from_arrays(flat, max(table.features.shape[1], 1)),
    }
    made = arrow.table(columns).replace_schema_metadata(table.about)
    stream = io.BytesIO()
    parquet.write_table(made, stream)
    return stream.getvalue()


def _column(values: Sequence[Any]) -> NDArray[Any]:
    return np.array(values, dtype=object if isinstance(values[0], str) else None)


def _encoded(thing: Any, kind: str, version: str) -> Any:
    thing.attrs["encoding-type"], thing.attrs["encoding-version"] = kind, version
    return thing


def _array(group: h5py.Group, name: str, values: NDArray[Any]) -> None:
    _encoded(group.create_dataset(name, data=values), "array", "0.2.0")


def _texts(group: h5py.Group, name: str, values: Sequence[str]) -> None:
    made = group.create_dataset(name, data=np.array(values, dtype=object), dtype=_TEXT)
    _encoded(made, "string-array", "0.2.0")


def _frame(
    file: h5py.File, name: str, index: Sequence[str], columns: Mapping[str, NDArray[Any]]
) -> None:
    frame = _encoded(file.create_group(name), "dataframe", "0.2.0")
    frame.attrs["_index"] = "_index"
    frame.attrs.create("column-order", list(columns), dtype=_TEXT)
    _texts(frame, "_index", index)
    for key, values in columns.items():
        if values.dtype == object:
            _categories(frame, key, values)
        else:
            _array(frame, key, values)


def _categories(frame: h5py.Group, key: str, values: NDArray[Any]) -> None:
    known, codes = np.unique(values.astype(str), return_inverse=True)
    group = _encoded(frame.create_group(key), "categorical", "0.2.0")
    group.attrs["ordered"] = False
    _texts(group, "categories", known.tolist())
    _array(group, "codes", codes.astype(np.int8 if len(known) < 128 else np.int32))
