"""QuPath: one GeoJSON file an image, with every cell's outline, class, colour and measurements.

Owns the layout that QuPath 0.4 and later reads: ids are UUIDs, ``objectType`` stands in
``properties``, a class always has a colour, measurements are numbers and texts are metadata.
Coordinates are pixels of the full-resolution image. The sample's call is one locked annotation
around the image.

Source: QuPath's ``GeoJSON`` and ``QuPathTypeAdapters`` (qupath.lib.io), version 0.5.
"""

from __future__ import annotations

import json
import uuid
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from millie.errors import ConfigError
from millie.files import safe_id, write_bytes
from millie.outputs.exports.outlines import Outline, Ring, cell_outlines, rectangle
from millie.outputs.exports.samples import (
    INTENDED_USE,
    STATUS,
    Exported,
    failed_of,
    read_run,
    reasons,
)
from millie.outputs.exports.target import check_new, new_folder, write_new
from millie.outputs.overlays import safe_names
from millie.outputs.patient.evidence import weigh
from millie.statistics.metrics import likeliest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from millie.outputs.exports.samples import Sample, SampleImage
    from millie.outputs.patient.records import PredictionRun

SUFFIX = ".geojson"
_COLOURS = (  # Okabe and Ito's, told apart by the colour-blind too
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (204, 121, 167),
)  # fmt: skip
_POSITIVE_RGB = (213, 94, 0)
_OTHER_RGB = (128, 128, 128)
_CALL_RGB = (0, 0, 0)
FLAGS = ("smudge", "at_border", "in_clump")

Feature = dict[str, Any]


def export_qupath(folder: Path, out: Path) -> Exported:
    """Write the cells of every image of a run.

    Args:
        folder: of the run.
        out: a new folder, with a folder a patient and a file an image in it; or a new file, whose
            name ends in ``.geojson``, where the run has one image.

    Returns:
        the number of images, and patients without a call.

    Raises:
        ConfigError: ``out`` exists, or is a file and the run has several images.
        MissingFileError, DataError: as :func:`millie.outputs.exports.samples.read_run`.
    """
    check_new(out)
    run, samples = read_run(folder)
    if out.suffix == SUFFIX:
        files = [data for sample in samples for _, data in _files(run, sample)]
        if len(files) != 1:
            raise ConfigError(
                f"{folder} has {len(files)} images, and QuPath reads a file an image: name a "
                "folder, not a file"
            )
        write_new(out, files[0])
        return Exported(1, failed_of(run))
    count = 0
    with new_folder(out) as new:
        for sample in samples:
            for name, data in _files(run, sample):
                write_bytes(new / safe_id(sample.result.patient) / name, data)
                count += 1
    return Exported(count, failed_of(run))


def _files(run: PredictionRun, sample: Sample) -> Iterator[tuple[str, bytes]]:
    """File name and content for each image of a sample."""
    outlines = list(cell_outlines(sample))
    marks = weigh(sample.result, run.model).marks
    images = sample.images()
    names = file_names([image.name for image in images])
    for image, name in zip(images, names, strict=True):
        features = [_call(run, sample, image)]
        for i in image.cells:
            mark = marks[i].text if i in marks else ""
            features.append(_cell(run, sample, i, outlines[i], mark))
        yield name, _collection(image, features)


def file_names(images: list[str]) -> list[str]:
    """``<image file>.geojson``, distinct within a patient; by these names they are read again."""
    plain = [PurePosixPath(name).name for name in images]
    lowered = [name.lower() for name in plain]
    distinct = safe_names(images, SUFFIX)
    return [
        name + SUFFIX if lowered.count(name.lower()) == 1 else safe
        for name, safe in zip(plain, distinct, strict=True)
    ]


