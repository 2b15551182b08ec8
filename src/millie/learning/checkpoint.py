"""A half-finished training on disk, so that a killed process goes on where it stopped.

One safetensors file holds weights, best weights, the optimiser's state and, as JSON in its header,
the epoch, the history and the digest of the run: one file, written atomically, so that its parts
belong together. Random generators need no place in it: each epoch makes its own from (seed, epoch).
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from millie.files import write_bytes
from millie.models.weights import tensors_digest

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One line of the log.

    Attributes:
        epoch: from 1.
        train_loss: mean over steps, with dropout and augmentation.
        validation_loss: on all cells of the validation patients, or None without such.
        learning_rate: of the epoch.
        seconds: wall time of the epoch.
    """

    epoch: int
    train_loss: float
    validation_loss: float | None
    learning_rate: float
    seconds: float


@dataclass(slots=True)
class Progressed:
    """Where a training stands.

    Attributes:
        epoch: epochs done.
        best_epoch: epoch of the lowest validation loss (the last, without validation).
        best_loss: that loss.
        best: weights of that epoch.
        history: one record an epoch.
        finished: nothing is left to do.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = inf
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[EpochRecord] = field(default_factory=list)
    finished: bool = False


class Checkpoint:
    """Reads and writes the state of one training.

    Args:
        path: the file; None: nothing is kept.
        digest: of everything that determines the result; a file with another one is ignored.
        every_s: seconds between writes; the last state is always written.
    """

    def __init__(self, path: Path | None, digest: str, every_s: float) -> None:
        self.path = path
        self._digest = digest
        self._every_s = every_s
        self._written = time.monotonic()

    def save(self, state: Progressed, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Write the state if it is time to, or if the training has finished."""
        if self.path is None:
            return
        if not state.finished and time.monotonic() - self._written < self._every_s:
            return
        tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in state.best.items()}
        scalars: dict[str, Any] = {}
        for index, values in optimiser.state_dict()["state"].items():
            for name, value in values.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"optimiser.{index}.{name}"] = value
                else:
                    scalars[f"{index}.{name}"] = value
        header = {
            "schema": _SCHEMA,
            "digest": self._digest,
            "epoch": state.epoch,
            "best_epoch": state.best_epoch,
            "best_loss": state.best_loss if isfinite(state.best_loss) else None,
            "history": [asdict(record) for record in state.history],
            "finished": state.finished,
            "optimiser": scalars,
        }
        kept = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
        header["tensors"] = tensors_digest(kept)
        write_bytes(self.path, save(kept, {"millie": json.dumps(header)}))
        self._written = time.monotonic()

    def load(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> Progressed:
        """Restore network and optimiser; a fresh state if there is nothing that fits.

        A damaged file counts as none: the training then starts again, and its result is the same.
        """
        if self.path is None or not self.path.is_file():
            return Progressed()
        try:
            with safe_open(self.path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["millie"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            known = (header["schema"], header["digest"], header["tensors"])
            if known != (_SCHEMA, self._digest, tensors_digest(tensors)):
                return Progressed()
            state = _state(header, _under(tensors, "best."))
            network.load_state_dict(_under(tensors, "network."))
            _load_optimiser(optimiser, _under(tensors, "optimiser."), header["optimiser"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError):
            return Progressed()
        return state


def _state(header: dict[str, Any], best: dict[str, Tensor]) -> Progressed:
    return Progressed(
        epoch=int(header["epoch"]),
        best_epoch=int(header["best_epoch"]),
        best_loss=inf if header["best_loss"] is None else float(header["best_loss"]),
        best=best,
        history=[EpochRecord(**record) for record in header["history"]],
        finished=bool(header["finished"]),
    )


def _load_optimiser(
    optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor], scalars: dict[str, Any]
) -> None:
    values: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **scalars}.items():
        index, _, name = key.partition(".")
        values.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": values})


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
