"""Training of one network: draw, step, validate, stop, restore the best epoch.

One loop for both modes: with a frozen encoder the cells are embeddings and an epoch takes a
fraction of a second; end to end they are augmented crops and the encoder learns too. Who is trained
on is decided elsewhere (:mod:`millie.learning.splits`, :mod:`millie.learning.fit`). Equal inputs,
settings and seed give equal weights on the same machine, also after an interruption: the random
generators of an epoch are made from (seed, epoch) alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from millie.errors import TrainingError
from millie.inference.runtime import one_thread
from millie.learning.checkpoint import Checkpoint, EpochRecord, Progressed
from millie.learning.logs import tensorboard, write_log
from millie.learning.optimise import (
    Step,
    build_optimiser,
    check_exact,
    class_weights,
    embed_chunk,
    exact_backward,
    plain_backward,
    targets_of,
)
from millie.learning.parallel import Team, team
from millie.learning.sampling import (
    CellSource,
    DrawnBag,
    chunks,
    draw_steps,
    load_cells,
    whole_bag,
)
from millie.models.network import load_tensors, state_tensors
from millie.models.weights import weights_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from millie.config import Config
    from millie.models.network import MilNetwork

Progress = Callable[[str, int, int], None]
"""``progress(what, done, total)``; called often, must be cheap."""


def silent(what: str, done: int, total: int) -> None:
    """Progress for callers that want none."""


@dataclass(frozen=True, slots=True)
class Task:
    """What one network is trained on.

    Attributes:
        classes: in the order of the logits.
        labels: diagnosis of each patient of both parts.
        train: patients that set the weights.
        validation: patients that decide when to stop; empty: all epochs are run.
        seed: of draws, dropout and augmentation.
    """

    classes: tuple[str, ...]
    labels: Mapping[str, str]
    train: tuple[str, ...]
    validation: tuple[str, ...]
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class TrainedNetwork:
    """A network with the weights of its best epoch, in evaluation mode.

    Attributes:
        network: the network.
        best_epoch: from 1.
        history: losses by epoch.
    """

    network: MilNetwork
    best_epoch: int
    history: tuple[EpochRecord, ...]


def train(
    network: MilNetwork,
    source: CellSource,
    task: Task,
    config: Config,
    *,
    progress: Progress = silent,
    folder: Path | None = None,
    name: str = "network",
    checkpoint_every_s: float = 5.0,
) -> TrainedNetwork:
    """Train a fresh network in place.

    Args:
        network: from :func:`millie.models.network.build_network`, standardiser set.
        source: crops if the network has an encoder, else embeddings.
        task: patients and seed.
        config: ``training`` and ``augment``; ``prediction.batch_size`` cells at a time outside
            the plain gradient.
        progress: called after each epoch.
        folder: for log and checkpoint; None: neither is written. Run again with the same
            arguments, a killed training goes on and ends with the same weights.
        name: of the files in the folder and of the progress.
        checkpoint_every_s: least time between checkpoints.

    Raises:
        TrainingError: a class without training patients, or the loss is not finite.
        ConfigError: ``exact_gradient`` with another fusion than maximum.
        MissingPackageError: ``training.log=tensorboard`` without the package.
    """
    check_task(task)
    if config.training.exact_gradient:
        check_exact(network)
    if folder is not None and config.training.log == "tensorboard":
        tensorboard()
    processes = team()
    config = _of_all(config, processes)
    if source.images:  # convolutions on channels-last weights take two thirds of the time on a CPU
        _lay_out(network, config.training.device, torch.channels_last)
    optimiser = build_optimiser(network, config.training)
    digest = task_digest(network, source, task, config)
    path = None if folder is None else folder / f"{name}.checkpoint.safetensors"
    checkpoint = Checkpoint(path, digest, checkpoint_every_s)
    state = checkpoint.load(network, optimiser)
    processes.agree(f"epoch of {name}", state.epoch)
    fixed = fixed_vectors(network, source, task.validation)
    epochs = config.training.max_epochs
    with torch.random.fork_rng(devices=[]), threads_for(source):
        while not state.finished:
            record = _run_epoch(network, source, task, config, optimiser, state.epoch + 1, fixed)
            _judge(state, record, network, config)
            if processes.leads:
                checkpoint.save(state, network, optimiser)
            progress(name, epochs if state.finished else state.epoch, epochs)
    _lay_out(network, "cpu", torch.contiguous_format)
    load_tensors(network, state.best)
    if folder is not None and processes.leads:
        write_log(folder, name, state.history, config.training.log)
    return TrainedNetwork(network.eval(), state.best_epoch, tuple(state.history))


def _lay_out(network: MilNetwork, device: str, layout: torch.memory_format) -> None:
    """Move a network; the weights of its convolutions take an order of axes in memory."""
    network.to(device)
    for weight in network.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=layout)


def _of_all(config: Config, processes: Team) -> Config:
    """Settings of a step of all processes together: each takes ``patients_per_step``."""
    size = config.training.patients_per_step * processes.size
    training = config.training.model_copy(update={"patients_per_step": size})
    return config.model_copy(update={"training": training})


def _run_epoch(
    network: MilNetwork,
    source: CellSource,
    task: Task,
    config: Config,
    optimiser: torch.optim.Optimizer,
    epoch: int,
    fixed: Tensor | None,
) -> EpochRecord:
    """One epoch of steps and its validation."""
    started = time.monotonic()
    rng = np.random.default_rng([task.seed, epoch])
    torch.manual_seed(int(rng.integers(2**31)))
    labels = [task.labels[p] for p in task.train]
    weights = class_weights(labels, task.classes, balanced=config.training.class_weights)
    set_training_mode(network)
    losses = []
    for bags in draw_steps(source, task.train, config, rng):
        step = Step(tuple(bags), targets_of(bags, task.labels, task.classes), weights)
        optimiser.zero_grad()
        with _precision(network, config):
            if config.training.exact_gradient:
                loss = exact_backward(network, source, step, config.prediction.batch_size, team())
            else:
                loss = plain_backward(network, source, step, team())
        _check_finite(loss, epoch, config)
        optimiser.step()
        losses.append(loss)
    size = config.prediction.batch_size
    validation = validation_loss(network, source, task, weights, size, fixed)
    seconds = round(time.monotonic() - started, 4)
    rate = config.training.learning_rate
    return EpochRecord(epoch, float(np.mean(losses)), validation, rate, seconds)


def _precision(network: MilNetwork, config: Config) -> torch.autocast:
    """Activations of an encoder in bfloat16 if asked for; the head stays in float32."""
    wanted = network.encoder is not None and config.training.precision == "bfloat16"
    kind = network.standardiser.mean.device.type
    return torch.autocast(kind, torch.bfloat16, enabled=wanted)


def _judge(state: Progressed, record: EpochRecord, network: MilNetwork, config: Config) -> None:
    """Keep the weights of the best epoch; finish when patience or epochs are used up."""
    state.epoch = record.epoch
    state.history.append(record)
    loss = record.validation_loss
    if loss is None or loss < state.best_loss:
        state.best_loss = math.inf if loss is None else loss
        state.best_epoch = record.epoch
        state.best = state_tensors(network, with_encoder=network.encoder is not None)
    waited = state.epoch - state.best_epoch
    limits = config.training
    state.finished = state.epoch >= limits.max_epochs or waited >= limits.patience


@torch.no_grad()
def validation_loss(
    network: MilNetwork,
    source: CellSource,
    task: Task,
    weights: Tensor,
    batch_size: int,
    fixed: Tensor | None = None,
) -> float | None:
    """Weighted cross entropy on all cells of the validation patients; None without any.

    Args:
        network: is put into evaluation mode.
        source: of the cells.
        task: names the patients.
        weights: (C,) of the classes.
        batch_size: crops in memory at a time.
        fixed: from :func:`fixed_vectors`, so that the cells need not be read.
    """
    if not task.validation:
        return None
    network.eval()
    bags = [whole_bag(source, patient) for patient in task.validation]
    if fixed is None:
        processes = team()
        own = bags[processes.share(len(bags))]
        rows = [bag_logits(network, source, bag, batch_size) for bag in own]
        none = weights.new_zeros((0, len(task.classes)), device=network.standardiser.mean.device)
        logits = processes.gather(torch.stack(rows) if rows else none, len(bags))
    else:
        logits = torch.stack([network.head(vector[None])[0] for vector in fixed])
    targets = targets_of(bags, task.labels, task.classes)
    return float(functional.cross_entropy(logits.cpu(), targets, weights))


@torch.no_grad()
def fixed_vectors(
    network: MilNetwork, source: CellSource, patients: Sequence[str]
) -> Tensor | None:
    """Fused vectors (n, W) of whole bags, where no step of training can change them.

    That is so for embeddings under a fusion without weights: one pass then serves every epoch.

    Returns:
        None without patients, or where encoder or fusion learn.
    """
    if not patients or source.images or any(True for _ in network.aggregator.parameters()):
        return None
    fuse = network.aggregator
    vectors = []
    for patient in patients:
        cells = load_cells(source, whole_bag(source, patient))
        vectors.append(fuse.finish(fuse.update(fuse.init(), network.standardiser(cells))))
    return torch.stack(vectors)


@torch.no_grad()
def bag_logits(network: MilNetwork, source: CellSource, bag: DrawnBag, batch_size: int) -> Tensor:
    """Logits (C,) of a bag of any size, in the memory of one batch of cells."""
    return network.stream_logits(embedded_chunks(network, source, bag, batch_size))


def embedded_chunks(
    network: MilNetwork, source: CellSource, bag: DrawnBag, batch_size: int
) -> Iterator[Tensor]:
    """Embeddings (n, D) of a bag, chunk by chunk; embeddings in memory come as one chunk."""
    size = batch_size if source.images else len(bag)
    for part in chunks(bag, size):
        yield embed_chunk(network, source, load_cells(source, bag, part))


def threads_for(source: CellSource) -> AbstractContextManager[None]:
    """One thread where cells are embeddings, all of them where an encoder runs.

    Tensors of embeddings are small: several threads wait for each other for longer than they work,
    ten times as long on a machine that others use too. The figures then do not depend on the
    number of cores either.
    """
    return nullcontext() if source.images else one_thread()


def set_training_mode(network: MilNetwork) -> None:
    """Dropout on; the encoder stays in evaluation mode (see :mod:`millie.learning.optimise`)."""
    network.train()
    if network.encoder is not None:
        network.encoder.eval()


def check_task(task: Task) -> None:
    """Refuse what cannot be trained.

    Raises:
        TrainingError: a class without training patients, or a patient in both parts.
    """
    present = {task.labels[p] for p in task.train}
    missing = [name for name in task.classes if name not in present]
    if missing:
        raise TrainingError(
            f"no training patients with {', '.join(missing)}: every class is needed; use fewer "
            "folds, a smaller training.validation_fraction, or more patients"
        )
    both = sorted(set(task.train) & set(task.validation))
    if both:
        raise TrainingError(f"{', '.join(both)} are in both the training and the validation part")


def task_digest(network: MilNetwork, source: CellSource, task: Task, config: Config) -> str:
    """SHA-256 (hex) of all that determines the trained weights, the first weights included."""
    content = {
        "weights": weights_digest(network),
        "cells": source.digest([*task.train, *task.validation]),
        "classes": task.classes,
        "labels": {p: task.labels[p] for p in (*task.train, *task.validation)},
        "train": task.train,
        "validation": task.validation,
        "seed": task.seed,
        "config": config.digest("model", "augment", "training"),
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_finite(loss: float, epoch: int, config: Config) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} in epoch {epoch}: training has diverged. Lower "
            f"training.learning_rate (now {config.training.learning_rate:g}) and check for cells "
            "with extreme features"
        )
