"""One patient's bag on disk: pictures, masks, table of cells, sources, provenance.

Layout (schema 2), all inside one sealed HDF5 file::

    cells/images    uint8 (bytes,)     lossless WebP of each crop, end to end
    cells/offsets   int64 (N + 1,)     crop i is images[offsets[i]:offsets[i + 1]]
    cells/masks     uint8 (N, S, S)    0 outside, 1 cytoplasm, 2 nucleus
    cells/rings     uint8 (N, 30)      fingerprint of each cell: colours around its middle
    cells/pictures  uint8 (N, 48, 48)  fingerprint of each cell: grey, moved to the middle
    cells/table     compound (N,)      the fields of millie.types.Cell
    sources         text (JSON)        the files the cells came from
    meta            text (JSON)        patient, crop size, configuration digest, version, problems

A bag of vectors that were computed elsewhere (:mod:`millie.bags.vectors`) has ``cells/vectors``,
float32 (N, D), in the place of pictures, masks and fingerprints.

The attribute ``head_sha256`` is the digest of meta and sources, so that a label that is read
without the pictures is as sure as one that is read with them.

Lossless WebP at its fastest setting takes 0.3 to 0.4 of the raw bytes and is decoded faster than
any encoder network consumes it (benchmarks/crop_encoding.py). This module owns the layout and
the reading; writing is :mod:`millie.bags.bag_writer`'s, and where bags lie is the store's.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from millie import __version__
from millie.bags.files import open_file, read_errors, read_seal
from millie.errors import StoreError
from millie.types import Cell, ImageKind, Patient, Place, Problem, SourceRecord

SCHEMA = 2
TABLE = np.dtype([
    ("source", "<i4"), ("x_px", "<f8"), ("y_px", "<f8"), ("left_px", "<i4"), ("top_px", "<i4"),
    ("width_px", "<i4"), ("height_px", "<i4"), ("area_px", "<f8"), ("area_um2", "<f8"),
    ("quality", "<f8"), ("at_border", "u1"), ("in_clump", "u1"), ("smudge", "u1"), ("label", "<i4"),
])  # fmt: skip


@dataclass(frozen=True, slots=True)
class BagMeta:
    """How the cells of a bag were made.

    Attributes:
        size_px: side S of every crop, px.
        size_um: side in um as configured; 0: native pixels.
        um_px: scale of the crops, um/px; None: unknown.
        digest: of the configuration that cut the bag; equal digest, nothing to do again.
        problems: files of the patient that could not be used.
        diagnostics: numbers about the sample for the gates; JSON values.
        version: of millie.
    """

    size_px: int
    size_um: float
    um_px: float | None
    digest: str
    problems: tuple[Problem, ...] = ()
    diagnostics: dict[str, Any] = field(default_factory=dict)
    version: str = __version__


class BagReader:
    """A patient's bag, opened for reading; a context manager.

    Args:
        path: the bag.
        verify: compare the whole file with its SHA-256 before anything is believed; False: only
            patient, label, settings and sources with theirs, which saves reading the pictures.

    Raises:
        MissingFileError: there is no such file.
        StoreError: it is damaged, unfinished, of another schema, or no bag.
    """

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        self.path = path
        self._file: h5py.File = open_file(path, verify=verify)
        try:
            with read_errors(path):
                self._read_head()
        except BaseException:
            self.close()
            raise

    def _read_head(self) -> None:
        schema = self._file.attrs.get("schema")
        if schema is None or "cells/table" not in self._file:
            raise StoreError(f"{self.path} is a millie file but not a bag: give a bag file")
        if int(schema) != SCHEMA:
            raise StoreError(
                f"{self.path} has schema {int(schema)}, this version reads {SCHEMA}: segment "
                "again, or use the millie version that wrote it"
            )
        meta, self._sources = (bytes(self._file[name][()]) for name in ("meta", "sources"))
        if self._file.attrs["head_sha256"].decode() != head_digest(meta, self._sources):
            raise StoreError(
                f"{self.path} has changed since it was written: delete it and run the step that "
                "writes it again"
            )
        data = json.loads(meta)
        self.patient = Patient(**data["patient"], images=())
        self._label_names: list[str] = data["labels"]
        problems = tuple(Problem(**p) for p in data["meta"].pop("problems"))
        self.meta = BagMeta(**data["meta"], problems=problems)
        self.holds_vectors = "cells/vectors" in self._file
        if not self.holds_vectors:
            self._images: h5py.Dataset = self._file["cells/images"]
            self._masks: h5py.Dataset = self._file["cells/masks"]
            self._offsets: h5py.Dataset = self._file["cells/offsets"]
        self.n_cells = int(self._file["cells/table"].shape[0])

    @property
    def patient_id(self) -> str:
        """The patient's pseudonym."""
        return self.patient.id

    @property
    def label(self) -> str | None:
        """The diagnosis, None where it is unknown."""
        return self.patient.label

    @property
    def sha256(self) -> str:
        """Digest (hex) of the bag's whole content."""
        return read_seal(self.path)

    @property
    def cells(self) -> list[Cell]:
        """All cells in the bag's order."""
        with read_errors(self.path):
            rows = self._file["cells/table"][()]
            return [self._cell(dict(zip(TABLE.names or (), row, strict=True)))
                    for row in rows.tolist()]  # fmt: skip

    def sources_of(self, start: int, stop: int) -> list[int]:
        """``cell.source`` of cells ``start`` to ``stop``, without the rest of the table."""
        with read_errors(self.path):
            rows = self._file["cells/table"][slice(*slice(start, stop).indices(self.n_cells))]
            return [int(i) for i in rows["source"]]

    @cached_property
    def sources(self) -> tuple[SourceRecord, ...]:
        """The files that ``cell.source`` counts in."""
        with read_errors(self.path):
            return tuple(_source(**stored) for stored in json.loads(self._sources))

    def coordinates(self) -> NDArray[np.float64]:
        """Centroids (N, 2) as (x, y), px of the full-resolution images."""
        with read_errors(self.path):
            table = self._file["cells/table"][()]
        return np.stack([table["x_px"], table["y_px"]], axis=1)

    def images(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Crops ``start`` to ``stop`` (exclusive, cut to the bag): uint8 RGB (n, S, S, 3).

        Raises:
            StoreError: damaged, or a bag of vectors; so do masks, rings and pictures.
        """
        self._check_pictures()
        start, stop, _ = slice(start, stop).indices(self.n_cells)
        size = self.meta.size_px
        result = np.empty((max(stop - start, 0), size, size, 3), np.uint8)
        if stop <= start:
            return result
        with read_errors(self.path):
            offsets = self._offsets[start : stop + 1]
            data = self._images[offsets[0] : offsets[-1]].tobytes()
            edges = (offsets - offsets[0]).tolist()
            for i, (left, right) in enumerate(pairwise(edges)):
                result[i] = _decode(data[left:right], size)
        return result

    def masks(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Masks of the same cells: uint8 (n, S, S); 0 outside, 1 cytoplasm, 2 nucleus."""
        self._check_pictures()
        with read_errors(self.path):
            return np.asarray(self._masks[slice(*slice(start, stop).indices(self.n_cells))])

    def rings(self) -> NDArray[np.uint8]:
        """Colours around the middles of all cells, uint8 (N, 30): half of their fingerprints."""
        self._check_pictures()
        with read_errors(self.path):
            return np.asarray(self._file["cells/rings"])

    def pictures(self, cells: Sequence[int]) -> NDArray[np.uint8]:
        """The other half for some cells, in rising order: uint8 (n, 48, 48), grey."""
        self._check_pictures()
        with read_errors(self.path):
            return np.asarray(self._file["cells/pictures"][list(cells)])

    def vectors(self) -> NDArray[np.float32]:
        """Vectors (N, D) that were computed elsewhere.

        Raises:
            StoreError: the bag holds pictures instead.
        """
        self._check_vectors()
        with read_errors(self.path):
            return np.asarray(self._file["cells/vectors"], np.float32)

    @property
    def vector_dim(self) -> int:
        """D of the vectors; raises as :meth:`vectors`."""
        self._check_vectors()
        return int(self._file["cells/vectors"].shape[1])

    def _check_vectors(self) -> None:
        if not self.holds_vectors:
            raise StoreError(f"{self.path} holds pictures of cells, not vectors")

    def _check_pictures(self) -> None:
        if self.holds_vectors:
            raise StoreError(
                f"{self.path} holds vectors of cells and no pictures (millie import-features): cut "
                "the patient's images with `millie segment` for this"
            )

    def image(self, i: int) -> NDArray[np.uint8]:
        """Crop of one cell: uint8 RGB (S, S, 3).

        Raises:
            IndexError: there is no such cell.
        """
        if not 0 <= i < self.n_cells:
            raise IndexError(f"cell {i} of a bag with {self.n_cells}")
        crop: NDArray[np.uint8] = self.images(i, i + 1)[0]
        return crop

    def close(self) -> None:
        """Close the file; the reader cannot be used after it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _cell(self, row: dict[str, Any]) -> Cell:
        area = row["area_um2"]
        label = row["label"]
        return Cell(**{
            **row,
            "area_um2": None if np.isnan(area) else area,
            "label": None if label < 0 else self._label_names[label],
            **{flag: bool(row[flag]) for flag in ("at_border", "in_clump", "smudge")},
        })  # fmt: skip


def _decode(data: bytes, size_px: int) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=("WEBP",)) as image:
        if image.size != (size_px, size_px) or image.mode != "RGB":
            raise ValueError(f"crop of {image.size} {image.mode}, expected {size_px} px RGB")
        return np.asarray(image)


def _source(kind: str, place: dict[str, Any] | None = None, **facts: Any) -> SourceRecord:
    cut = Place(**{**place, "core": tuple(place["core"])}) if place else None
    return SourceRecord(kind=ImageKind(kind), place=cut, **facts)


def head_digest(meta: bytes, sources: bytes) -> str:
    """Attribute ``head_sha256`` of these two texts."""
    return hashlib.sha256(meta + b"\0" + sources).hexdigest()
