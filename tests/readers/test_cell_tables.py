"""Tables of cells from other programs: whose a row is, in every encoding that writers use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from millie.errors import DataError, MissingPackageError
from millie.readers.cell_tables import Columns, read_patients, read_whole_table

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)
OWNERS = ["p1", "p2", "p1", "p2"]
TEXT = h5py.string_dtype("utf-8")


def plain(obs: h5py.Group, key: str, values: Sequence[str]) -> None:
    obs.create_dataset(key, data=np.array(values, dtype=object), dtype=TEXT)


def categorical(obs: h5py.Group, key: str, values: Sequence[str]) -> None:
    """As AnnData 0.8 and later, and anndataR, write a factor."""
    known, codes = np.unique(np.array(values), return_inverse=True)
    group = obs.create_group(key)
    group.attrs["encoding-type"] = "categorical"
    plain(group, "categories", known.tolist())
    group["codes"] = codes.astype(np.int8)


def categorical_of_0_7(obs: h5py.Group, key: str, values: Sequence[str]) -> None:
    """As AnnData 0.7 writes it, and zellkonverter with it: a reference to the categories."""
    known, codes = np.unique(np.array(values), return_inverse=True)
    plain(obs.require_group("__categories"), key, known.tolist())
    obs[key] = codes.astype(np.int8)
    obs[key].attrs["categories"] = obs[f"__categories/{key}"].ref


def nullable(obs: h5py.Group, key: str, values: Sequence[str]) -> None:
    """As AnnData 0.12 writes pandas' nullable strings."""
    group = obs.create_group(key)
    group.attrs["encoding-type"] = "nullable-string-array"
    plain(group, "values", values)
    group["mask"] = np.array([value == "" for value in values])


def fixed(obs: h5py.Group, key: str, values: Sequence[str]) -> None:
    """As rhdf5 writes characters: of fixed length, padded with zeros."""
    obs[key] = np.array([value.encode() for value in values], dtype="S8")


Write = Callable[[h5py.Group, str, Sequence[str]], None]
ENCODINGS = (plain, categorical, categorical_of_0_7, nullable, fixed)


def h5ad(path: Path, write: Write = plain, label: Sequence[str] = ("AML", "APL") * 2) -> Path:
    with h5py.File(path, "w") as file:
        file["X"] = VECTORS
        obs = file.create_group("obs")
        write(obs, "patient", OWNERS)
        write(obs, "label", label)
    return path


@pytest.mark.parametrize("write", ENCODINGS)
def test_patients_and_diagnoses_in_every_encoding_of_text(write: Write, tmp_path: Path) -> None:
    cohort, cells = read_patients(h5ad(tmp_path / "a.h5ad", write), Columns())
    assert [(p.id, p.label) for p in cohort.patients] == [("p1", "AML"), ("p2", "APL")]
    np.testing.assert_array_equal(cells["p2"].vectors, VECTORS[1::2])
    assert np.isnan(cells["p2"].corners_px).all()


def test_other_names_of_columns_numbers_of_patients_places_and_encoder(tmp_path: Path) -> None:
    path = tmp_path / "a.h5ad"
    with h5py.File(path, "w") as file:
        file["X"] = VECTORS.astype(np.float64)
        file["obs/donor"] = np.array([7.0, 8.0, 7.0, np.nan])
        file["obsm/spatial"] = np.arange(12).reshape(4, 3)
        file["uns/encoder"] = "uni"
    cohort, cells = read_patients(path, Columns("donor"))
    assert [(p.id, p.label) for p in cohort.patients] == [("7", None), ("8", None)]
    assert cells["7"].vectors.dtype == np.float32
    np.testing.assert_array_equal(cells["7"].corners_px, [[0, 1], [6, 7]])
    assert cells["8"].encoder == "uni"


