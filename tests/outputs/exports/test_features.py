"""Vectors of cells: read back by readers written from the rules of the toolkits' own loaders."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from millie.errors import ConfigError, MissingPackageError
from millie.outputs.exports.cell_table import as_h5ad, as_parquet, cell_table
from millie.outputs.exports.feature_bags import (
    STAMP_VERSION,
    Embedded,
    write_clam,
    write_stamp,
    write_trident,
)
from millie.outputs.exports.outlines import crop_place
from millie.outputs.exports.samples import read_run
from millie.readers.cell_tables import Columns, read_patients

DIM = 5


@pytest.fixture(scope="module")
def bags(called: Path) -> list[Embedded]:
    rng = np.random.default_rng(0)
    _, samples = read_run(called)
    return [
        Embedded(s, rng.random((len(s.cells), DIM)).astype(np.float16), "tiny", "ab" * 32)
        for s in samples
    ]


def corners(bag: Embedded) -> np.ndarray[Any, Any]:
    sample = bag.sample
    return np.array([crop_place(c, sample.sources[c.source], sample.meta)[0]
                     for c in sample.cells])  # fmt: skip


def test_trident(bags: list[Embedded], tmp_path: Path) -> None:
    """``read_coords`` and ``read_features`` of TRIDENT: names, types, attributes of datasets."""
    rows = [row for bag in bags for row in write_trident(tmp_path, bag)]
    (job,) = tmp_path.iterdir()
    assert job.name.endswith("x_32px_0px_overlap")
    for bag, (patient, stem, _) in zip(bags, rows, strict=True):
        assert patient == bag.sample.result.patient
        with h5py.File(job / "features_tiny" / f"{stem}.h5") as file:
            features, coords = file["features"], file["coords"]
            assert features.dtype == np.float32
            np.testing.assert_array_equal(features[:], bag.features.astype(np.float32))
            assert features.attrs["encoder"] == "tiny"
            assert coords.dtype == np.int64
            np.testing.assert_array_equal(coords[:], corners(bag))
        with h5py.File(job / "patches" / f"{stem}_patches.h5") as file:
            told = dict(file["coords"].attrs)
            np.testing.assert_array_equal(file["coords"][:], corners(bag))
        assert told.keys() == {
            "patch_size", "patch_size_level0", "level0_magnification", "target_magnification",
            "overlap", "name", "savetodir", "level0_width", "level0_height",
        }  # fmt: skip
        side_um = told["patch_size_level0"] * bag.sample.sources[0].um_px
        assert side_um == pytest.approx(bag.sample.meta.size_um, rel=0.02)


def test_names_have_no_dot_that_a_toolkit_would_cut_off(
    bags: list[Embedded], tmp_path: Path
) -> None:
    result = replace(bags[0].sample.result, patient="Müller, A. 7")
    bag = replace(bags[0], sample=replace(bags[0].sample, result=result))
    rows = [write_trident(tmp_path, bag)[0][1], write_clam(tmp_path, bag, bytes)[0][1],
            write_stamp(tmp_path, bag)[0][1].removesuffix(".h5")]  # fmt: skip
    assert not any("." in name for name in rows)


def test_stamp(bags: list[Embedded], tmp_path: Path) -> None:
    """``get_coords`` and ``BagDataset`` of STAMP 2: coordinates in um, half precision."""
    for bag in bags:
        for patient, name, image in write_stamp(tmp_path, bag):
            assert (patient, image) == (bag.sample.result.patient, bag.sample.sources[0].name)
            with h5py.File(tmp_path / "features" / name) as file:
                assert file.attrs["unit"] == "um"
                assert "tile_size" not in file.attrs, "the older format would be taken"
                assert file.attrs["tile_size_um"] == bag.sample.meta.size_um
                assert file.attrs["tile_size_px"] == bag.sample.meta.size_px
                assert file.attrs["feat_type"] == "tile"
                assert file.attrs["stamp_version"] == STAMP_VERSION
                assert file["feats"].dtype == np.float16
                np.testing.assert_array_equal(file["feats"][:], bag.features)
                um_px = bag.sample.sources[0].um_px
                np.testing.assert_allclose(file["coords"][:], corners(bag) * um_px, rtol=1e-6)


def test_clam(bags: list[Embedded], tmp_path: Path) -> None:
    """``Generic_MIL_Dataset`` of CLAM: a bare tensor, or ``features`` and ``coords``."""
    for bag in bags:
        ((patient, name),) = write_clam(tmp_path, bag, lambda features: features.tobytes())
        assert patient == bag.sample.result.patient
        with h5py.File(tmp_path / "h5_files" / f"{name}.h5") as file:
            assert (file["features"].dtype, file["coords"].dtype) == (np.float32, np.int32)
            np.testing.assert_array_equal(file["features"][:], bag.features.astype(np.float32))
            np.testing.assert_array_equal(file["coords"][:], corners(bag))
        written = np.frombuffer((tmp_path / "pt_files" / f"{name}.pt").read_bytes(), np.float32)
        np.testing.assert_array_equal(written.reshape(-1, DIM), bag.features.astype(np.float32))


@pytest.mark.parametrize("write", [write_trident, write_stamp])
def test_no_scale_is_made_up(write: Any, bags: list[Embedded], tmp_path: Path) -> None:
    sample = bags[0].sample
    sources = tuple(replace(source, um_px=None) for source in sample.sources)
    with pytest.raises(ConfigError, match="its scale is unknown"):
        write(tmp_path, replace(bags[0], sample=replace(sample, sources=sources)))


ENCODINGS = {
    "obs/patient": ("categorical", "0.2.0"),
    "obs/patient/categories": ("string-array", "0.2.0"),
    "obs/_index": ("string-array", "0.2.0"),
    "obs/x_px": ("array", "0.2.0"),
    "obs/smudge": ("array", "0.2.0"),
    "obs": ("dataframe", "0.2.0"),
    "X": ("array", "0.2.0"),
    "uns/status": ("string", "0.2.0"),
}
"""What R's readers know; ``nullable-string-array`` is none of it."""


