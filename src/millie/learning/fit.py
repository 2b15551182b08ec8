"""The final model: trained on every labelled patient, calibrated out of fold, bundled.

How well it works on new patients is measured by :mod:`millie.evaluation.crossval` with the same
procedure inside each fold; nothing here is a figure of merit. Owns what goes into a bundle.
"""

from __future__ import annotations

import platform
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from millie import __version__
from millie.bags.store import BagReader
from millie.errors import ConfigError
from millie.files import held
from millie.inference.calls import must_not_wait
from millie.inference.gates import quality_limits, reference_features
from millie.inference.immature import immature_cells, immature_limit
from millie.inference.magnification import UM_PX, bag_um_px
from millie.inference.operating import call_rule, promise
from millie.inference.quality import measure_bag
from millie.inference.trained_on import IMAGES, image_codes
from millie.learning.ensemble import Cast, Ensemble, Material, fit_ensemble
from millie.learning.material import open_material, participants
from millie.learning.parallel import joined
from millie.learning.sampling import whole_bag
from millie.learning.train import Progress, embedded_chunks, silent, threads_for
from millie.models.bundle import BundleDescription, held_out_of, load_bundle, save_bundle
from millie.models.bundle_folder import check_target
from millie.models.encoders import licence_of
from millie.models.external import vectors_of
from millie.models.manifest import MANIFEST
from millie.models.versions import FIRST
from millie.outputs.model_card import CardFacts, model_card
from millie.statistics.calibration import apply_temperature
from millie.statistics.metrics import choose_positive, roc_auc
from millie.types import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from millie.bags.store import Store
    from millie.config import Config, PredictionConfig
    from millie.models.network import MilNetwork
    from millie.types import Problem


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """All that a bundle needs.

    Attributes:
        networks: the ensemble, in evaluation mode.
        classes: in the order of the logits.
        positive: the class of the threshold.
        threshold: calibrated probability from which it is called.
        temperature: of the calibration.
        encoder_sha256: digest of the encoder's weights before training.
        reference: what a bundle keeps of the training patients, see
            :class:`~millie.models.bundle.Bundle`.
        limits: of the gates, from the qualities of the training patients.
        provenance: how it was trained, JSON values.
        problems: patients that could not take part.
    """

    networks: list[MilNetwork]
    classes: tuple[str, ...]
    positive: str
    threshold: float
    temperature: float
    encoder_sha256: str
    reference: dict[str, Tensor]
    limits: dict[str, float]
    provenance: dict[str, Any]
    problems: tuple[Problem, ...]

    def promise(self, config: PredictionConfig) -> str:
        """What the limits of the operating point assure, in words."""
        held = held_out_of(self.reference, len(self.classes))
        rule = call_rule(self.positive, self.threshold, self.classes, held, config, {})
        return promise(rule, self.classes, held, config)


def fit(
    store: Store,
    config: Config,
    progress: Progress = silent,
    *,
    folder: Path | None = None,
    material: tuple[Material, str] | None = None,
) -> Fitted:
    """Train on all labelled patients of a store.

    Args:
        store: bags with labels.
        config: ``model``, ``training``, ``augment``, ``evaluation.positive``.
        progress: called after each epoch and patient.
        folder: for logs and checkpoints: run again with it, a killed training goes on; None:
            neither is written.
        material: cells and encoder digest to use instead of those that the configuration names.

    Raises:
        ConfigError: ``training.colour_transfer``, which a bundle cannot carry.
        TrainingError: too few patients of a class, or the loss is not finite.
        StoreError: a bag is damaged.
    """
    if config.training.colour_transfer:
        raise ConfigError(
            "training.colour_transfer=true: a model cannot know the colours of sources it has not "
            "seen; train with --set training.colour_transfer=false"
        )
    who = participants(store)
    positive = choose_positive(who.classes, list(who.labels.values()), config.evaluation.positive)
    patients = tuple(sorted(who.labels))
    cells, encoder_sha256 = material or open_material(store, patients, config, progress)
    cast = Cast(who.classes, positive, who.labels, patients, config.training.seed)
    with threads_for(cells.source):
        ensemble = fit_ensemble(cells, cast, config, progress=progress, folder=folder)
    return Fitted(
        ensemble.networks,
        who.classes,
        positive,
        ensemble.threshold,
        ensemble.temperature,
        encoder_sha256,
        _reference(ensemble, cells, cast, config)
        | training_scales(store, patients)
        | training_images(store, patients),
        _limits(store, patients, progress) | _immature_limit(ensemble, cells, cast, config),
        _provenance(ensemble, cells, cast, config, store),
        who.problems,
    )