def test_a_table_of_one_patient_is_a_file_like_any_other(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cells of 2 patients.*give the file itself"):
        read_whole_table(h5ad(tmp_path / "a.h5ad"), "a.h5ad")
    with h5py.File(tmp_path / "b.h5ad", "w") as file:
        file["X"] = VECTORS
        file.create_group("obs")
    np.testing.assert_array_equal(read_whole_table(tmp_path / "b.h5ad", "b").vectors, VECTORS)


def _external(file: h5py.File) -> None:
    file.create_group("obs")
    file["X"] = h5py.ExternalLink("other.h5", "X")


BROKEN: dict[str, Callable[[h5py.File], Any]] = {
    "no X and obs": lambda file: file.create_group("var"),
    "X is sparse": lambda file: (file.create_group("X"), file.create_group("obs")),
    "before 0.7": lambda file: (file.create_dataset("X", data=VECTORS),
                                file.create_dataset("obs", data=np.zeros(4, [("a", "i4")]))),
    "no dataset of this file": _external,
    "expected numbers": lambda file: (file.create_dataset("X", data=VECTORS[0]),
                                      file.create_group("obs")),
    "no column 'patient'": lambda file: (file.create_dataset("X", data=VECTORS),
                                         file.create_dataset("obs/donor", data=np.zeros(4))),
    "3 values for 4 rows": lambda file: (file.create_dataset("X", data=VECTORS),
                                         file.create_dataset("obs/patient", data=np.zeros(3))),
    "not finite": lambda file: (file.create_dataset("X", data=VECTORS * np.nan),
                                file.create_dataset("obs/patient", data=np.zeros(4))),
    "holds no cells": lambda file: (file.create_dataset("X", data=VECTORS[:0]),
                                    file.create_group("obs")),
}  # fmt: skip


@pytest.mark.parametrize("told", BROKEN)
def test_what_cannot_be_used_is_named(told: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        BROKEN[told](file)
    with pytest.raises(DataError, match=told):
        read_patients(tmp_path / "a.h5ad", Columns())


def test_a_reference_to_data_of_another_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"password")
    path = h5ad(tmp_path / "cells.h5ad", categorical_of_0_7)
    with h5py.File(path, "a") as file:
        names = file["obs/__categories"]
        names.create_dataset("other", (2,), "S4", external=[(str(tmp_path / "secret"), 0, 8)])
        file["obs/patient"].attrs["categories"] = names["other"].ref
    with pytest.raises(DataError, match="'patient' is no dataset of this file"):
        read_patients(path, Columns())


def test_a_column_larger_than_memory_is_refused(tmp_path: Path) -> None:
    path = h5ad(tmp_path / "cells.h5ad")
    with h5py.File(path, "a") as file:
        del file["obs/patient"]
        file["obs"].create_dataset("patient", (4,), "S2000000000", chunks=(1,))
    with pytest.raises(DataError, match="obs/patient is"):
        read_patients(path, Columns())


def test_a_patient_has_one_diagnosis_and_a_named_column_is_there(tmp_path: Path) -> None:
    path = h5ad(tmp_path / "a.h5ad", label=("AML", "APL", "APL", "APL"))
    with pytest.raises(DataError, match="patient p1 has the diagnoses AML, APL"):
        read_patients(path, Columns())
    with pytest.raises(DataError, match="no column 'diagnosis'; its columns: label, patient;"):
        read_patients(path, Columns(label="diagnosis"))
    (tmp_path / "b.h5ad").write_text("no HDF5")
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        read_patients(tmp_path / "b.h5ad", Columns())


def test_what_anndata_itself_writes(tmp_path: Path) -> None:
    pytest.importorskip("anndata", reason="needs anndata")
    code = """
import sys, anndata, numpy as np, pandas as pd
obs = pd.DataFrame({"patient": ["p1", "p2", "p1", "p2"], "label": ["AML", "APL", "AML", None]},
                   index=list("abcd"))
if sys.argv[2] == "category":
    obs = obs.astype("category")
made = anndata.AnnData(np.arange(12, dtype=np.float32).reshape(4, 3), obs=obs)
made.obsm["spatial"] = np.ones((4, 2))
made.uns["encoder"] = "uni"
made.write_h5ad(sys.argv[1])
"""  # its own process: it brings its own warnings
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for kind in ("category", "text"):
        path = tmp_path / f"{kind}.h5ad"
        subprocess.run(  # noqa: S603
            [sys.executable, "-c", code, str(path), kind],
            check=True, capture_output=True, env=environment,
        )  # fmt: skip
        cohort, cells = read_patients(path, Columns())
        assert [(p.id, p.label) for p in cohort.patients] == [("p1", "AML"), ("p2", "APL")], kind
        np.testing.assert_array_equal(cells["p2"].vectors, VECTORS[1::2])
        assert (cells["p1"].encoder, cells["p1"].corners_px.tolist()) == ("uni", [[1, 1], [1, 1]])


def test_parquet_in_both_forms(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow (extra parquet)")
    parquet = pytest.importorskip("pyarrow.parquet")
    told = {"patient": OWNERS, "label": ["AML", "APL"] * 2, "x_px": [1.0, 2, 3, 4], "y_px": [0] * 4}
    columns = {f"f{i}": VECTORS[:, i] for i in (2, 0, 1)}
    forms = {
        "lists": {**told, "features": VECTORS.tolist()},
        "fixed": {**told, "features": arrow.FixedSizeListArray.from_arrays(VECTORS.ravel(), 3)},
        "columns": {**told, **columns},
    }
    for name, form in forms.items():
        path = tmp_path / f"{name}.parquet"
        parquet.write_table(arrow.table(form).replace_schema_metadata({"encoder": "uni"}), path)
        cohort, cells = read_patients(path, Columns())
        assert [(p.id, p.label) for p in cohort.patients] == [("p1", "AML"), ("p2", "APL")]
        np.testing.assert_array_equal(cells["p2"].vectors, VECTORS[1::2])
        assert (cells["p2"].encoder, cells["p2"].corners_px.tolist()) == ("uni", [[2, 0], [4, 0]])


def test_parquet_that_cannot_be_used(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow (extra parquet)")
    parquet = pytest.importorskip("pyarrow.parquet")
    broken = {
        "of several lengths": {"patient": ["a", "b"], "features": [[1.0], [1.0, 2.0]]},
        "missing or of several": {"patient": ["a", "b"], "features": [[1.0], None]},
        "no vectors": {"patient": ["a", "b"], "age": [1, 2]},
        "expected numbers": {"patient": ["a", "b"], "f0": ["x", "y"], "f1": ["x", "y"]},
        "not finite": {"patient": ["a", "b"], "f0": [1.0, None], "f1": [1.0, 2.0]},
        "no column 'patient'": {"donor": ["a", "b"], "features": [[1.0], [2.0]]},
    }
    path = tmp_path / "a.parquet"
    for told, columns in broken.items():
        parquet.write_table(arrow.table(columns), path)
        with pytest.raises(DataError, match=told):
            read_patients(path, Columns())
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_patients(path, Columns())


def test_parquet_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingPackageError, match=r'pip install "millie\[parquet\]"'):
        read_patients(tmp_path / "a.parquet", Columns())
