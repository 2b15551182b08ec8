"""Train a model on a store, and try its recipe on that store by cross-validation.

Owns what is checked before hours of work, and the order in which numbers, model card and report
are written. How a network is trained and how it is measured is not known here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from millie.bags.store import Store
from millie.errors import ConfigError, MissingFileError
from millie.outputs.result_folder import check_kind, one_at_a_time, record_files
from millie.pipeline.inputs import PathLike, settings_of
from millie.pipeline.results import CrossvalResult, TrainResult
from millie.pipeline.segment_cohort import Progress, silent
from millie.pipeline.vectors import check_named, settings_of_vectors

if TYPE_CHECKING:
    from millie.config import Config
    from millie.learning.fit import Fitted


def train(
    store: PathLike,
    out: PathLike,
    config: Config | None = None,
    name: str = "",
    study: PathLike | None = None,
    progress: Progress = silent,
    notes: PathLike | None = None,
    version: str = "1.0.0",
) -> TrainResult:
    """Train on every labelled patient of a store and write a bundle.

    Args:
        store: bags with labels.
        out: folder of the bundle; must not exist, unless it holds the very model.
        config: all settings; None: the default.
        name: of the model; empty: the folder's.
        study: folder of a cross-validation of the same settings, for the model card's figures.
        progress: called often.
        notes: Markdown file for the model card: who the patients are, limits of the model.
        version: of the model, MAJOR.MINOR.PATCH.

    Raises:
        ConfigError: ``out`` exists, the name or version is none that a model may have, or the store
            was cut with other settings of its crops.
        TrainingError: too few patients of a class, or the loss diverged.
        MissingFileError: there is no store, or no such file of notes.
        StoreError: a bag is damaged or unfinished.

    Example:
        >>> model = millie.train("store", "my-model")
        >>> model.positive, dict(model.patients)
        ('APL', {'APL': 6, 'normal': 6})
        >>> 0 < model.threshold < 1
        True
    """
    from millie.learning.fit import card_facts, fit_bundle
    from millie.outputs.model_card import model_card

    bags, folder = Store(Path(store)), Path(out)
    config = settings_of_vectors(bags, settings_of(config))
    folder = folder if folder.name else folder.resolve()
    name = name or folder.name
    _check_name(name, version)
    if bags.encoder:
        check_named(bags)
    else:
        _check_own_crops(bags, config)
    text = _notes(Path(notes)) if notes else ""

    def card(title: str, fitted: Fitted) -> str:
        facts = card_facts(title, fitted, config)
        return model_card(facts, bags.root, Path(study) if study else None, text)

    fitted = fit_bundle(
        bags, config, folder, name=name, progress=progress, version=version, card=card
    )
    return TrainResult(
        folder, name, fitted.provenance["n_by_class"], fitted.positive, fitted.threshold,
        fitted.temperature, fitted.problems,
    )  # fmt: skip


def crossval(
    store: PathLike,
    out: PathLike,
    config: Config | None = None,
    *,
    controls: bool = False,
    progress: Progress = silent,
) -> CrossvalResult:
    """Cross-validate on a store; write numbers, figures and the study report.

    Args:
        store: bags with labels.
        out: folder for all files: new, empty, or that of an earlier run; finished folds found there
            are kept.
        config: stages model, augment, training, evaluation and prediction are used; None: the
            default.
        controls: also measure what background, bag size, size of the red cells, image files and
            shuffled labels reach, what sources do, and what mature and leukaemic cells tell alone.
        progress: called often.

    Raises:
        ConfigError: the store was cut with other settings of its crops, or ``out`` holds something
            else.
        BusyError: another run is writing to ``out``.
        TrainingError: too few patients of a class, or the loss diverged.
        MissingFileError: there is no store.
        StoreError: a bag is damaged or unfinished.

    Example:
        >>> study = millie.crossval("store", "study")
        >>> study.lines[0]
        '12 patients (6 APL, 6 normal), 3 folds, repeats: 1; APL against the rest'
        >>> auc = study.figures["auc"]
        >>> auc.low <= auc.value <= auc.high
        True
    """
    from millie.evaluation import controls as measured
    from millie.evaluation.crossval import FILES
    from millie.evaluation.crossval import crossval as run
    from millie.outputs.report import write_report

    bags, folder = Store(Path(store)), Path(out)
    config = settings_of_vectors(bags, settings_of(config))
    if not bags.encoder:
        _check_own_crops(bags, config)
    check_kind(folder, "study")
    with one_at_a_time(folder):
        result = run(bags, config, folder, progress)
        record_files(folder, "study", FILES)
        found = []
        if controls:
            found = measured.run_controls(bags, config, folder, progress, main=result)
            record_files(folder, "study", measured.FILES)
        lines = (*result.lines(), *(control.line() for control in found))
        report = write_report(folder, bags.root)
    return CrossvalResult(folder, report, lines, result.figures(), tuple(found), result.problems)


def _notes(path: Path) -> str:
    """Read before hours of training what the card would miss after them."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MissingFileError(f"notes {path} cannot be read as UTF-8 text ({error})") from error


def _check_name(name: str, version: str) -> None:
    """Refuse before hours of training what the bundle would refuse after them."""
    from millie.models.manifest import NAME_PATTERN
    from millie.models.versions import PATTERN

    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(
            f"model name '{name}': expected up to 64 letters (A to Z), digits, '.', '_' or '-', "
            "the first a letter or digit; give one with --name"
        )
    if not re.fullmatch(PATTERN, version):
        raise ConfigError(
            f"model version '{version}': expected MAJOR.MINOR.PATCH, for example 1.2.0; give one "
            "with --model-version"
        )


def _check_own_crops(store: Store, config: Config) -> None:
    """Refuse settings under which a bundle would cut other crops than it was trained on."""
    got, wanted = store.description.config.crops.model_dump(), config.crops.model_dump()
    if other := {name: got[name] for name in got if got[name] != wanted[name]}:
        told = ", ".join(f"crops.{name}={str(value).lower()}" for name, value in other.items())
        raise ConfigError(
            f"{store.root} was cut with {told}, and these settings expect other crops: give the "
            "same --config, --profile and --set as to `millie segment`, or cut it again"
        )
