"""Vectors of cells, one bag a patient, as the toolkits of multiple instance learning read them.

Owns three layouts: TRIDENT and STAMP with a file an image, since a file of theirs states one scale
and one size of tile, and CLAM with a file a patient, since CLAM makes one bag of each file. A cell
stands where these have a tile; its place is the left top corner of its crop. Features come from
outside.

Source: TRIDENT ``trident/IO.py`` (save_h5) and ``wsi_objects/WSI.py``; CLAM
``extract_features_fp.py`` and ``dataset_modules/dataset_generic.py``; STAMP 2
``stamp/preprocessing/__init__.py`` and ``modeling/data.py``.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from millie import __version__
from millie.errors import ConfigError
from millie.files import safe_id, write_bytes, write_csv
from millie.outputs.exports.outlines import crop_place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from millie.outputs.exports.samples import Sample, SampleImage

STAMP_VERSION = "2.1.0"
"""Whose layout is written: STAMP refuses files of a later version than its own."""
_MAGNIFICATION_UM = 10.0  # 0.25 um/px is called 40x, 0.5 um/px 20x

Features = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """A sample with the vector of each cell.

    Attributes:
        sample: the patient's cells.
        features: (N, D), in the bag's order.
        encoder: name of what computed them.
        digest: SHA-256 (hex) of the model that names its weights.
    """

    sample: Sample
    features: Features
    encoder: str
    digest: str

    def corners(self, numbers: list[int]) -> NDArray[np.int64]:
        """Left top corners (n, 2) of crops, x and y, px of their image."""
        sample = self.sample
        cells = [sample.cells[n] for n in numbers]
        found = [crop_place(c, sample.sources[c.source], sample.meta)[0] for c in cells]
        return np.array(found, np.int64).reshape(-1, 2)


def write_trident(new: Path, bag: Embedded) -> list[list[str]]:
    """``<mag>x_<px>px_0px_overlap/patches`` and ``features_<encoder>``, a file an image.

    Returns:
        rows ``case_id, slide_id, image`` for the list of slides.

    Raises:
        ConfigError: crops or an image have no scale, which TRIDENT states.
    """
    sample, rows = bag.sample, []
    for image, name in _images(bag):
        um_px, crop_um_px = _scales(bag, image)
        size_px, side_px = sample.meta.size_px, round(sample.meta.size_um / um_px)
        left, top, width, height = image.frame
        target = round(_MAGNIFICATION_UM / crop_um_px)
        job = new / f"{target}x_{size_px}px_0px_overlap"
        place = {
            "patch_size": size_px, "patch_size_level0": side_px,
            "level0_magnification": round(_MAGNIFICATION_UM / um_px),
            "target_magnification": target, "overlap": 0, "name": name, "savetodir": "",
            "level0_width": left + width, "level0_height": top + height,
        }  # fmt: skip
        coords = bag.corners(image.cells)
        _write_h5(job / "patches" / f"{name}_patches.h5", {"coords": (coords, place)})
        told = {"name": name, "savetodir": "", "encoder": bag.encoder}
        vectors = np.asarray(bag.features[image.cells], np.float32)
        _write_h5(
            job / f"features_{bag.encoder}" / f"{name}.h5",
            {"features": (vectors, told), "coords": (coords, place)},
        )
        rows.append([sample.result.patient, name, image.name])
    return rows


def write_stamp(new: Path, bag: Embedded) -> list[list[str]]:
    """``features/<image>.h5``, coordinates in um.

    Returns:
        rows ``PATIENT, FILENAME, IMAGE`` for the slide table.

    Raises:
        ConfigError: as :func:`write_trident`.
    """
    sample, rows = bag.sample, []
    for image, name in _images(bag):
        um_px, _ = _scales(bag, image)
        told = {
            "stamp_version": STAMP_VERSION, "extractor": bag.encoder, "unit": "um",
            "tile_size_um": float(sample.meta.size_um), "tile_size_px": sample.meta.size_px,
            "code_hash": bag.digest[:8], "feat_type": "tile",
        }  # fmt: skip
        _write_h5(
            new / "features" / f"{name}.h5",
            {
                "coords": ((bag.corners(image.cells) * um_px).astype(np.float32), {}),
                "feats": (np.asarray(bag.features[image.cells], np.float16), {}),
            },
            told,
        )
        rows.append([sample.result.patient, f"{name}.h5", image.name])
    return rows


def write_clam(
    new: Path, bag: Embedded, tensor_file: Callable[[Features], bytes]
) -> list[list[str]]:
    """``h5_files`` and ``pt_files``, a file a patient; coordinates are those within its image.

    Args:
        new: where to.
        bag: the patient.
        tensor_file: a tensor (N, D) float32 as the bytes of a ``.pt`` file.

    Returns:
        rows ``case_id, slide_id``; CLAM wants a column ``label`` beside them.
    """
    name = _stem(bag)
    vectors = np.asarray(bag.features, np.float32)
    coords = bag.corners(list(range(len(vectors)))).astype(np.int32)
    images = np.array([cell.source for cell in bag.sample.cells], np.int32)
    _write_h5(
        new / "h5_files" / f"{name}.h5",
        {"features": (vectors, {}), "coords": (coords, {}), "image": (images, {})},
    )
    write_bytes(new / "pt_files" / f"{name}.pt", tensor_file(vectors))
    return [[bag.sample.result.patient, name]]


def write_slides(new: Path, header: list[str], rows: list[list[str]]) -> None:
    """The table that tells which file is whose."""
    write_csv(new / "slides.csv", header, rows)


def _stem(bag: Embedded) -> str:
    """The patient in names of files, without a dot: toolkits take what follows for an ending."""
    return safe_id(bag.sample.result.patient).replace(".", "-")


def _images(bag: Embedded) -> list[tuple[SampleImage, str]]:
    """Each image that has cells, and its name."""
    images = enumerate(bag.sample.images(), start=1)
    return [(image, f"{_stem(bag)}-{number:04d}") for number, image in images if image.cells]


def _scales(bag: Embedded, image: SampleImage) -> tuple[float, float]:
    """um/px of an image at full resolution and of the crops cut from it."""
    crops = bag.sample.meta.um_px
    if image.um_px is None or crops is None:
        raise ConfigError(
            f"{image.name}: its scale is unknown, and this format states one; export clam, "
            "anndata or parquet instead"
        )
    return image.um_px, crops


def _write_h5(
    path: Path,
    datasets: Mapping[str, tuple[NDArray[Any], Mapping[str, Any]]],
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """An HDF5 file, made in memory: on a full disk nothing of it is left."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, (values, own) in datasets.items():
            dataset = file.create_dataset(name, data=values)
            dataset.attrs.update(own)
        file.attrs.update({**(attributes or {}), "written_by": f"millie {__version__}"})
    write_bytes(path, stream.getvalue())
