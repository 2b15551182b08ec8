"""Cached features of a bag's cells, beside the store and keyed by what computed them.

A cache belongs to one content of one bag: it carries the bag's SHA-256 and is a miss once the bag
was cut anew. This module owns these files; computing features is the business of inference.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millie.bags.files import new_file, open_file, read_errors, read_seal
from millie.errors import ConfigError, MissingFileError, StoreError

FOLDER = "embeddings"


def embeddings_path(bag: Path, digest: str) -> Path:
    """Where the features of a bag under an encoder's digest (hex, 16 or more digits) lie.

    Raises:
        ConfigError: the digest is none.
    """
    if not re.fullmatch(r"[0-9a-f]{16,128}", digest):
        raise ConfigError(f"encoder digest {digest!r}: expected at least 16 hexadecimal digits")
    return bag.parent / FOLDER / digest[:16] / bag.name


def write_embeddings(
    bag: Path, digest: str, features: NDArray[np.floating[Any]], coords: NDArray[np.floating[Any]]
) -> Path:
    """Store the features of all cells of a bag as float16, atomically.

    Args:
        bag: the bag's file, which must exist.
        digest: of the encoder's weights and of everything else that changes features, hex.
        features: (N, D), finite.
        coords: centroids (N, 2), (x, y) px.

    Raises:
        ConfigError: shapes do not fit, or a feature is not finite in float16.
        StoreError: the file cannot be written.
    """
    features = np.asarray(features)
    with np.errstate(over="ignore"):
        half = features.astype(np.float16)
    if features.ndim != 2 or coords.shape != (len(features), 2):
        raise ConfigError(
            f"features {features.shape} with coords {coords.shape}: expected (N, D) and (N, 2)"
        )
    if not np.isfinite(half).all():
        raise ConfigError("features are not finite or beyond float16 (65504): check the encoder")
    path = embeddings_path(bag, digest)
    with new_file(path) as new:
        new.hdf["features"] = half
        new.hdf["coords"] = np.asarray(coords, np.float64)
        new.hdf.attrs["encoder"] = digest
        new.hdf.attrs["bag_sha256"] = read_seal(bag)
    return path


def read_embeddings(bag: Path, digest: str) -> NDArray[np.float16] | None:
    """Features (N, D) of a bag, or None where none of its present content are cached.

    A damaged cache is a miss: it will be computed and written again.
    """
    path = embeddings_path(bag, digest)
    try:
        with open_file(path) as file, read_errors(path):
            if file.attrs["encoder"] != digest or file.attrs["bag_sha256"] != read_seal(bag):
                return None
            return np.asarray(file["features"], np.float16)
    except (MissingFileError, StoreError):
        return None
