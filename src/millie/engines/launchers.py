"""Whether a launcher of several processes (``torchrun``, ``accelerate launch``) started this one.

A launcher starts the same command W times. Training shares its work between them; any other command
would do all of it W times and write the same files at once. Owns that question alone, without
torch; how training shares is ``learning.parallel``.
"""

from __future__ import annotations

import os

from millie.errors import ConfigError

PARALLEL = frozenset({"train"})
"""Commands that share their work between the processes of a launcher."""

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched() -> bool:
    """Whether a launcher started more processes than this one."""
    return all(os.environ.get(name) for name in _VARIABLES) and os.environ["WORLD_SIZE"] != "1"


def check_alone(command: str) -> None:
    """Refuse a command that several processes would run several times, into the same files.

    Raises:
        ConfigError: a launcher started several processes, and the command is not in ``PARALLEL``.
    """
    if launched() and command not in PARALLEL:
        raise ConfigError(
            f"millie {command} runs in a single process, but WORLD_SIZE is "
            f"{os.environ['WORLD_SIZE']}: start it without torchrun or accelerate; only millie "
            f"{', '.join(sorted(PARALLEL))} can share its work between processes"
        )
