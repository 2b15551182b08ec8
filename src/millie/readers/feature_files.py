"""Vectors of cells or patches that others computed: HDF5 files of TRIDENT, CLAM and STAMP.

Owns which datasets are read and what is refused. ``features`` (TRIDENT, CLAM, GenBloom's bags) or
``feats`` (STAMP) hold the vectors (N, D); ``coords``, where it is there, left top corners: pixels,
or um where the file says so. Other files named by a link inside are not followed.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from millie.errors import DataError, MissingFileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_NAMES = ("features", "feats")
MOST_BYTES = 4_000_000_000
"""Of one file's vectors in float32: a million of 1,000 numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class FeatureFile:
    """What a file holds.

    Attributes:
        vectors: float32 (N, D), finite.
        corners_px: left top corners (N, 2), x and y; NaN where the file gives none.
        side_px: of a patch in the same pixels; 0: unknown.
        um_px: scale of these pixels; None: unknown.
        encoder: name that the file states; empty: none.
    """

    vectors: NDArray[np.float32]
    corners_px: NDArray[np.float64]
    side_px: int
    um_px: float | None
    encoder: str


def is_feature_file(path: Path) -> bool:
    """Whether a file may hold vectors, by its first bytes: it is HDF5 or Parquet."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"PAR1" or bool(h5py.is_hdf5(path))


def read_feature_file(path: Path, name: str) -> FeatureFile:
    """Read a file of vectors.

    Args:
        path: where it lies.
        name: for messages.

    Raises:
        MissingFileError: there is no such file.
        DataError: no HDF5, no vectors in it, or vectors that cannot be used.
    """
    if not path.is_file():
        raise MissingFileError(f"{name}: no such file ({path}); check the path")
    with hdf5_errors(name), h5py.File(path, "r", locking=False) as file:
        dataset = _vectors_of(file, name)
        vectors = np.asarray(dataset[()], np.float32)
        vectors = vectors[0] if vectors.ndim == 3 else vectors
        corners, side, um_px = _places_of(file, len(vectors), name)
        told = {**dict(file.attrs), **dict(dataset.attrs)}
    check_finite(vectors, name)
    encoder = told.get("encoder", told.get("extractor", ""))
    return FeatureFile(vectors, corners, side, um_px, encoder if isinstance(encoder, str) else "")


def _vectors_of(file: h5py.File, name: str) -> h5py.Dataset:
    found = [key for key in _NAMES if key in file]
    if not found:
        held = ", ".join(sorted(file)[:5]) or "nothing"
        raise DataError(
            f"{name}: holds {held}; expected the vectors as dataset 'features' or 'feats'"
        )
    dataset = own_part(file, found[0], name)
    shape = dataset.shape[1:] if dataset.ndim == 3 and dataset.shape[0] == 1 else dataset.shape
    if len(shape) != 2 or 0 in shape or dataset.dtype.kind not in "fiu":
        raise DataError(
            f"{name}: '{found[0]}' is {dataset.dtype} {dataset.shape}; expected numbers (N, D), at "
            "least one vector"
        )
    check_size(shape, name)
    return dataset


def check_size(shape: tuple[int, int], name: str) -> None:
    """Refuse vectors (N, D) that would not fit in memory.

    Raises:
        DataError: more than :data:`MOST_BYTES`.
    """
    if 4 * shape[0] * shape[1] > MOST_BYTES:
        raise DataError(f"{name}: {shape[0]} x {shape[1]} numbers; split it into several files")


def check_finite(vectors: NDArray[np.float32], name: str) -> None:
    """Refuse vectors with a number that is none.

    Raises:
        DataError: so.
    """
    if not np.isfinite(vectors).all():
        raise DataError(f"{name}: a vector is not finite; compute the file again")


def own_part(group: h5py.Group, key: str, name: str) -> h5py.Dataset:
    """A dataset that lies in the file itself.

    Raises:
        DataError: it is a link, lies in another file, or is no dataset.
    """
    own = isinstance(group.get(key, getlink=True), h5py.HardLink)
    return own_dataset(group[key] if own else None, key, name)


def own_dataset(found: object, key: str, name: str) -> h5py.Dataset:
    """What a key or a reference led to, if it is a dataset whose data lie in the file itself.

    Raises:
        DataError: its data lie in another file, or it is no dataset.
    """
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
        raise DataError(f"{name}: '{key}' is no dataset of this file; copy its data into the file")
    return found


def _places_of(
    file: h5py.File, count: int, name: str
) -> tuple[NDArray[np.float64], int, float | None]:
    """Corners in pixels, side and scale, as far as the file gives them."""
    if "coords" not in file:
        return np.full((count, 2), np.nan), 0, None
    dataset = own_part(file, "coords", name)
    if dataset.shape not in {(count, 2), (1, count, 2)} or dataset.dtype.kind not in "fiu":
        raise DataError(f"{name}: 'coords' is {dataset.shape}; expected ({count}, 2)")
    corners = np.asarray(dataset[()], np.float64).reshape(count, 2)
    if file.attrs.get("unit") == "um":
        side_px = float(file.attrs["tile_size_px"])
        um_px = float(file.attrs["tile_size_um"]) / side_px
        return corners / um_px, round(side_px), um_px
    return corners, int(dataset.attrs.get("patch_size_level0", 0)), None


@contextmanager
def hdf5_errors(name: str) -> Iterator[None]:
    """What h5py raises for files that are damaged or hostile, as one error.

    Raises:
        DataError: so.
    """
    try:
        yield
    except DataError:
        raise
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        detail: Any = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(
            f"{name}: cannot be read as HDF5 with vectors ({detail}); copy or compute it again"
        ) from error
