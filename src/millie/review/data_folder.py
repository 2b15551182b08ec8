"""The folder of all data: where each thing lies in it, and the database that goes with it."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from millie.errors import ConfigError

_OWNER_ONLY = 0o600
_BUSY_S = 20.0


@dataclass(frozen=True, slots=True)
class DataFolder:
    """All data of one installation, but for a PostgreSQL database.

    Attributes:
        root: the folder; made if missing, for its owner alone.
    """

    root: Path

    def __post_init__(self) -> None:
        for folder in (self.root, self.images, self.samples, self.incoming):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.root / "millie.sqlite3"

    @property
    def images(self) -> Path:
        """Images as they were submitted, each named by its SHA-256."""
        return self.root / "images"

    @property
    def samples(self) -> Path:
        """Results, one folder a sample, named by its pseudonym."""
        return self.root / "samples"

    @property
    def incoming(self) -> Path:
        """Uploads that are not yet complete."""
        return self.root / "incoming"

    @property
    def tiles(self) -> Path:
        """Tiles of the images that were looked at: a cache that can be deleted at any time."""
        return self.root / "tiles"

    def image(self, sha256: str) -> Path:
        """Where a submitted image lies."""
        return self.images / sha256

    def secret_key(self) -> str:
        """The key that signs sessions: drawn once, readable by the owner alone."""
        path = self.root / "secret.key"
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
        except FileExistsError:
            return path.read_text(encoding="ascii")
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(secrets.token_urlsafe(64))
        return path.read_text(encoding="ascii")


def database_settings(url: str, data: DataFolder) -> dict[str, Any]:
    """Django's entry for one database.

    Args:
        url: ``postgresql://user:password@host:port/name``; empty: SQLite in the data folder, with a
            write-ahead log, every commit forced to the disk.
        data: the folder.

    Raises:
        ConfigError: another kind of URL.
    """
    if not url:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(data.database),
            "OPTIONS": {
                "timeout": _BUSY_S,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
            },
        }
    parts = urlsplit(url)
    if parts.scheme not in {"postgresql", "postgres"} or not parts.path.strip("/"):
        raise ConfigError(
            f"--database '{parts.scheme}:...': expected "
            "postgresql://USER:PASSWORD@HOST:PORT/NAME, or nothing for SQLite in the data folder"
        )
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.strip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
    }
