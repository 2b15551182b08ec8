"""Exports that need the model: vectors of the cells of a run, by the encoder that made its calls.

Owns the way from a run to its model and to the vectors; the formats are those of
:mod:`millie.outputs.exports`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from millie.bags.store import BagReader
from millie.errors import ConfigError
from millie.files import write_bytes, write_text
from millie.models.bundle_folder import shipped_bundles
from millie.outputs.exports.cell_table import as_h5ad, as_parquet, cell_table, parquet_packages
from millie.outputs.exports.feature_bags import (
    Embedded,
    Features,
    write_clam,
    write_slides,
    write_stamp,
    write_trident,
)
from millie.outputs.exports.samples import INTENDED_USE, Exported, Sample, failed_of, read_run
from millie.outputs.exports.target import check_new, new_folder, write_new
from millie.pipeline.segment_cohort import Progress, silent

if TYPE_CHECKING:
    from millie.models.bundle import Bundle
    from millie.outputs.patient.records import PredictionRun

_FOLDERS = {
    "trident": ["case_id", "slide_id", "image"],
    "clam": ["case_id", "slide_id"],
    "stamp": ["PATIENT", "FILENAME", "IMAGE"],
}
"""Layouts that are folders, and the columns of their table of slides."""
_TABLES = {"anndata": as_h5ad, "parquet": as_parquet}
LAYOUTS = (*_FOLDERS, *_TABLES)


def export_features(
    layout: str,
    folder: Path,
    out: Path,
    model: Path | None = None,
    progress: Progress = silent,
) -> Exported:
    """Compute the vectors of all cells of a run and write them.

    Args:
        layout: one of :data:`LAYOUTS`.
        folder: of the run.
        out: a new folder, or for ``anndata`` and ``parquet`` a new file.
        model: folder of the run's model; None: a shipped one.
        progress: called after each patient.

    Returns:
        the number of patients, and those without a call.

    Raises:
        ConfigError: ``out`` exists, the model is not the run's, or an image has no scale where the
            layout states one.
        MissingFileError, DataError: as :func:`millie.outputs.exports.samples.read_run`.
        MissingPackageError: Parquet without pyarrow.
    """
    check_new(out)
    if layout == "parquet":
        parquet_packages()  # told now, not after all cells are encoded
    run, samples = read_run(folder)
    bundle = _model_of(run, model)
    total = len(run.patients) - len(failed_of(run))
    bags = _embedded(bundle, samples, total, progress)
    if layout in _TABLES:
        write_new(out, _TABLES[layout](cell_table(run, bags)))
        return Exported(total, failed_of(run))
    with new_folder(out) as new:
        rows = [row for bag in bags for row in _write(layout, new, bag)]
        write_slides(new, _FOLDERS[layout], rows)
    return Exported(total, failed_of(run))


def export_model(model: str | Path, out: Path) -> Path:
    """Write a bundle as ONNX, with what its graphs expect and do not do.

    Args:
        model: folder of a bundle or the name of a shipped one.
        out: a new folder: the graphs, ``model.json`` and ``MODEL_CARD.md``.

    Raises:
        ConfigError: ``out`` exists.
        BundleError: the bundle is damaged, or its graphs differ from it.
        MissingPackageError: the extra ``onnx`` is not installed.
    """
    from millie.inference.onnx_model import FEATURE_TOLERANCE, TOLERANCE, export_onnx
    from millie.models.bundle import load_bundle

    check_new(out)
    bundle = load_bundle(model)
    made = export_onnx(bundle)
    manifest = bundle.manifest
    about = {
        "name": manifest.name,
        "version": manifest.version,
        "bundle_sha256": bundle.sha256,
        "intended_use": INTENDED_USE,
        "labels": list(bundle.labels),
        "positive": manifest.positive,
        "threshold": manifest.threshold,
        "images": {
            "size_px": manifest.size_px,
            "size_um": manifest.size_um,
            "range": "RGB, float32, 0 to 1, (n, 3, size, size)",
            "background": bundle.config.model.background,
        },
        "not_in_the_graphs": [
            "finding the cells, and the background of their crops (millie.bags.loading)",
            "gates on quality and on unlike samples, and the rules that make a call",
            "probabilities alone are no call: the state may be INDETERMINATE at any of them",
        ],
        "parity": {
            "features": made.feature_gap,
            "features_allowed": FEATURE_TOLERANCE,
            "probabilities": made.probability_gap,
            "probabilities_allowed": TOLERANCE,
        },
    }
    with new_folder(out) as new:
        for name, graph in made.graphs.items():
            write_bytes(new / name, graph)
        write_text(new / "MODEL_CARD.md", bundle.card)
        write_text(new / "model.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    return out


def _write(layout: str, new: Path, bag: Embedded) -> list[list[str]]:
    if layout == "clam":
        return write_clam(new, bag, _tensor_file)
    return write_trident(new, bag) if layout == "trident" else write_stamp(new, bag)


def _model_of(run: PredictionRun, model: Path | None) -> Bundle:
    from millie.models.bundle import load_bundle

    if model is None and run.model.name not in shipped_bundles():
        raise ConfigError(
            f"these calls are from the model {run.model.title}, which is not shipped with millie: "
            "name its folder with --model"
        )
    bundle = load_bundle(model or run.model.name)
    if bundle.sha256 != run.model.sha256:
        raise ConfigError(
            f"these calls are from {run.model.title} ({run.model.sha256[:16]}), and "
            f"{model or 'the one shipped now'} is another ({bundle.sha256[:16]}): name the folder "
            "of that model with --model, or predict again"
        )
    return bundle


def _embedded(
    bundle: Bundle, samples: Iterator[Sample], total: int, progress: Progress
) -> Iterator[Embedded]:
    """Vectors of each sample, by the first network's encoder where several were trained."""
    from millie.inference.embed import embed_bag
    from millie.inference.predict import bundle_runtimes

    config = bundle.config
    runtime = bundle_runtimes(bundle, config.prediction)[0]
    for done, sample in enumerate(samples):
        progress("embed", done, total)
        with BagReader(sample.bag) as reader:
            features = embed_bag(
                reader,
                runtime,
                batch_size=config.prediction.batch_size,
                background=config.model.background,
                cache=False,
            )
        yield Embedded(sample, features, config.model.encoder, bundle.sha256)
    progress("embed", total, total)


def _tensor_file(features: Features) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(torch.from_numpy(features), stream)
    return stream.getvalue()
