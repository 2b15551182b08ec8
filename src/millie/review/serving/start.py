"""What must be in order before the first request: address, data folder, database, model.

Each thing that is wrong ends in one message that says what to do.
"""

from __future__ import annotations

import ipaddress
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from millie.errors import ConfigError
from millie.models.bundle_folder import DEFAULT_MODEL, locate, read_settings
from millie.review.data_folder import DataFolder, database_settings


@dataclass(frozen=True, slots=True)
class Service:
    """What ``millie serve`` was asked for.

    Attributes:
        data: folder of all data.
        database: PostgreSQL URL; empty: SQLite in the folder.
        host: address to listen at.
        port: to listen at; 0: any that is free.
        bundle: name or folder of the model.
        watch: folder that is watched; None: none.
        proxy: address of a proxy that speaks TLS with browsers; empty: there is none.
        names: host names that browsers use, beside this machine's own address.
        demo: fill the worklist with drawn samples.
    """

    data: Path
    database: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    bundle: str = DEFAULT_MODEL
    watch: Path | None = None
    proxy: str = ""
    names: tuple[str, ...] = ()
    demo: bool = False

    @property
    def is_local(self) -> bool:
        """Whether only this machine itself can reach it."""
        if self.host == "localhost":
            return True
        with suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return False

    def environment(self) -> dict[str, str]:
        """Variables that :mod:`millie.review.settings` reads."""
        folder = Path(self.bundle)
        bundle = str(folder.resolve()) if os.sep in self.bundle else self.bundle
        return {
            "DJANGO_SETTINGS_MODULE": "millie.review.settings",
            "MILLIE_REVIEW_DATA": str(self.data.resolve()),
            "MILLIE_REVIEW_DATABASE": self.database,
            "MILLIE_REVIEW_HOSTS": ",".join(self.names),
            "MILLIE_REVIEW_HTTPS": "1" if self.proxy else "0",
            "MILLIE_REVIEW_BUNDLE": bundle,
        }


def check(service: Service) -> None:
    """Check all that can be known before the database is opened.

    Raises:
        ConfigError: an address that others reach, without a proxy that speaks TLS; a folder that
            cannot be written or watched; a database URL of another kind.
        MissingFileError, BundleError: the model is not there, or not what was published.
    """
    _check_address(service)
    _check_folder(service.data)
    database_settings(service.database, DataFolder(service.data))
    if service.watch is not None:
        _check_watch(service.watch, service.data)
    read_settings(locate(service.bundle))


def _check_address(service: Service) -> None:
    if service.demo and not service.is_local:
        raise ConfigError("--demo shows a user's password: it runs on 127.0.0.1 alone")
    if service.proxy:
        try:
            ipaddress.ip_address(service.proxy)
        except ValueError as error:
            raise ConfigError(
                f"--behind-proxy {service.proxy}: expected the proxy's IP address"
            ) from error
        if not service.names:
            raise ConfigError(
                "--behind-proxy needs --name: the host name that browsers use, as "
                "millie.hospital.example"
            )
    elif not service.is_local:
        raise ConfigError(
            f"--host {service.host} is reached from other machines, and passwords must not cross a "
            "network without TLS: put a proxy that speaks TLS in front and give its address with "
            "--behind-proxy (docs/review.md has an example), or listen at 127.0.0.1"
        )


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"--data {folder} cannot be written ({error.strerror}): name a folder of your own on a "
            "disk with free space"
        ) from error


def _check_watch(watch: Path, data: Path) -> None:
    if not watch.is_dir():
        raise ConfigError(f"--watch {watch}: no such folder; make it first")
    if watch.resolve().is_relative_to(data.resolve()):
        raise ConfigError(f"--watch {watch} lies in the data folder: name a folder outside it")
    if not os.access(watch, os.R_OK | os.X_OK):
        raise ConfigError(f"--watch {watch} cannot be read: check its permissions")
