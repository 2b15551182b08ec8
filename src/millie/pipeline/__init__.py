"""The method in order: images -> cells -> bags -> model -> calls -> report.

Each function is one command. This is the only module that knows the order of the stages; each
stage knows only its own work. Nothing here prints: long work reports through a progress callback.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from millie.bags.store import BagReader, Store
from millie.config import Config
from millie.engines.seam import Engine
from millie.errors import (
    ConfigError,
    DataError,
    ImageError,
    MissingError,
    MissingFileError,
)
from millie.pipeline.segment_cohort import Progress, RunSummary, fill_store, silent
from millie.readers.cohort import read_folders, read_manifest, write_manifest
from millie.readers.datasets import prepare as read_dataset
from millie.readers.images import find_images, read_image
from millie.readers.table import SPREADSHEETS
from millie.segmentation import detect as find_cells
from millie.types import Cell, Cohort, ImageSource, Prediction, Problem, SourceRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from millie.learning.fit import Fitted
    from millie.types import Field, PixelSize

__all__ = [
    "CrossvalSummary", "PredictSummary", "Progress", "RunSummary", "crossval", "detect", "predict",
    "prepare", "read_cohort", "segment", "silent", "train",
]  # fmt: skip

_RESULTS = ("report.html", "predictions.json", "predictions.csv", "cells.csv")
_PICTURES = ("patients/*.html", "overlays/*/*.jpg")

_TABLES = frozenset({".csv", ".tsv", ".txt"}) | SPREADSHEETS
"""Endings by which an input is taken for a manifest; what can be read of it, the reader says."""


def prepare(dataset: str, root: Path, out: Path) -> Cohort:
    """Read a published data set's own layout and write it as a manifest.

    Raises:
        ConfigError: no such data set.
        ManifestError: the folder is not that data set; the message shows the expected tree.
    """
    cohort = read_dataset(dataset, root)
    write_manifest(cohort, out)
    return cohort


segment = fill_store
"""Cut every patient's cells into the bag store; finished patients are skipped."""


def train(
    store: Path,
    out: Path,
    config: Config,
    name: str = "",
    study: Path | None = None,
    progress: Progress = silent,
) -> Path:
    """Train on every labelled patient of a store and write a bundle.

    Args:
        store: bags with labels.
        out: folder of the bundle; must not exist.
        config: all settings.
        name: of the model; empty: the folder's.
        study: folder of a cross-validation of the same settings, for the model card's figures.
        progress: called often.

    Returns:
        the bundle's folder.

    Raises:
        ConfigError: ``out`` exists, the name is none that a model may have, or the store was cut
            with other settings of its crops.
        TrainingError: too few patients of a class, or the loss diverged.
        StoreError: a bag is damaged or unfinished.
    """
    from millie.learning.fit import fit_bundle
    from millie.models.encoders import ENCODERS
    from millie.outputs.model_card import CardFacts, model_card

    out = out if out.name else out.resolve()
    name = name or out.name
    _check_name(name)
    _check_own_crops(Store(store), config)

    def card(title: str, fitted: Fitted) -> str:
        facts = CardFacts(
            title, fitted.classes, fitted.positive, fitted.threshold, fitted.temperature,
            len(fitted.networks), config.model.encoder, config.model.aggregator, fitted.provenance,
            ENCODERS[config.model.encoder].licence,
        )  # fmt: skip
        return model_card(facts, store, study)

    return fit_bundle(Store(store), config, out, name=name, progress=progress, card=card)


def _check_name(name: str) -> None:
    """Refuse before hours of training what the bundle would refuse after them."""
    from millie.models.manifest import NAME_PATTERN

    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(
            f"model name '{name}': expected up to 64 letters (A to Z), digits, '.', '_' or '-', "
            "the first a letter or digit; give one with --name"
        )


def _check_own_crops(store: Store, config: Config) -> None:
    """Refuse settings that would make a bundle cut other crops than it was trained on."""
    got, wanted = store.description.config.crops.model_dump(), config.crops.model_dump()
    if other := {name: got[name] for name in got if got[name] != wanted[name]}:
        told = ", ".join(f"crops.{name}={str(value).lower()}" for name, value in other.items())
        raise ConfigError(
            f"{store.root} was cut with {told}, and the model would expect other crops: train with "
            "the --config, --profile and --set that `millie segment` was given"
        )