def fit_bundle(
    store: Store,
    config: Config,
    out: Path,
    name: str,
    progress: Progress = silent,
    *,
    version: str = FIRST,
    material: tuple[Material, str] | None = None,
    card: Callable[[str, Fitted], str] | None = None,
) -> Fitted:
    """Train on all labelled patients and write a bundle.

    Logs and checkpoints lie beside the bundle in ``<out>.training/`` (checkpoints until the bundle
    is there), so that a killed run goes on when it is started again.

    Args:
        store: bags with labels.
        config: all settings.
        out: folder of the bundle; must not exist, unless it holds what would be made.
        name: of the model.
        progress: called after each epoch and patient.
        version: of the model.
        material: as in :func:`fit`.
        card: writes the model card; None: from the training alone.

    Returns:
        What was trained; of several processes one alone writes it.

    Raises:
        ConfigError: ``out`` exists and is not the very bundle that would be made.
        TrainingError: too few patients of a class, or the loss is not finite.
        StoreError: a bag is damaged.
        BusyError: another training is writing this bundle.
    """
    write_card = card or (lambda title, fitted: model_card(card_facts(title, fitted, config)))
    if (done := _made_before(out, store, config, name, version, material, write_card)) is not None:
        _tidy(out)
        return done
    check_target(out, replace=False)
    with joined() as processes:
        fitted = fit(store, config, progress, folder=_work(out), material=material)
        processes.wait()
    if not processes.leads:
        return fitted
    description = BundleDescription(
        name=name,
        version=version,
        labels=fitted.classes,
        positive=fitted.positive,
        threshold=fitted.threshold,
        temperature=fitted.temperature,
        provenance=fitted.provenance,
        qc=fitted.limits,
        card=write_card(name, fitted),
    )
    with held(_work(out) / "bundle.lock", out):
        _remove_leftovers(out)
        save_bundle(
            out, fitted.networks, config, description, fitted.encoder_sha256,
            reference=fitted.reference,
        )  # fmt: skip
    _tidy(out)
    return fitted


def _work(out: Path) -> Path:
    return out.with_name(f"{out.name}.training")


def _tidy(out: Path) -> None:
    """Checkpoints are of no use once the bundle is there."""
    for checkpoint in _work(out).glob("*.checkpoint.safetensors"):
        checkpoint.unlink(missing_ok=True)


def _remove_leftovers(out: Path) -> None:
    """Remove what a killed process had written of this bundle; call it with the lock held."""
    of_ours = re.compile(re.escape(f".{out.name}.") + "[a-z0-9_]{8}")  # as tempfile names them
    for hidden in out.parent.glob(".*"):
        if of_ours.fullmatch(hidden.name) and {path.name for path in hidden.iterdir()} <= {"new"}:
            shutil.rmtree(hidden)


def _made_before(
    out: Path,
    store: Store,
    config: Config,
    name: str,
    version: str,
    material: tuple[Material, str] | None,
    card: Callable[[str, Fitted], str],
) -> Fitted | None:
    """What a finished bundle holds, if the same patients, cells and settings make no other."""
    if not (out / MANIFEST).is_file():
        return None
    bundle = load_bundle(out)
    stated, who = bundle.manifest.provenance, participants(store)
    if stated.get("config_sha256") != config.digest() or bundle.name != f"{name} {version}":
        return None
    cells, _ = material or open_material(store, tuple(sorted(who.labels)), config, silent)
    same = {
        "cells_sha256": cells.source.digest(tuple(sorted(who.labels))),
        "n_by_class": dict(sorted(Counter(who.labels.values()).items())),
        "millie": __version__,
        "torch": str(torch.__version__),
    }
    if {key: stated.get(key) for key in same} != same:
        return None
    manifest = bundle.manifest
    found = Fitted(
        bundle.networks, bundle.labels, manifest.positive, manifest.threshold, manifest.temperature,
        manifest.encoder.weights_sha256, bundle.reference, dict(manifest.qc), dict(stated),
        who.problems,
    )  # fmt: skip
    return found if card(name, found) == bundle.card else None


def _limits(store: Store, patients: Sequence[str], progress: Progress) -> dict[str, float]:
    """From which measured qualities on a sample is unlike the training ones."""
    samples = []
    for number, patient in enumerate(patients, start=1):
        with BagReader(store.path_of(patient)) as reader:
            samples.append(measure_bag(reader))
        progress("quality", number, len(patients))
    return quality_limits(samples)


@torch.no_grad()
def _immature_limit(
    ensemble: Ensemble, material: Material, cast: Cast, config: Config
) -> dict[str, float]:
    """Below which share of immature cells nothing is urgent; none where cells do not tell."""
    network, batch = ensemble.networks[0], config.prediction.batch_size
    urgent = must_not_wait(cast.classes, cast.positive)
    shares = []
    for patient in (p for p in cast.patients if cast.labels[p] == urgent):
        bag = whole_bag(material.source, patient)
        chunks = embedded_chunks(network, material.source, bag, batch)
        found = [immature_cells(network, config.model.encoder, cells) for cells in chunks]
        known = [cells for cells in found if cells is not None]
        shares += [float(torch.cat(known).mean())] if known else []
    return immature_limit(shares, config.prediction.target_sensitivity)


