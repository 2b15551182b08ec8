"""Exports that need more than the base installation, imported only when one is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from millie.errors import MissingPackageError

if TYPE_CHECKING:
    from types import ModuleType


def with_extra(name: str, extra: str) -> ModuleType:
    """A module of this room whose packages are an extra.

    Raises:
        MissingPackageError: they are not installed; the message says what to install.
    """
    try:
        return import_module(f"millie.outputs.exports.{name}")
    except ImportError as error:
        raise MissingPackageError(
            f'this export needs {error.name}, which is not installed: pip install "millie[{extra}]"'
        ) from error