@dataclass(frozen=True, slots=True)
class CrossvalSummary:
    """How a cross-validation ended.

    Attributes:
        lines: the main figures in words.
        report: path of ``report.html``.
        problems: patients that could not take part.
    """

    lines: tuple[str, ...]
    report: Path
    problems: tuple[Problem, ...]


def crossval(
    store: Path,
    out: Path,
    config: Config,
    *,
    controls: bool = False,
    progress: Progress = silent,
) -> CrossvalSummary:
    """Cross-validate on a store; write numbers, figures and the study report.

    Args:
        store: bags with labels.
        out: folder for all files; finished folds found there are kept.
        config: stages model, augment, training, evaluation and prediction are used.
        controls: also measure what background, bag size, image files and shuffled labels reach,
            and what sources do.
        progress: called often.

    Raises:
        TrainingError: too few patients of a class, or the loss diverged.
        StoreError: a bag is damaged or unfinished.
    """
    from millie.evaluation.controls import run_controls
    from millie.evaluation.crossval import crossval as run
    from millie.outputs.report import write_report

    bags = Store(store)
    result = run(bags, config, out, progress)
    lines = result.lines()
    if controls:
        found = run_controls(bags, config, out, progress, main=result)
        lines += [control.line() for control in found]
    return CrossvalSummary(tuple(lines), write_report(out, store), result.problems)


@dataclass(frozen=True, slots=True)
class PredictSummary:
    """What ``predict`` wrote, and for whom it could not."""

    out: Path
    report: Path
    predictions: tuple[Prediction, ...]
    problems: tuple[Problem, ...]

    @property
    def failures(self) -> tuple[Problem, ...]:
        """Problems that are more than notes."""
        return tuple(p for p in self.problems if not p.note)


def predict(
    bundle: str,
    inputs: Sequence[Path],
    out: Path,
    file: Path | None = None,
    words: Sequence[str] = (),
    engine: Engine | None = None,
    progress: Progress = silent,
) -> PredictSummary:
    """Call every patient found in the inputs and show the cells behind each call.

    Args:
        bundle: folder of a bundle or the name of a shipped one.
        inputs: patient folders, images, one manifest, or one bag store.
        out: folder for tables, pictures and the report.
        file: TOML with settings over the bundle's own.
        words: ``stage.field=value`` over both.
        engine: serial when None.
        progress: called after each patient of each step.

    Raises:
        BundleError: the bundle is damaged or unknown.
        NoCellsError: not one patient gave a cell.
        ConfigError: a store whose crops are not the bundle's or that holds cells which the bundle
            leaves out, or a setting that would change what the model was trained on (crops, model).
    """
    from millie.outputs.report import write_prediction_run
    from millie.pipeline.caller import loading, settings_for

    settings = settings_for(bundle, file, words)
    _forget_calls(out)
    with loading(bundle, settings, engine, progress) as (caller, watched):
        if _is_store(inputs):
            store = inputs[0]
            bags, problems = _bags_of_store(Store(store), settings)
        else:
            store = out / "store"
            cohort = read_cohort(inputs)
            summary = segment(cohort, store, settings, engine, progress=watched, whole=False)
            bags = [Store(store).path_of(patient) for patient in sorted(summary.patients)]
            problems = list(summary.problems)
        model = caller()
    predictions, failed = model.predict(bags, settings, progress)
    problems += failed
    report = write_prediction_run(
        out,
        model.card,
        predictions,
        Store(store),
        problems,
        read_field=lambda record: _read_again(record, settings),
        progress=progress,
    )
    return PredictSummary(out, report, tuple(predictions), tuple(problems))


def _forget_calls(out: Path) -> None:
    """Remove an earlier run's calls, so that they never pass for those of this one."""
    for path in [out / name for name in _RESULTS] + [p for x in _PICTURES for p in out.glob(x)]:
        path.unlink(missing_ok=True)


def _read_again(record: SourceRecord, config: Config) -> Field:
    return read_image(ImageSource(Path(record.path), record.name), config.reading)


def _is_store(inputs: Sequence[Path]) -> bool:
    return len(inputs) == 1 and (inputs[0] / "store.json").is_file()


def _bags_of_store(store: Store, config: Config) -> tuple[list[Path], list[Problem]]:
    """Every bag of a store, and what could not be used when it was cut."""
    _check_crops(store, config)
    found, unreadable = store.scan()
    problems = [*store.description.problems, *unreadable]
    for bag in found:
        with BagReader(bag.path, verify=False) as reader:
            problems += reader.meta.problems
    return [bag.path for bag in found], problems


