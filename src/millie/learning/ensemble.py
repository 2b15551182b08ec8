"""From a training part to a calibrated ensemble: who holds out whom, temperature, threshold.

Every choice is made inside the training part. With several networks the part is dealt into as many
stratified shares and each network leaves one out: it is stopped on that share, and its
probabilities there are out of fold, so that every training patient gives one honest probability to
fit temperature and threshold on, and every training patient also trains. With one network the
validation part plays that role. This module owns no test patients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from millie.errors import TrainingError
from millie.inference.alone import cells_alone
from millie.inference.explain import StreamedBag, find_winners
from millie.inference.immature import immature_cells
from millie.learning.optimise import embed_chunk
from millie.learning.sampling import CellSource, DrawnBag, whole_bag
from millie.learning.splits import check_classes, cut_validation, deal
from millie.learning.train import (
    Progress,
    Task,
    TrainedNetwork,
    bag_logits,
    embedded_chunks,
    silent,
    train,
)
from millie.models.bundle import ensemble_probabilities
from millie.models.encoder import CellTypes
from millie.models.network import build_network
from millie.statistics.calibration import apply_temperature, balanced_threshold, fit_temperature
from millie.statistics.metrics import both_classes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from millie.config import Config, PredictionConfig
    from millie.models.encoder import Encoder
    from millie.models.network import MilNetwork, Standardiser
    from millie.types import Winner

    Floats = NDArray[np.float64]

_PROTOTYPE_CELLS = 20_000
"""Training cells from which prototypes are set; of more, every n-th of each patient."""
_CROPS_A_PATIENT = 64
"""The same of a patient's crops, where the encoder is trained."""


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """Cells, and the encoder that learns with the rest.

    Attributes:
        source: of the cells.
        dim: features of an embedding.
        new_encoder: seed -> encoder to be trained; None: cells are embeddings already.
        types: of the encoder that made the embeddings (:attr:`Encoder.types`), if it has learnt.
        encoder_sha256: of the weights that such an encoder starts from, which no cell shows.
        encoder: name of what made embeddings that were computed elsewhere; empty: our own.
    """

    source: CellSource
    dim: int
    new_encoder: Callable[[int], Encoder] | None = None
    types: CellTypes | None = None
    encoder_sha256: str = ""
    encoder: str = ""


