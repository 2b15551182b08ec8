"""Exports that need the model: vectors of the cells of a run, by the encoder that made its calls.

Owns the way from a run to its model and to the vectors; the formats are those of
:mod:`millie.outputs.exports`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from millie.bags.store import BagReader
from millie.errors import ConfigError
from millie.models.bundle_folder import shipped_bundles
from millie.outputs.exports.cell_table import as_h5ad, as_parquet, cell_table
from millie.outputs.exports.feature_bags import (
    Embedded,
    Features,
    write_clam,
    write_slides,
    write_stamp,
    write_trident,
)
from millie.outputs.exports.samples import Exported, Sample, failed_of, read_run
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
