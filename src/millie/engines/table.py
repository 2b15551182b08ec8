"""The engines by name, and the one way to open them: ``with open_engine(...) as engine``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from millie.engines.seam import Engine, ProcessEngine, SerialEngine
from millie.errors import ConfigError, MissingPackageError

ENGINES = {
    "serial": "one patient after the other in this process",
    "process": "worker processes on this machine",
    "dask": "workers of a Dask cluster, or a local one (extra dask)",
    "ray": "workers of a Ray cluster, or a local one (extra ray)",
}
"""What each name stands for."""

_ADAPTERS = {"dask": ("dask", "distributed"), "ray": ("ray",)}
"""Packages without which an adapter cannot be loaded."""


class _Adapter(Protocol):
    def open_cluster(
        self, address: str | None, workers: int | None, shared: Path | None
    ) -> AbstractContextManager[Engine]: ...


@contextmanager
def open_engine(
    name: str = "process",
    address: str | None = None,
    workers: int | None = None,
    shared: Path | None = None,
    ready: str = "",
) -> Iterator[Engine]:
    """Open an engine, checked and ready; closed at the end of the block.

    Args:
        name: a key of ``ENGINES``.
        address: of an existing cluster (dask, ray); None: this machine.
        workers: processes on this machine; None: one a core.
        shared: folder of the results, which every worker of a cluster has to see.
        ready: as for :class:`~millie.engines.seam.ProcessEngine`; other engines pass over it.

    Raises:
        ConfigError: an unknown name, an argument that the engine has no use for, an address of
            the wrong form, or workers with other versions than this process.
        MissingPackageError: the extra is not installed here, or millie not on the workers.
        MissingError: nothing answers at the address, it has no workers, or they do not see the
            folder.
    """
    _check_arguments(name, address, workers)
    if name == "serial":
        yield SerialEngine()
    elif name == "process":
        with closing(ProcessEngine(workers, ready)) as processes:
            yield processes
    else:
        with _adapter(name).open_cluster(address, workers, shared) as engine:
            yield engine


def _check_arguments(name: str, address: str | None, workers: int | None) -> None:
    if name not in ENGINES:
        raise ConfigError(f"unknown engine '{name}'; known: {', '.join(ENGINES)}")
    if address is not None and name not in _ADAPTERS:
        raise ConfigError(
            f"the {name} engine runs on this machine and takes no address; expected one of "
            f"{', '.join(_ADAPTERS)} with --engine-address {address}"
        )
    if workers is not None and workers < 1:
        raise ConfigError(f"workers={workers}: expected at least 1")
    if workers is not None and (name == "serial" or address is not None):
        reason = "runs in this process" if name == "serial" else "brings its own workers"
        raise ConfigError(f"workers={workers}: the {name} engine {reason}; leave --workers out")


def _adapter(name: str) -> _Adapter:
    try:
        return cast("_Adapter", import_module(f"millie.engines.{name}"))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _ADAPTERS[name]:
            raise
        raise MissingPackageError(
            f"the {name} engine needs a package that is not installed ({error.name}): "
            f"pip install 'millie[{name}]'"
        ) from error