@dataclass(frozen=True, slots=True)
class Cast:
    """The patients of one training part and what is to be told apart.

    Attributes:
        classes: in the order of the logits.
        positive: the class of the threshold.
        labels: diagnosis by patient.
        patients: the whole training part.
        seed: of everything random.
        validation: what a single network leaves out; None: cut here.
    """

    classes: tuple[str, ...]
    positive: str
    labels: Mapping[str, str]
    patients: tuple[str, ...]
    seed: int
    validation: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """Trained networks with what makes their output usable.

    Attributes:
        members: the networks with their histories.
        held_out: the patients that each network did not train on.
        temperature: divides the log of the mean probability.
        threshold: calibrated probability of the positive class from which it is called.
        out_of_fold: uncalibrated probabilities (C,) of patients by a network that had not trained
            on them.
    """

    members: tuple[TrainedNetwork, ...]
    held_out: tuple[tuple[str, ...], ...]
    temperature: float
    threshold: float
    out_of_fold: Mapping[str, Floats]

    @property
    def networks(self) -> list[MilNetwork]:
        """The networks alone."""
        return [member.network for member in self.members]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Calibrated probabilities of one patient.

    Attributes:
        bag: (C,) of the patient.
        cells: (n, C) of each cell alone.
        winners: for each class the cells that made it, strongest first; empty if not asked for.
    """

    bag: Floats
    cells: Floats
    winners: Mapping[str, tuple[Winner, ...]]


def fit_ensemble(
    material: Material,
    cast: Cast,
    config: Config,
    *,
    progress: Progress = silent,
    folder: Path | None = None,
) -> Ensemble:
    """Train ``training.ensemble`` networks and calibrate them.

    Args:
        material: cells of at least the cast's patients.
        cast: the training part.
        config: ``model``, ``training``, ``augment``, ``prediction.batch_size``.
        progress: called after each epoch.
        folder: for logs and checkpoints; None: neither.

    Raises:
        TrainingError: fewer than two patients of a class, or the loss is not finite.
    """
    shares = hold_out(cast, config)
    members = []
    for number, share in enumerate(shares):
        seed = cast.seed * 1000 + number
        stopping = share if config.training.validation_fraction > 0 else ()
        task = Task(
            cast.classes,
            cast.labels,
            tuple(p for p in cast.patients if p not in set(share)),
            stopping,
            seed,
        )
        network = fresh_network(material, task, config)
        name = f"network-{number}"
        member = train(
            network, material.source, task, config, progress=progress, folder=folder, name=name
        )
        members.append(member)
    out_of_fold = _out_of_fold(members, shares, material, config)
    temperature, threshold = calibrate(out_of_fold, cast, soften_only=config.training.soften_only)
    return Ensemble(tuple(members), tuple(shares), temperature, threshold, out_of_fold)


def hold_out(cast: Cast, config: Config) -> list[tuple[str, ...]]:
    """The share of the training part that each network leaves out.

    Raises:
        TrainingError: fewer than two patients of a class.
    """
    labels = {p: cast.labels[p] for p in cast.patients}
    check_classes(labels, at_least=2, purpose="training with patients held out")
    rng = np.random.default_rng([cast.seed, 1])
    count = config.training.ensemble
    if count == 1 and cast.validation is not None:
        return [cast.validation]
    if count == 1:
        return [cut_validation(labels, config.training.validation_fraction, rng)[1]]
    shares = deal(labels, min(count, *Counter(labels.values()).values()), rng)
    return [shares[i % len(shares)] for i in range(count)]


def fresh_network(material: Material, task: Task, config: Config) -> MilNetwork:
    """An untrained network for a task.

    Embeddings of a frozen encoder are centred and divided by one common scale, both from the
    training cells. One scale for all features keeps rare, small features small: divided by their
    own deviation they would rule the maximum, which costs AUC. An encoder that is trained is left
    to find its own scale. Prototypes of the fusion, where it has any, are set from the same cells.
    """
    if material.new_encoder is not None:
        encoder = material.new_encoder(task.seed)
        types = encoder.types if config.model.pretrained else None
        network = build_network(
            config.model, task.classes, encoder=encoder, types=_count(types), seed=task.seed
        )
    else:
        network, types = _network_on_embeddings(material, task, config), material.types
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        network.aggregator.fit(
            _training_cells(network, material.source, task),
            None if types is None else _of_standardised(types, network.standardiser),
        )
    return network


def _network_on_embeddings(material: Material, task: Task, config: Config) -> MilNetwork:
    network = build_network(
        config.model, task.classes, feature_dim=material.dim, types=_count(material.types),
        seed=task.seed,
    )  # fmt: skip
    source = material.source
    network.standardiser.fit(source.cells(p, whole_bag(source, p).indices) for p in task.train)
    std = network.standardiser.std
    std.copy_(std.square().mean().sqrt().expand_as(std))
    return network


@torch.no_grad()
def _training_cells(network: MilNetwork, source: CellSource, task: Task) -> Iterator[Tensor]:
    """Standardised embeddings (n, D) of training cells; of very many, some of each patient."""
    every = -(-sum(source.count(patient) for patient in task.train) // _PROTOTYPE_CELLS)
    for patient in task.train:
        indices = whole_bag(source, patient).indices
        step = -(-len(indices) // _CROPS_A_PATIENT) if source.images else every
        cells = source.cells(patient, indices[::step])
        yield network.standardiser(embed_chunk(network, source, cells))


def _count(types: CellTypes | None) -> int:
    return 0 if types is None else types.out_features


def _of_standardised(types: CellTypes, standardiser: Standardiser) -> CellTypes:
    """The same types for vectors that are standardised."""
    mapped = CellTypes(types.in_features, types.lines, types.mature)
    with torch.no_grad():
        mapped.weight.copy_(types.weight * standardiser.std)
        mapped.bias.copy_(types.bias + types.weight @ standardiser.mean)
    return mapped


def calibrate(
    out_of_fold: Mapping[str, Floats], cast: Cast, *, soften_only: bool
) -> tuple[float, float]:
    """Temperature and threshold from probabilities of patients that were not trained on.

    Returns:
        Temperature (1 without patients), threshold of the calibrated probability (0.5 where not
        both classes were held out).
    """
    if not out_of_fold:
        return 1.0, 0.5
    patients = sorted(out_of_fold)
    p = np.stack([out_of_fold[patient] for patient in patients])
    truth = np.array([cast.classes.index(cast.labels[patient]) for patient in patients])
    temperature = fit_temperature(p, truth, soften_only=soften_only)
    index = cast.classes.index(cast.positive)
    positive = truth == index
    if not both_classes(positive):
        return temperature, 0.5
    return temperature, balanced_threshold(positive, apply_temperature(p, temperature)[:, index])


def score_bag(
    networks: Sequence[MilNetwork],
    source: CellSource,
    bag: DrawnBag,
    classes: Sequence[str],
    *,
    temperature: float,
    encoder: str,
    config: PredictionConfig,
    explain: bool = True,
) -> Scored:
    """Probabilities of a patient and of each cell alone, averaged over networks, calibrated.

    The arithmetic of :func:`millie.inference.predict.predict_bag`: deterministic, and it holds one
    batch of crops at a time. ``encoder`` is the name of what made the vectors of cells. Without
    ``explain`` no winners are looked for: on embeddings they take longer than the probabilities.
    """
    streams, logits, cells, immature = [], [], [], []
    for network in networks:
        streamed = StreamedBag(network, len(bag), explained=explain)
        own = _stream(streamed, network, encoder, source, bag, config.batch_size)
        cells.append(own[0])
        immature.append(own[1])
        logits.append(streamed.logits())
        streams.append(streamed)
    alone = ensemble_probabilities(torch.stack(cells), temperature)
    return Scored(
        ensemble_probabilities(torch.stack(logits), temperature).numpy(),
        cells_alone(alone, immature[0], classes, config.negative_labels).numpy(),
        find_winners(streams, classes, config.winners) if explain else {},
    )


@torch.no_grad()
def score_parts(
    networks: Sequence[MilNetwork],
    source: CellSource,
    patient: str,
    parts: Sequence[NDArray[np.int64]],
    *,
    temperature: float,
    batch_size: int,
) -> Floats:
    """Probabilities (P, C) of parts of a patient's bag, each as if it were the whole.

    Parts may overlap; a network embeds every cell once.

    Args:
        networks: whose probabilities are averaged.
        source: of the cells.
        patient: whose bag.
        parts: cell indices of each part, at least one.
        temperature: of the calibration.
        batch_size: crops in memory at a time.
    """
    needed = np.unique(np.concatenate(parts))
    rows = [torch.from_numpy(np.searchsorted(needed, part)) for part in parts]
    bag, logits = DrawnBag(patient, needed), []
    for network in networks:
        vectors = torch.cat(list(embedded_chunks(network, source, bag, batch_size)))
        logits.append(torch.stack([network.stream_logits([vectors[own]]) for own in rows]))
    return ensemble_probabilities(torch.stack(logits), temperature).numpy()


@torch.no_grad()
def _stream(
    streamed: StreamedBag, network: MilNetwork, encoder: str, source: CellSource, bag: DrawnBag,
    batch_size: int,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Show the network the bag: logits (n, C) of its cells, and :func:`immature_cells` of them."""
    logits, immature, start = [], [], 0
    for chunk in embedded_chunks(network, source, bag, batch_size):
        logits.append(streamed.add(start, chunk))
        start += len(chunk)
        told = immature_cells(network, encoder, chunk)
        immature += [] if told is None else [told]
    return torch.cat(logits), torch.cat(immature) if immature else None


def _out_of_fold(
    members: Sequence[TrainedNetwork],
    shares: Sequence[tuple[str, ...]],
    material: Material,
    config: Config,
) -> dict[str, Floats]:
    """Mean probabilities of each held-out patient over the networks that held it out."""
    size = config.prediction.batch_size
    logits: dict[str, list[torch.Tensor]] = {}
    for member, share in zip(members, shares, strict=True):
        for patient in share:
            bag = whole_bag(material.source, patient)
            logits.setdefault(patient, []).append(
                bag_logits(member.network, material.source, bag, size)
            )
    return {
        patient: ensemble_probabilities(torch.stack(each), 1.0).numpy()
        for patient, each in sorted(logits.items())
    }


def check_enough(labels: Mapping[str, str]) -> None:
    """Refuse a cohort too small to train on.

    Raises:
        TrainingError: fewer than two classes, or fewer than two patients of one.
    """
    if not labels:
        raise TrainingError(
            "no patient has both a label and cells: check the label column of the manifest"
        )
    check_classes(labels, at_least=2, purpose="training")
