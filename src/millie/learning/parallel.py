"""Training by several processes as if they were one: who takes which bags, and what they exchange.

Every process draws the same bags, embeds its share of them, and shares the fused vectors; the head,
its dropout and the loss are computed on the vectors of all. So a step of W processes is the step of
one process with W times the patients, dropout and augmentation included; only sums of gradients are
rounded in another order. Owns the exchange; nothing here knows files, folds or losses.

Started by ``torchrun`` (or ``accelerate launch``, which sets the same variables). One process needs
nothing of this and exchanges nothing.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as group

from millie.engines.launchers import launched
from millie.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

PATIENCE = timedelta(hours=1)
"""How long a process waits for the others: they do the same work and meet in every step, so one
that is an hour late hangs or is cut off. One that dies is noticed at once."""


@dataclass(frozen=True, slots=True)
class Team:
    """The processes that train one network.

    Attributes:
        rank: of this process, from 0; rank 0 alone writes files.
        size: number of processes W.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Which of ``count`` things are this process's: contiguous, disjoint, together all."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def gather(self, own: Tensor, count: int) -> Tensor:
        """Rows (count, ...) of all processes from the rows of each one's share.

        Raises:
            TrainingError: another process died or is not heard of.
        """
        if self.size == 1:
            return own
        rows = own.new_zeros((count, *own.shape[1:]))
        rows[self.share(count)] = own
        with _in_contact():
            group.all_reduce(rows)  # all others are zero: the sum is exact
        return rows

    def add_up(self, weights: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by the sum over processes; the same bits on all of them.

        A weight without a gradient in every process keeps none, as in one process: with zeros an
        optimiser would let it decay.

        Raises:
            TrainingError: another process died or is not heard of.
        """
        if self.size == 1:
            return
        learning = [weight for weight in weights if weight.requires_grad]
        used = torch.tensor([weight.grad is not None for weight in learning], dtype=torch.int32)
        with _in_contact():
            group.all_reduce(used)
            for weight in (learning[i] for i in used.nonzero().flatten().tolist()):
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
                group.all_reduce(weight.grad)

    def agree(self, what: str, value: int) -> None:
        """Refuse to go on with processes that start from different places.

        Raises:
            TrainingError: the processes have different values.
        """
        if self.size == 1:
            return
        values = self.gather(torch.tensor([value]), self.size)
        if len(set(values.tolist())) > 1:
            raise TrainingError(
                f"the training processes have different {what} ({values.tolist()}): "
                "they must see the same store and the same --out folder"
            )

    def wait(self) -> None:
        """Until every process is here.

        Raises:
            TrainingError: another process died or is not heard of.
        """
        if self.size > 1:
            with _in_contact():
                group.barrier()


def team() -> Team:
    """The processes that have joined; this one alone where none have."""
    if group.is_available() and group.is_initialized():
        return Team(group.get_rank(), group.get_world_size())
    return Team()


@contextmanager
def joined() -> Iterator[Team]:
    """Join the processes that a launcher started with this one; alone without a launcher.

    Raises:
        ConfigError: a variable of the launcher makes no sense.
        TrainingError: not all processes came.
    """
    if not launched() or group.is_initialized():
        yield team()
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    try:
        with _in_contact():
            group.init_process_group(backend, timeout=PATIENCE)
    except ValueError as error:
        raise ConfigError(f"the launcher's environment variables are invalid: {error}") from error
    try:
        yield team()
    finally:
        group.destroy_process_group()


@contextmanager
def _in_contact() -> Iterator[None]:
    """Say what an exchange that failed means.

    Raises:
        TrainingError: another process died or is not heard of.
    """
    try:
        yield
    except RuntimeError as error:  # whatever the backend raises: each has its own kinds
        cause = str(error).splitlines()[0]
        raise TrainingError(
            f"another training process died, never started or has been silent for {PATIENCE} "
            f"({cause}): check the output of the others, then run the same command again; training "
            "resumes from the last checkpoint"
        ) from error