def training_scales(store: Store, patients: Sequence[str]) -> dict[str, Tensor]:
    """um/px of each training patient's images, sorted: they name nobody; none if unknown."""
    found = []
    for patient in patients:
        with BagReader(store.path_of(patient), verify=False) as reader:
            found.append(bag_um_px(reader))
    known = torch.tensor(sorted(s for s in found if np.isfinite(s)), dtype=torch.float32)
    return {UM_PX: known} if len(known) else {}


def training_images(store: Store, patients: Sequence[str]) -> dict[str, Tensor]:
    """Codes of the image files that these patients' cells are from; they name nobody."""
    digests: list[str] = []
    for patient in patients:
        with BagReader(store.path_of(patient), verify=False) as reader:
            digests += [source.sha256 for source in reader.sources]
    codes = image_codes(digests)
    return {IMAGES: codes} if len(codes) else {}


def _reference(
    ensemble: Ensemble, material: Material, cast: Cast, config: Config
) -> dict[str, Tensor]:
    """Mean features of each training patient by the first network's encoder; none below three.

    Beside them the probabilities of those that were held out, in an order that names nobody.
    """
    if len(cast.patients) < 3:
        return {}
    means = [_mean_features(ensemble.networks[0], material, p, config) for p in cast.patients]
    found = reference_features(torch.stack(means))
    p, truth = held_out(ensemble, cast)
    if len(p):
        order = np.lexsort([*p.T, truth])
        found["held_out"] = torch.from_numpy(p[order]).float()
        found["held_out_class"] = torch.from_numpy(truth[order])
    return found


def held_out(ensemble: Ensemble, cast: Cast) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Calibrated probabilities (H, C) and classes (H,) of the patients that were held out."""
    patients = sorted(ensemble.out_of_fold)
    p = [ensemble.out_of_fold[patient] for patient in patients]
    truth = np.array([cast.classes.index(cast.labels[x]) for x in patients], np.int64)
    none = np.zeros((0, len(cast.classes)))
    return (apply_temperature(np.stack(p), ensemble.temperature) if p else none), truth


@torch.no_grad()
def _mean_features(network: MilNetwork, material: Material, patient: str, config: Config) -> Tensor:
    bag = whole_bag(material.source, patient)
    total = torch.zeros(network.dim, dtype=torch.float64)
    batch = config.prediction.batch_size
    for chunk in embedded_chunks(network, material.source, bag, batch):
        total += chunk.double().sum(dim=0)
    return total / len(bag)


def _provenance(
    ensemble: Ensemble, material: Material, cast: Cast, config: Config, store: Store
) -> dict[str, Any]:
    """Who was trained on and how; pseudonyms only as a digest."""
    description = store.description
    found: dict[str, Any] = {
        "research_use_only": RESEARCH_USE_ONLY,
        "cohort": description.name,
        "n_patients": len(cast.patients),
        "n_by_class": dict(sorted(Counter(cast.labels[p] for p in cast.patients).items())),
        "cells_sha256": material.source.digest(cast.patients),
        "config_sha256": config.digest(),
        "seed": config.training.seed,
        "best_epochs": [member.best_epoch for member in ensemble.members],
        "n_held_out": [len(share) for share in ensemble.held_out],
        "millie": __version__,
        "torch": str(torch.__version__),
        "platform": platform.platform(terse=True),
    }
    auc = out_of_fold_auc(ensemble, cast)
    if auc is not None:
        found["out_of_fold_auc"] = auc
        found["out_of_fold_note"] = (
            "single networks on the training patients each of them left out; used for calibration, "
            "not a measure of performance: see `millie crossval`"
        )
    return found


def out_of_fold_auc(ensemble: Ensemble, cast: Cast) -> float | None:
    """AUC on the held-out shares; None where no positive or no negative patient was held out."""
    p, truth = held_out(ensemble, cast)
    index = cast.classes.index(cast.positive)
    positive = truth == index
    if not len(p) or positive.all() or not positive.any():
        return None
    return roc_auc(positive, p[:, index])


def card_facts(name: str, fitted: Fitted, config: Config) -> CardFacts:
    """What a training says of its model, for the card."""
    return CardFacts(
        name, fitted.classes, fitted.positive, fitted.threshold, fitted.temperature,
        len(fitted.networks), config.model.encoder, config.model.aggregator, fitted.provenance,
        licence_of(config.model.encoder), fitted.promise(config.prediction),
        vectors_of(config.model.encoder),
    )  # fmt: skip
