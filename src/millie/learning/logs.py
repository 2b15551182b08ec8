"""The record of a training: losses by epoch as CSV, or for TensorBoard.

Owns the files; the numbers come from :mod:`millie.learning.train`.
"""

from __future__ import annotations

import importlib
from dataclasses import asdict, astuple, fields
from typing import TYPE_CHECKING

from millie.errors import MissingPackageError
from millie.files import write_csv
from millie.learning.checkpoint import EpochRecord

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType
    from typing import Literal

_COLUMNS = tuple(f.name for f in fields(EpochRecord))


def write_log(
    folder: Path, name: str, history: Sequence[EpochRecord], kind: Literal["csv", "tensorboard"]
) -> None:
    """Write the whole history of one network.

    Args:
        folder: where logs lie.
        name: of the network.
        history: all epochs.
        kind: ``csv``: ``<name>.csv``; ``tensorboard``: event files under ``tensorboard/<name>``.

    Raises:
        MissingPackageError: TensorBoard is wanted but not installed.
    """
    if kind == "csv":
        write_csv(folder / f"{name}.csv", _COLUMNS, map(astuple, history))
        return
    target = folder / "tensorboard" / name
    for old in target.glob("events.*"):
        old.unlink()
    writer = tensorboard().SummaryWriter(str(target))
    for record in history:
        for column, value in asdict(record).items():
            if column != "epoch" and value is not None:
                writer.add_scalar(column, value, record.epoch)
    writer.close()


def tensorboard() -> ModuleType:
    """The module that writes TensorBoard's files.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        return importlib.import_module("torch.utils.tensorboard")
    except ImportError as error:
        raise MissingPackageError(
            "training.log=tensorboard needs the tensorboard package: "
            "pip install 'millie[tensorboard]', or set training.log=csv"
        ) from error