def _check_crops(store: Store, config: Config) -> None:
    got, wanted = store.description.config.crops, config.crops
    if (got.size_px, got.size_um) != (wanted.size_px, wanted.size_um):
        raise ConfigError(
            f"{store.root} holds crops of {got.size_px} px over {got.size_um} um, the model "
            f"expects {wanted.size_px} px over {wanted.size_um} um; predict from the images"
        )
    kept = [n for n in ("keep_smudge", "keep_unoutlined") if getattr(got, n) > getattr(wanted, n)]
    if kept:
        raise ConfigError(
            f"{store.root} holds cells that the model was trained without "
            f"({', '.join(f'crops.{n}=true' for n in kept)}); predict from the images"
        )


def read_cohort(inputs: Sequence[Path]) -> Cohort:
    """Patients from one manifest, or from folders and images.

    Raises:
        MissingFileError: an input does not exist.
        ManifestError: the manifest breaks its rules, or nothing usable is there.
        ConfigError: a manifest beside other inputs.
    """
    missing = [p for p in inputs if not p.exists()]
    if missing:
        raise MissingFileError(f"{missing[0]} does not exist; give folders, images or a manifest")
    manifests = [p for p in inputs if p.is_file() and p.suffix.lower() in _TABLES]
    if manifests and len(inputs) > 1:
        raise ConfigError(
            f"{manifests[0]} is a manifest: give it alone, it names its images itself"
        )
    if manifests:
        return read_manifest(manifests[0])
    # As in a manifest's cohort: workers on other machines start in other folders.
    return read_folders([path.absolute() for path in inputs])


def detect(
    images: Sequence[Path],
    out: Path,
    config: Config,
    overlay: Path | None = None,
    progress: Progress = silent,
) -> RunSummary:
    """Find leukocytes in image files and write one row a cell.

    Args:
        images: files and folders of files, as the user named them; the table repeats these names.
        out: CSV ``source,x_px,y_px,left_px,top_px,width_px,height_px,area_px`` in pixels of the
            full-resolution file, rows in the order of the files and of the boxes' tops.
        config: stages reading and segmentation are used.
        overlay: folder for pictures with the outlines drawn; None: none.
        progress: called after each image.

    Raises:
        ImageError: not one of the files is a usable image.
    """
    from millie.outputs.detections import write_detection_overlay, write_detections

    images = list(_files(images, overlay))
    if not images:
        raise ImageError(
            "no image (JPEG, PNG, TIFF, BMP) in what was named; name images or folders"
        )
    rows: list[tuple[str, Cell]] = []
    problems: list[Problem] = []
    alone = len({path.name for path in images}) == len(images)
    waiting: deque[Field] = deque()
    done = 0
    progress("detect", 0, len(images))
    for found in find_cells(_decoded(images, config, waiting, problems), config.segmentation):
        one = waiting.popleft()
        path = one.source.path
        if refused := found.diagnostics.get("refused"):
            problems.append(Problem("", str(path), "Refused", f"no cells looked for: {refused}"))
        rows += [(str(path), region.cell) for region in found.regions]
        if overlay:
            um_px = found.pixel_size.um_px if found.pixel_size else None
            name = path.name if alone else str(path)
            write_detection_overlay(overlay, name, one.image, found.regions, um_px)
        done += 1
        progress("detect", done, len(images))
    if not done:
        raise ImageError(f"no usable image: {problems[0].message}")
    write_detections(out, rows)
    return RunSummary(out, done=done, n_cells=len(rows), problems=tuple(problems))


def _files(images: Sequence[Path], overlay: Path | None) -> Iterator[Path]:
    """The named files, and those in named folders but for pictures drawn by an earlier run."""
    for path in images:
        if path.is_dir():
            yield from (p for p in find_images(path) if not overlay or overlay not in p.parents)
        else:
            yield path


def _decoded(
    images: Sequence[Path], config: Config, waiting: deque[Field], problems: list[Problem]
) -> Iterator[tuple[NDArray[np.uint8], PixelSize | None]]:
    """Pixels and scale of each usable image, in order; the field itself goes to ``waiting``."""
    for path in images:
        try:
            one = read_image(ImageSource(path, str(path)), config.reading)
        except (DataError, MissingError) as error:
            problems.append(Problem("", str(path), type(error).__name__, str(error), fatal=True))
            continue
        waiting.append(one)
        yield one.image, one.pixel_size
