"""Writing a patient's bag: crops, masks, fingerprints and table, a few dozen cells at a time.

The layout is described, and read, in :mod:`millie.bags.bagfile`.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from millie.bags.bagfile import SCHEMA, TABLE, BagMeta, BagReader, head_digest
from millie.bags.files import new_file
from millie.bags.fingerprints import RINGS, SIDE_PX, Fingerprint, fingerprint
from millie.errors import ConfigError, StoreError
from millie.types import Cell, Patient, Problem, SourceRecord

_BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class CellCrop:
    """A cell on its way into a bag.

    Attributes:
        cell: its place and flags.
        image: uint8 RGB (S, S, 3).
        mask: uint8 (S, S); 0 outside, 1 cytoplasm, 2 nucleus.
        known_by: its fingerprint, where that was needed before.
    """

    cell: Cell
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    known_by: Fingerprint | None = None


def write_bag(
    path: Path,
    patient: Patient,
    cells: Iterable[CellCrop],
    sources: Sequence[SourceRecord],
    meta: BagMeta,
    problems: Sequence[Problem] = (),
) -> int:
    """Write a patient's bag atomically, in the memory of a few dozen crops.

    Args:
        path: its place; see :meth:`millie.bags.store.Store.path_of`.
        patient: whose bag; the list of images is not stored, the sources are.
        cells: crops in the bag's order; taken one by one. An empty bag is allowed.
        sources: files that ``cell.source`` counts in; taken after the last cell, so a list that
            grows while cells are cut is fine.
        meta: how the cells were made.
        problems: added to those of ``meta``; taken after the last cell too.

    Returns:
        the number of cells.

    Raises:
        ConfigError: a crop's shape does not fit ``meta.size_px``, a cell names no source, or
            diagnostics are no JSON values.
        StoreError: the file cannot be written, or ``path`` holds another patient's bag.
    """
    _check_owner(path, patient.id)
    names: dict[str, int] = {}
    with new_file(path) as new:
        group = new.hdf.create_group("cells")
        _create(group, meta.size_px)
        iterator = iter(cells)
        count = 0
        while batch := list(islice(iterator, _BATCH)):
            for crop in batch:
                _check_crop(crop, meta.size_px)
            _append(group, batch, names)
            new.check()
            count += len(batch)
        if count and int(group["table"]["source"].max()) >= len(sources):
            raise ConfigError(
                f"{patient.id}: a cell names a source beyond the {len(sources)} given"
            )
        meta = dataclasses.replace(meta, problems=(*meta.problems, *problems))
        write_head(new.hdf, patient, list(names), meta, sources)
    return count


def write_head(
    hdf: h5py.File,
    patient: Patient,
    labels: Sequence[str],
    meta: BagMeta,
    sources: Sequence[SourceRecord],
) -> None:
    """Write what is read without the cells, and its digest; ``labels`` are experts' types.

    Raises:
        ConfigError: diagnostics are no JSON values.
    """
    data = {"patient": _patient_data(patient), "labels": list(labels),
            "meta": dataclasses.asdict(meta)}  # fmt: skip
    texts = _json(data), _json([dataclasses.asdict(s) for s in sources])
    hdf["meta"], hdf["sources"] = map(np.bytes_, texts)
    hdf.attrs["head_sha256"] = np.bytes_(head_digest(*texts))
    hdf.attrs["schema"] = SCHEMA


def _check_owner(path: Path, patient_id: str) -> None:
    """Refuse to write over another patient's readable bag."""
    if not path.exists():
        return
    try:
        with BagReader(path, verify=False) as old:
            owner = old.patient_id
    except StoreError:
        return
    if owner != patient_id:
        raise StoreError(
            f"{path} holds the bag of patient '{owner}', not of '{patient_id}': choose another name"
        )