def test_h5ad_has_the_encodings_that_r_reads(called: Path, bags: list[Embedded]) -> None:
    run, _ = read_run(called)
    table = cell_table(run, bags)
    with h5py.File(io.BytesIO(as_h5ad(table))) as file:
        for name, told in ENCODINGS.items():
            attributes = file[name].attrs
            assert (attributes["encoding-type"], attributes["encoding-version"]) == told, name
        found = []
        file.visititems(lambda _, item: found.append(item.attrs.get("encoding-type")))
        assert not any("nullable" in str(kind) for kind in found)
        for name in ("obs/_index", "obs/state/categories"):
            kind = h5py.check_string_dtype(file[name].dtype)
            assert (kind.encoding, kind.length) == ("utf-8", None)
        codes, known = file["obs/state/codes"][:], file["obs/state/categories"].asstr()[:]
        assert known[codes].tolist() == table.columns["state"].tolist()
        assert "not reviewed by a person" in file["uns/status"].asstr()[()]
        assert "research use only" in file["uns/intended_use"].asstr()[()]


def test_both_tables_are_read_back(called: Path, bags: list[Embedded], tmp_path: Path) -> None:
    run, _ = read_run(called)
    table = cell_table(run, bags)
    forms = {"h5ad": as_h5ad}
    if importlib.util.find_spec("pyarrow"):
        forms["parquet"] = as_parquet
    for ending, form in forms.items():
        (tmp_path / f"cells.{ending}").write_bytes(form(table))
        cohort, cells = read_patients(tmp_path / f"cells.{ending}", Columns())
        owners = table.columns["patient"]
        assert {p.id for p in cohort.patients} == set(owners)
        for patient, found in cells.items():
            np.testing.assert_array_equal(found.vectors, table.features[owners == patient])
            assert found.encoder == table.about["encoder"]
            x_px = table.columns["x_px"][owners == patient]
            np.testing.assert_array_equal(found.corners_px[:, 0], x_px)


def test_anndata_reads_it(called: Path, bags: list[Embedded], tmp_path: Path) -> None:
    pytest.importorskip("anndata", reason="needs anndata")
    run, _ = read_run(called)
    table = cell_table(run, bags)
    path = tmp_path / "cells.h5ad"
    path.write_bytes(as_h5ad(table))
    code = (
        "import sys, anndata; a = anndata.read_h5ad(sys.argv[1]); "
        "print(a.shape, a.obs['state'].dtype, a.obsm['spatial'].shape, a.obs_names.is_unique, "
        "a.obs['smudge'].dtype)"
    )  # its own process: it brings its own warnings
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    shown = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, str(path)],
        check=True, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    n = len(table.names)
    assert shown.stdout.split("\n")[0] == f"({n}, {DIM}) category ({n}, 2) True bool"


def test_parquet_holds_the_same(called: Path, bags: list[Embedded], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow (extra parquet)")
    run, _ = read_run(called)
    table = cell_table(run, bags)
    read = parquet.read_table(io.BytesIO(as_parquet(table)))
    assert read.column_names == ["cell", *table.columns, "features"]
    assert read["patient"].to_pylist() == table.columns["patient"].tolist()
    np.testing.assert_array_equal(np.array(read["features"].to_pylist()), table.features)
    assert b"research use only" in read.schema.metadata[b"intended_use"]


def test_parquet_without_its_package(
    called: Path, bags: list[Embedded], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = read_run(called)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match=r'pip install "millie\[parquet\]"'):
        as_parquet(cell_table(run, bags))
