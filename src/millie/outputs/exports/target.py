"""Where an export goes: a new file or a new folder, whole or absent.

An export never replaces anything: what lies there may have been corrected by a person since.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from millie.errors import ConfigError
from millie.files import is_litter, sync_folder, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_new(out: Path) -> None:
    """Refuse to export over something.

    Raises:
        ConfigError: there is a file, or a folder that is not empty.
    """
    if out.is_dir() and all(is_litter(path.name) for path in out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out} exists and is not replaced: name another place, or remove it")


def write_new(out: Path, data: bytes) -> Path:
    """Write one new file in one step.

    Raises:
        ConfigError: as :func:`check_new`, or ``out`` is a folder.
        OSError: it cannot be written.
    """
    check_new(out)
    if out.is_dir():
        raise ConfigError(f"{out} is a folder: name a file to write")
    return write_bytes(out, data)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that gets the name ``out`` when the block ends well.

    Raises:
        ConfigError: as :func:`check_new`.
        OSError: it cannot be written.
    """
    check_new(out)
    place = out.absolute()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as hidden:
        new = Path(hidden) / "new"
        new.mkdir()
        try:
            yield new
        except OSError as error:
            if str(error.filename or "").startswith(hidden):
                error.filename = str(out)  # what was asked for, not where it was in the making
            raise
        for folder in (new, *(path for path in new.rglob("*") if path.is_dir())):
            sync_folder(folder)
        new.replace(place)  # an empty folder is replaced, a full one is not
        sync_folder(place.parent)