def _check_crop(crop: CellCrop, size_px: int) -> None:
    shapes = (crop.image.shape, crop.mask.shape)
    kinds = {crop.image.dtype, crop.mask.dtype}
    if shapes != ((size_px, size_px, 3), (size_px, size_px)) or kinds != {np.dtype(np.uint8)}:
        raise ConfigError(
            f"crop {shapes[0]} {crop.image.dtype} with mask {shapes[1]} {crop.mask.dtype}: "
            f"expected uint8 ({size_px}, {size_px}, 3) and uint8 ({size_px}, {size_px})"
        )
    if crop.mask.max() > 2:
        raise ConfigError(f"mask with value {crop.mask.max()}: expected 0, 1 or 2")
    if crop.cell.source < 0:
        raise ConfigError(f"cell with source {crop.cell.source}: expected 0 or more")


def _create(group: h5py.Group, size_px: int) -> None:
    group.create_dataset("images", (0,), np.uint8, maxshape=(None,), chunks=(1 << 16,))
    group.create_dataset(
        "offsets", data=np.zeros(1, np.int64), maxshape=(None,), chunks=(1024,), dtype="<i8"
    )
    group.create_dataset(
        "masks", (0, size_px, size_px), np.uint8, maxshape=(None, size_px, size_px),
        chunks=(1, size_px, size_px), compression="gzip", compression_opts=1,
    )  # fmt: skip
    group.create_dataset(
        "rings", (0, 3 * RINGS), np.uint8, maxshape=(None, 3 * RINGS), chunks=(256, 3 * RINGS)
    )
    group.create_dataset(
        "pictures", (0, SIDE_PX, SIDE_PX), np.uint8, maxshape=(None, SIDE_PX, SIDE_PX),
        chunks=(1, SIDE_PX, SIDE_PX), compression="gzip", compression_opts=1,
    )  # fmt: skip
    group.create_dataset("table", (0,), TABLE, maxshape=(None,), chunks=(256,))


def _append(group: h5py.Group, batch: list[CellCrop], names: dict[str, int]) -> None:
    encoded = [_encode(crop.image) for crop in batch]
    end = int(group["offsets"][-1])
    offsets = end + np.cumsum([len(e) for e in encoded])
    _extend(group["images"], np.frombuffer(b"".join(encoded), np.uint8))
    _extend(group["offsets"], offsets.astype("<i8"))
    _extend(group["masks"], np.stack([crop.mask for crop in batch]))
    prints = [crop.known_by or fingerprint(crop.image, crop.mask) for crop in batch]
    _extend(group["rings"], np.stack([one.rings for one in prints]))
    _extend(group["pictures"], np.stack([one.picture for one in prints]))
    rows = [tuple(row_of(crop.cell, names)) for crop in batch]
    _extend(group["table"], np.array(rows, TABLE))


def _extend(dataset: h5py.Dataset, values: NDArray[Any]) -> None:
    start = dataset.shape[0]
    dataset.resize(start + len(values), axis=0)
    dataset[start:] = values
    # Now, not whenever h5py closes the object (other threads delay that): equal cells, equal bytes.
    dataset.flush()


def row_of(cell: Cell, names: dict[str, int]) -> Iterator[Any]:
    """A cell's row of :data:`TABLE`; types of cell are counted in ``names``."""
    for name in TABLE.names or ():
        value = getattr(cell, name)
        if name == "area_um2":
            yield np.nan if value is None else value
        elif name == "label":
            yield -1 if value is None else names.setdefault(value, len(names))
        else:
            yield value


def _encode(image: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    picture = Image.fromarray(image)
    picture.save(stream, "WEBP", lossless=True, quality=0, method=0)
    return stream.getvalue()


def _patient_data(patient: Patient) -> dict[str, Any]:
    return {
        f.name: getattr(patient, f.name) for f in dataclasses.fields(patient) if f.name != "images"
    }


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, sort_keys=True).encode("ascii")  # escapes keep odd ids whole
    except TypeError as error:
        raise ConfigError(f"diagnostics must be JSON values: {error}") from error