def _collection(image: SampleImage, features: list[Feature]) -> bytes:
    """A feature a line, so that two versions of a file can be compared."""
    head = {"type": "FeatureCollection", "image": image.name, "image_sha256": image.sha256}
    lines = ",\n".join(
        json.dumps(feature, allow_nan=False, separators=(",", ":")) for feature in features
    )
    return f'{json.dumps(head)[:-1]}, "features": [\n{lines}\n]}}\n'.encode()


def _feature(key: str, ring: Ring, properties: dict[str, Any]) -> Feature:
    """A feature whose id is the same whenever the same run is exported."""
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, key)),
        "geometry": {"type": "Polygon", "coordinates": [ring.tolist()]},
        "properties": properties,
    }


def _cell(run: PredictionRun, sample: Sample, i: int, outline: Outline, mark: str) -> Feature:
    cell, scores = sample.cells[i], sample.probabilities[i]
    metadata = {"cell": str(i), **{flag: "yes" for flag in FLAGS if getattr(cell, flag)}}
    if not cell.area_px:
        metadata["outline"] = "none found: the box is shown"
    properties: dict[str, Any] = {
        "objectType": "cell",
        "classification": _like(run, likeliest(scores.tolist(), run.model.labels)),
        "measurements": _measurements(run, sample, i),
        "metadata": metadata,
    }
    if mark:
        properties["name"] = mark
    ring, nucleus = outline
    record = sample.sources[cell.source]
    feature = _feature(_key(sample, record.name, record.sha256, i), ring, properties)
    if nucleus:
        feature["nucleusGeometry"] = {
            "type": "MultiPolygon",
            "coordinates": [[part.tolist()] for part in nucleus],
        }
    return feature


def _measurements(run: PredictionRun, sample: Sample, i: int) -> dict[str, float]:
    cell, scores = sample.cells[i], sample.probabilities[i].tolist()
    measured = {
        f"probability {label}, cell alone": p
        for label, p in zip(run.model.labels, scores, strict=True)
    }
    for label, winners in sample.result.winners.items():
        shares = [winner.contribution for winner in winners if winner.cell == i]
        measured |= {f"share of the evidence for {label}": share for share in shares}
    measured["area px^2"] = cell.area_px
    if cell.area_um2 is not None:
        measured["area um^2"] = cell.area_um2
    return {name: round(float(value), 4) for name, value in measured.items()}


def _key(sample: Sample, image: str, sha256: str, number: int | str) -> str:
    return f"{sample.result.patient}\n{image}\n{sha256}\n{number}"


def _call(run: PredictionRun, sample: Sample, image: SampleImage) -> Feature:
    result = sample.result
    metadata = {
        "patient": result.patient, "state": result.state, "reasons": reasons(result),
        "codes": " ".join(reason.code for reason in result.reasons),
        "what the model can tell": run.model.scope, "status": STATUS,
        "intended use": INTENDED_USE, "image": image.name,
        "model": run.model.title, "model sha256": run.model.sha256, "called": run.created,
    }  # fmt: skip
    properties = {
        "objectType": "annotation",
        "isLocked": True,
        "name": f"{result.patient}: {result.state} (preliminary, for research use only)",
        "classification": {"name": f"call: {result.state}", "color": list(_CALL_RGB)},
        "measurements": {
            **{f"probability {k}": round(p, 4) for k, p in result.probabilities.items()},
            "cells of the patient": result.n_cells,
        },
        "metadata": metadata,
    }
    key = _key(sample, image.name, image.sha256, "call")
    return _feature(key, rectangle(*image.frame), properties)


def _like(run: PredictionRun, label: str) -> dict[str, Any]:
    """QuPath's class of a cell; ``Other`` is its own name for what has none."""
    if not label:
        return {"name": "Other", "color": list(_OTHER_RGB)}
    return {"name": f"{label}-like", "color": list(_colour(run, label))}


def _colour(run: PredictionRun, label: str) -> tuple[int, int, int]:
    if label == run.model.positive:
        return _POSITIVE_RGB
    return _COLOURS[run.model.labels.index(label) % len(_COLOURS)]
