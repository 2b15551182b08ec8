"""What must hold on a cluster before work starts; knows no cluster software.

An address has to answer; every worker needs the same Python, millie and image libraries as this
process, since these decide the bytes of the results; and every worker has to see the folder that
results go to.
"""

from __future__ import annotations

import importlib
import os
import platform
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from millie.errors import ConfigError, MissingError, MissingFileError, MissingPackageError

ANSWER_S = 5.0
"""Seconds in which an address has to answer."""
WORKERS_S = 60.0
"""Seconds in which the workers have to be there and to answer what they are."""
POLL_S = 5.0
"""Seconds between looks at whether the cluster still has workers."""
PATIENCE_S = 300.0
"""Seconds without any worker after which a run is given up; finished units stay finished."""

_IMAGE_LIBRARIES = ("numpy", "scipy", "cv2", "PIL", "h5py")
_SEEN = "sees the folder"

Facts = Mapping[str, str]
"""What a worker says it is: ``python``, versions by import name (empty: not there), ``sees the
folder``."""


def make_probe(marker: str) -> Callable[[], dict[str, str]]:
    """Build the function that each worker runs to say what it is.

    It is nested on purpose: cluster software sends nested functions by value, so it also runs
    where millie is not installed. It may refer to the standard library only.

    Args:
        marker: file that the worker should see, or empty.
    """
    names = ("millie", *_IMAGE_LIBRARIES)

    def probe() -> dict[str, str]:
        facts = {"python": ".".join(platform.python_version_tuple()[:2])}
        for name in names:
            try:
                facts[name] = str(importlib.import_module(name).__version__)
            except ImportError:
                facts[name] = ""
        if marker:
            facts["sees the folder"] = "yes" if os.path.exists(marker) else "no"  # noqa: PTH110
        return facts

    return probe


@contextmanager
def visible_marker(folder: Path | None) -> Iterator[str]:
    """A file in the folder for as long as workers are asked whether they see it.

    Yields:
        its absolute path; empty without a folder.

    Raises:
        OSError: the folder cannot be made or written.
    """
    if folder is None:
        yield ""
        return
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".seen-", suffix=".tmp") as file:
        yield file.name


def check_workers(found: Mapping[str, Facts], folder: Path | None = None) -> None:
    """Refuse workers that would fail or give other bytes.

    Args:
        found: facts by worker's name; a fact that is left out is not checked.
        folder: where results go, for the message.

    Raises:
        MissingPackageError: workers cannot import millie.
        ConfigError: versions differ from this process's.
        MissingFileError: workers do not see the folder.
    """
    ours = make_probe("")()
    without = [name for name, facts in found.items() if not facts.get("millie", "there")]
    if without:
        raise MissingPackageError(
            f"{_several(without, found)} cannot import millie: install millie {ours['millie']} in "
            "the environment that the workers run in"
        )
    for key in ours:
        other = {name: f[key] for name, f in found.items() if f.get(key, ours[key]) != ours[key]}
        if other:
            versions = ", ".join(sorted({v or "none" for v in other.values()}))
            raise ConfigError(
                f"{_several(list(other), found)}: {key} {versions}, this process has {ours[key]}: "
                "results would differ; use one environment everywhere (pip freeze here, pip "
                "install -r there, or one container image)"
            )
    blind = [name for name, facts in found.items() if facts.get(_SEEN) == "no"]
    if blind:
        raise MissingFileError(
            f"{_several(blind, found)} cannot see {folder}: results must go to a folder that this "
            "machine and every worker share under the same path"
        )


def knock(host: str, port: int, what: str) -> None:
    """Make sure that something listens, within ``ANSWER_S``.

    Raises:
        MissingError: nothing does.
    """
    try:
        with socket.create_connection((host, port), timeout=ANSWER_S):
            return
    except OSError as error:
        raise no_answer(what, f"{host}:{port}", error) from error


def no_answer(what: str, address: str, error: object) -> MissingError:
    """The error for an address that is right in form but where no scheduler answers."""
    return MissingError(
        f"no {what} answers at {address} ({error}): is it running, is the port right, and can "
        "this machine reach it? Without --engine-address a local one is started"
    )


def no_workers(what: str, seconds: float) -> MissingError:
    """The error for a cluster on which nothing can run."""
    return MissingError(
        f"the {what} has had no worker for {seconds:g} s: start workers and run the same command "
        "again; finished work is kept"
    )


def host_and_port(address: str, what: str, example: str) -> tuple[str, int]:
    """Split ``[scheme://]host:port``; IPv6 hosts stand in brackets.

    Raises:
        ConfigError: it is not of that form.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f"address '{address}' of the {what}: expected {example}")
    return host.strip("[]"), int(port)


def _several(names: list[str], all_of_them: Mapping[str, Facts]) -> str:
    shown = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} of {len(all_of_them)} workers ({shown})"
