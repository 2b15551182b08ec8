"""Files of vectors: the layouts that are read, and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from millie.errors import DataError, MissingFileError
from millie.readers.feature_files import read_feature_file

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)
COORDS = np.array([[0, 0], [10, 0], [0, 20], [30, 40]])


def written(path: Path, fill: Callable[[h5py.File], Any]) -> Path:
    with h5py.File(path, "w") as file:
        fill(file)
    return path


def test_genbloom_holds_vectors_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", lambda f: f.create_dataset("features", data=VECTORS))
    found = read_feature_file(path, "a.h5")
    np.testing.assert_array_equal(found.vectors, VECTORS)
    assert np.isnan(found.corners_px).all()
    assert (found.side_px, found.um_px, found.encoder) == (0, None, "")


def test_trident_states_encoder_and_patch(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.create_dataset("features", data=VECTORS[None]).attrs["encoder"] = "uni_v1"
        file.create_dataset("coords", data=COORDS).attrs["patch_size_level0"] = 512

    found = read_feature_file(written(tmp_path / "a.h5", fill), "a.h5")
    np.testing.assert_array_equal(found.vectors, VECTORS)
    np.testing.assert_array_equal(found.corners_px, COORDS)
    assert (found.side_px, found.um_px, found.encoder) == (512, None, "uni_v1")


def test_stamp_gives_places_in_um(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["feats"], file["coords"] = VECTORS.astype(np.float16), COORDS.astype(np.float32)
        told = {"unit": "um", "tile_size_um": 112.0, "tile_size_px": 224, "extractor": "ctp"}
        file.attrs.update(told)

    found = read_feature_file(written(tmp_path / "a.h5", fill), "a.h5")
    assert found.vectors.dtype == np.float32
    np.testing.assert_allclose(found.corners_px, COORDS / 0.5)
    assert (found.side_px, found.um_px, found.encoder) == (224, 0.5, "ctp")


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    other = written(tmp_path / "other.h5", lambda f: f.create_dataset("features", data=VECTORS))

    def huge(file: h5py.File) -> None:
        file.create_dataset("features", (10**7, 10**3), np.float32, chunks=(1, 1000))

    def link(file: h5py.File) -> None:
        file["features"] = h5py.ExternalLink(str(other), "features")

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((4, 3), np.float32)
        layout[:] = h5py.VirtualSource(str(other), "features", (4, 3))
        file.create_virtual_dataset("features", layout)

    def unit(file: h5py.File) -> None:
        file["features"], file["coords"] = VECTORS, COORDS
        file.attrs["unit"] = "um"

    def coords(file: h5py.File) -> None:
        file["features"], file["coords"] = VECTORS, COORDS[:2]

    cases: dict[str, tuple[Callable[[h5py.File], Any], str]] = {
        "nothing": (lambda f: f.create_dataset("x", data=1), "holds x; expected"),
        "one": (lambda f: f.create_dataset("features", data=VECTORS[0]), r"expected numbers"),
        "none": (lambda f: f.create_dataset("features", data=VECTORS[:0]), "at least one"),
        "text": (lambda f: f.create_dataset("features", data=[[b"a"]]), "expected numbers"),
        "nan": (lambda f: f.create_dataset("features", data=VECTORS * np.nan), "not finite"),
        "huge": (huge, "split it"),
        "link": (link, "no dataset of this file"),
        "virtual": (virtual, "no dataset of this file"),
        "unit": (unit, "cannot be read as HDF5 with vectors"),
        "coords": (coords, r"expected \(4, 2\)"),
    }
    for name, (fill, message) in cases.items():
        path = written(tmp_path / f"{name}.h5", fill)
        with pytest.raises(DataError, match=message) as raised:
            read_feature_file(path, path.name)
        assert path.name in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n" + b"\0" * 64, b"\xff\xd8\xff"])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.h5: cannot be read"):
        read_feature_file(path, path.name)
    with pytest.raises(MissingFileError, match="no such file"):
        read_feature_file(tmp_path / "b.h5", "b.h5")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.create_dataset("features", data=np.random.default_rng(0).random((500, 64)))

    path = written(tmp_path / "a.h5", fill)
    path.write_bytes(path.read_bytes()[:-50_000])
    with pytest.raises(DataError, match="cannot be read"):
        read_feature_file(path, path.name)
