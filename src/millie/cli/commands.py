"""The command line: words -> configuration -> one pipeline call -> exit code.

Heavy modules are imported inside the commands, so that ``millie --help`` answers at once. What the
words mean is ``options``, how a command ends is ``exits``; the commands stand in groups, which this
module puts together.
"""

from __future__ import annotations

import atexit
import gc

from millie.cli import (
    bundles,
    evaluation,
    exports,
    images,
    models,
    monitoring,
    overview,
    review,
    review_records,
    validation,
)
from millie.cli.app import app
from millie.cli.exits import explained

__all__ = [
    "app",
    "bundles",
    "evaluation",
    "exports",
    "images",
    "main",
    "models",
    "monitoring",
    "overview",
    "review",
    "review_records",
    "validation",
]


def main() -> None:
    """Entry point of the ``millie`` command."""
    # Python looks for garbage after some hundreds of new objects, and at the end in all that is
    # there. Importing torch makes hundreds of thousands that stay: half a second of a command.
    gc.set_threshold(10_000)
    atexit.register(gc.freeze)
    with explained():
        app(standalone_mode=True)
