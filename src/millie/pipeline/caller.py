"""From the bags of a store to calls, with the model made ready while images are still being cut.

Importing torch, verifying the weights and converting the encoder take seconds in which the process
that waits for its workers has nothing else to do. Owns that overlap and the loop over bags; a call
itself is made in ``inference``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millie.bags.store import BagReader
from millie.config import Config, load
from millie.engines.seam import Engine, SerialEngine
from millie.errors import ConfigError, DataError, MissingError
from millie.models.bundle_folder import (
    DEFAULT_MODEL,
    file_record,
    locate,
    read_settings,
    shipped_bundles,
)
from millie.models.manifest import MANIFEST
from millie.pipeline.segment_cohort import Progress
from millie.types import Prediction, Problem

if TYPE_CHECKING:
    from millie.inference.runtime import FeatureRuntime
    from millie.inference.screen import Screen
    from millie.models.bundle import Bundle
    from millie.models.encoder import CellTypes


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """A verified model with what computes its features."""

    bundle: Bundle
    runtimes: Sequence[FeatureRuntime]
    screen: Screen | None = None
    types: CellTypes | None = None

    def card(self, config: Config) -> dict[str, Any]:
        """What reports say of the model, of the limits that hold, and of all that was set."""
        from millie.inference.calls import NO_SIGNAL, must_not_wait, state_of
        from millie.inference.operating import bundle_rule
        from millie.inference.scope import scope
        from millie.models.external import vectors_of

        manifest, stated, types = self.bundle.manifest, config.prediction, self.types
        rule = bundle_rule(self.bundle, stated)
        negative = stated.negative_labels
        return {
            "name": manifest.name,
            "version": manifest.version,
            "requires_millie": manifest.requires_millie,
            "sha256": self.bundle.sha256,
            "labels": list(self.bundle.labels),
            "positive": manifest.positive,
            "urgent": must_not_wait(self.bundle.labels, manifest.positive),
            "scope": scope(self.bundle.labels, negative, vectors_of(config.model.encoder)),
            "diseases": [x for x in self.bundle.labels if state_of(x, negative) != NO_SIGNAL],
            "operating_point": stated.operating_point,
            "threshold": rule.threshold,
            "excluded_below": rule.excluded_below,
            "settings": _without_place(config).differences(self.bundle.config),
            "screen_sha256": self.screen.bundle.sha256 if self.screen else "",
            "fusion": self.bundle.config.model.aggregator,
            "cell_types": list(types.names) if types else [],
            "mature_types": list(types.mature_names) if types else [],
        }

    def predict(
        self, bags: Sequence[Path], config: Config, progress: Progress
    ) -> tuple[list[Prediction], list[Problem]]:
        """One prediction a bag; a patient that fails is named and the others go on.

        A note names each patient whose images the model was trained on.
        """
        from millie.inference.predict import predict_bag
        from millie.inference.trained_on import trained_on

        problems: list[Problem] = []
        predictions: list[Prediction] = []
        for number, path in enumerate(bags):
            progress("predict", number, len(bags))
            patient = path.name
            try:
                with BagReader(path, verify=False) as reader:
                    patient = reader.patient_id
                with BagReader(path) as reader:
                    prediction = predict_bag(
                        self.bundle, reader, self.runtimes, config.prediction,
                        screen=self.screen, types=self.types,
                    )  # fmt: skip
                    seen = trained_on(reader, self.bundle.reference)
                predictions.append(prediction)
                problems += [seen] if seen else []
            except (ConfigError, DataError, MissingError, RuntimeError, MemoryError) as error:
                # The last two are a runtime's: one patient must not cost the others their calls.
                message = str(error)
                problems.append(Problem(patient, "", type(error).__name__, message, fatal=True))
        progress("predict", len(bags), len(bags))
        return predictions, problems


def settings_for(bundle: str | Path, file: Path | None, words: Sequence[str]) -> Config:
    """Settings of a prediction: the bundle fixes crops and model, all else may be set.

    Where a frozen encoder's weights lie may be said; the bundle knows their digest.

    Every file of the bundle is verified here, without loading torch.

    Raises:
        MissingFileError: no such bundle.
        BundleError: a file of it is missing, unknown or altered.
        ConfigError: a setting that the bundle fixes.
    """
    manifest, own = read_settings(locate(bundle))
    settings = load(file, base=own).with_settings(list(words))
    fixed = _without_place(settings)
    for stage in ("crops", "model"):
        if fixed.digest(stage) != own.digest(stage):
            raise ConfigError(
                f"'{stage}' settings are fixed by the model {manifest.name} {manifest.version} and "
                "cannot be changed when predicting; train another model with them"
            )
    if settings.prediction.negative_labels != own.prediction.negative_labels:
        raise ConfigError(
            f"prediction.negative_labels is fixed by the model {manifest.name} {manifest.version} "
            "and cannot be changed when predicting"
        )
    return settings


@dataclass(slots=True, eq=False)
class KeptModel:
    """The model of the last prediction, kept for the next one.

    For a process that calls sample after sample: making a model ready takes longer than calling a
    small sample with it. One thread at a time.
    """

    _key: tuple[str, str] | None = None
    _caller: Caller | None = None

    def caller(self, bundle: str | Path, config: Config) -> Caller:
        """The model, loaded unless it is the very one of the last call; errors as of ``loading``.

        Args:
            bundle: name or folder; :func:`settings_for` has just verified its files, so a manifest
                that has not changed means that nothing has.
            config: of the prediction.
        """
        manifest = file_record((locate(bundle) / MANIFEST).read_bytes())
        key = manifest.sha256, config.digest("model", "prediction")
        if self._caller is None or key != self._key:
            self._caller, self._key = _load(bundle, config), key
        return self._caller


def _without_place(config: Config) -> Config:
    """Settings without where the file of weights lies."""
    return config.model_copy(update={"model": config.model.model_copy(update={"weights": None})})


@contextmanager
def loading(
    bundle: str | Path,
    config: Config,
    engine: Engine | None,
    progress: Progress,
    kept: KeptModel | None = None,
) -> Iterator[tuple[Callable[[], Caller], Progress]]:
    """Load a model: at once where this process does the work, else while it waits for workers.

    Args:
        bundle: name or folder.
        config: ``prediction.runtime``.
        engine: who cuts the images; None: this process.
        progress: to be called during that.
        kept: where the model stays for the next prediction; None: it does not.

    Yields:
        A function that waits for the model, and the progress to report by: it raises what went
        wrong with the model as soon as that is known, not when all images are cut.

    Raises:
        BundleError: the model cannot be used.
        MissingWeightsError: weights of its encoder are not on this machine.
        MissingPackageError: the runtime that was asked for is not installed.
    """
    load_model = kept.caller if kept is not None else _load
    if engine is None or isinstance(engine, SerialEngine):
        caller = load_model(bundle, config)
        yield (lambda: caller), progress
        return
    with ThreadPoolExecutor(1) as pool:
        future: Future[Caller] = pool.submit(load_model, bundle, config)

        def watched(what: str, done: int, total: int) -> None:
            if future.done():
                future.result()
            progress(what, done, total)

        yield future.result, watched


def _load(bundle: str | Path, config: Config) -> Caller:
    from millie.inference.runtime import feature_runtime
    from millie.models.bundle import load_bundle
    from millie.models.external import vectors_of

    model = load_bundle(bundle)
    # A model of vectors has no encoder here: they come with the bag.
    own = not vectors_of(model.config.model.encoder)
    encoders = model.encoders(config.model.weights) if own else []
    runtimes = [feature_runtime(encoder, config.prediction) for encoder in encoders]
    for runtime in runtimes:
        runtime.prepare(model.manifest.size_px)
    import_module("millie.outputs.report")  # and with it the libraries that draw
    types = encoders[0].types if own and not model.manifest.encoder.trained else None
    return Caller(model, runtimes, _screen_of(model, config), types)


def _screen_of(model: Bundle, config: Config) -> Screen | None:
    """The default model, where it can say whether any of this model's diseases is there."""
    from millie.inference.screen import Screen, can_screen
    from millie.models.bundle import load_bundle

    if model.manifest.encoder.trained or DEFAULT_MODEL not in shipped_bundles():
        return None
    other = load_bundle(DEFAULT_MODEL)
    return Screen(other) if can_screen(other, model, config.prediction) else None
