"""The folder of a bundle as bytes: verified when read, complete or absent when written.

This module knows files, sizes and hashes; what the bytes mean is :mod:`millie.models.bundle`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from millie.config import Config, parse
from millie.errors import BundleError, ConfigError, MissingFileError
from millie.files import is_litter, sync_folder
from millie.models.manifest import CONFIG, MANIFEST, WEIGHTS, FileRecord, Manifest, from_bytes

DEFAULT_MODEL = "acute-leukaemia"
"""The shipped bundle that is asked where none is named."""

_MAX_MANIFEST_BYTES = 4_000_000
_REMEDY = "fetch or train the bundle again"


def shipped_bundles() -> tuple[str, ...]:
    """Names of the bundles inside the package, sorted."""
    root = _shipped_root()
    if not root.is_dir():
        return ()
    return tuple(sorted(f.name for f in root.iterdir() if (f / MANIFEST).is_file()))


def is_bundle_folder(folder: Path) -> bool:
    """Whether this is the folder of a bundle.

    Raises:
        BundleError: it holds weights as a bundle does, but no manifest.
    """
    if (folder / MANIFEST).is_file():
        return True
    if (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file():
        raise BundleError(
            f"{folder} is a model without its {MANIFEST}: fetch or train the model again"
        )
    return False


def locate(name_or_path: str | Path) -> Path:
    """Folder of a shipped bundle's name or of a path.

    Raises:
        MissingFileError: neither; the message names the shipped ones.
    """
    shipped = shipped_bundles()
    folder = Path(name_or_path)
    if str(name_or_path) in shipped and not (isinstance(name_or_path, Path) and folder.is_dir()):
        return _shipped_root() / str(name_or_path)
    if not folder.is_dir():
        raise MissingFileError(
            f"bundle '{name_or_path}' is neither a folder nor shipped with millie; shipped: "
            f"{', '.join(shipped) or 'none'}"
        )
    return folder


def file_record(data: bytes) -> FileRecord:
    """Size and hash of a file's bytes."""
    return FileRecord(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def read_folder(folder: Path) -> tuple[Manifest, str, dict[str, bytes]]:
    """Read and verify every file.

    Returns:
        The manifest, the SHA-256 of its file, and the bytes of the other files by name.

    Raises:
        BundleError: a file is missing, unknown, a link, or differs from the manifest.
    """
    raw = _read_plain(folder / MANIFEST, _MAX_MANIFEST_BYTES)
    manifest = from_bytes(raw, str(folder / MANIFEST))
    present = {f.name for f in folder.iterdir() if not is_litter(f.name)} - {MANIFEST}
    if missing := sorted(manifest.files.keys() - present):
        raise BundleError(f"{folder}: {missing[0]} is missing; {_REMEDY}")
    if unknown := sorted(present - manifest.files.keys()):
        raise BundleError(
            f"{folder}: '{unknown[0]}' does not belong to the bundle; remove it, or {_REMEDY}"
        )
    contents = {}
    for name, record in manifest.files.items():
        data = _read_plain(folder / name, record.size_bytes)
        if file_record(data) != record:
            raise BundleError(
                f"{folder / name} was altered: its SHA-256 is not the manifest's; {_REMEDY}"
            )
        contents[name] = data
    return manifest, hashlib.sha256(raw).hexdigest(), contents


def read_settings(folder: Path) -> tuple[Manifest, Config]:
    """The manifest and the settings of the training, every file verified.

    Raises:
        BundleError: as :func:`read_folder`, or settings of another version.
    """
    manifest, _, contents = read_folder(folder)
    return manifest, parse_settings(contents[CONFIG], folder)


def parse_settings(data: bytes, folder: Path) -> Config:
    """The settings in the bytes of ``config.toml``.

    A bundle may be stricter about the images that are opened than the defaults, never laxer: it
    comes from somebody else, and limits are lifted by who runs it.

    Raises:
        BundleError: they do not fit this version.
    """
    try:
        config = parse(data, str(folder / CONFIG))
    except ConfigError as error:
        raise BundleError(f"a bundle does not fit this version of millie: {error}") from error
    return config.model_copy(update={"reading": config.reading.tightened()})


def check_target(folder: Path, *, replace: bool) -> None:
    """Refuse to write over anything but, if asked to, another bundle.

    Raises:
        ConfigError: the folder exists and may not be replaced.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (replace and (folder / MANIFEST).is_file()):
        raise ConfigError(f"{folder} exists; name another folder for the bundle, or remove it")


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write all files to a hidden folder beside it, sync them, and give it its name.

    A bundle that stands there is moved aside first and removed last.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as hidden:
        new = Path(hidden) / "new"
        new.mkdir()
        for name, data in contents.items():
            with (new / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        sync_folder(new)
        old = Path(hidden) / "old"
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        sync_folder(folder.parent)


def _shipped_root() -> Path:
    return Path(str(resources.files("millie"))) / "bundles"


def _read_plain(path: Path, limit: int) -> bytes:
    """Bytes of a plain file of at most ``limit`` bytes."""
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path} is missing or no plain file; {_REMEDY}")
    size = path.stat().st_size
    if size > limit:
        raise BundleError(f"{path} was altered: {size} bytes, expected at most {limit}; {_REMEDY}")
    return path.read_bytes()
