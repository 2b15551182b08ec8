"""The command line: words -> configuration -> one pipeline call -> exit code.

Heavy modules are imported inside the commands, so that ``millie --help`` answers at once. What the
words mean is ``options``, how a command ends is ``exits``; the commands stand in groups, which this
module puts together.
"""

from __future__ import annotations

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
    with explained():
        app(standalone_mode=True)
