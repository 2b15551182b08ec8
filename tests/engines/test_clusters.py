"""Clusters that cannot be used are refused before work starts; lost ones end the run in words."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from millie.engines import checks
from millie.engines.seam import Unit
from millie.engines.table import open_engine
from millie.errors import ConfigError, MissingError, MissingFileError, MissingPackageError


@pytest.fixture
def distributed() -> ModuleType:
    return pytest.importorskip("distributed", reason="extra dask is not installed")


@pytest.fixture
def ray() -> ModuleType:
    return pytest.importorskip("ray", reason="extra ray is not installed")


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """Something listens here, and is not what one thinks it is."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def other_millie(tmp_path: Path) -> Callable[[str], str]:
    """Environment variable that puts another millie, or a broken one, before the real one."""

    def make(code: str) -> str:
        folder = tmp_path / f"other{len(list(tmp_path.iterdir()))}"
        (folder / "millie").mkdir(parents=True)
        (folder / "millie" / "__init__.py").write_text(code, encoding="utf-8")
        return str(folder)

    return make


def slow(number: int) -> dict[str, Any]:
    time.sleep(number)
    return {}


@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_an_address_that_does_not_answer_is_refused(
    engine: str, closed_port: int, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("distributed" if engine == "dask" else "ray")
    started = time.monotonic()
    expected = rf"answers at 127\.0\.0\.1:{closed_port}.*Without --engine-address"
    with pytest.raises(MissingError, match=expected):
        _open(engine, f"127.0.0.1:{closed_port}")
    assert time.monotonic() - started < 2 * checks.ANSWER_S


@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_an_address_where_something_else_listens_is_refused(
    engine: str, deaf_port: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.getfixturevalue("distributed" if engine == "dask" else "ray")
    if engine == "ray":
        monkeypatch.setattr("millie.engines.ray._HEALTH_S", 3.0)
    with pytest.raises(MissingError, match="is it running, is the port right"):
        _open(engine, f"127.0.0.1:{deaf_port}")


@pytest.mark.parametrize(
    ("engine", "address", "expected"),
    [
        ("dask", "node7", "address 'node7' of the Dask scheduler: expected tcp://host:8786"),
        ("ray", "node7", "address 'node7' of the Ray cluster: expected host:6379"),
        ("ray", "ray://node7:10001", "Ray Client drops runs.*ray job submit"),
    ],
)
def test_an_address_of_another_form_is_refused(
    engine: str, address: str, expected: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("distributed" if engine == "dask" else "ray")
    with pytest.raises(ConfigError, match=expected):
        _open(engine, address)


def test_an_unknown_protocol_is_refused(distributed: ModuleType, deaf_port: int) -> None:
    with pytest.raises(ConfigError, match="unknown address scheme 'gopher'"):
        _open("dask", f"gopher://127.0.0.1:{deaf_port}")


def test_a_scheduler_file_names_the_address(distributed: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "scheduler.json"
    with pytest.raises(MissingFileError, match=r"scheduler\.json does not exist"):
        _open("dask", str(path))
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="names no Dask scheduler"):
        _open("dask", str(path))
    with _scheduler(distributed, workers=1) as cluster:
        path.write_text(json.dumps({"address": cluster.scheduler_address}), encoding="utf-8")
        with open_engine("dask", str(path), shared=tmp_path / "store") as engine:
            assert [o.status for o in engine.map(slow, [Unit("a", 0)])] == ["done"]


def test_a_dask_cluster_without_workers_is_refused(
    distributed: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millie.engines.dask.WORKERS_S", 0.5)
    with (
        _scheduler(distributed) as cluster,
        pytest.raises(MissingError, match=r"has had no worker for 0\.5 s: start workers"),
    ):
        _open("dask", cluster.scheduler_address)


def test_dask_workers_without_the_package_or_with_another_are_refused(
    distributed: ModuleType, other_millie: Callable[[str], str]
) -> None:
    absent = other_millie("raise ImportError('no millie here')")
    with _scheduler(distributed) as cluster:
        address = cluster.scheduler_address
        with (
            _dask_worker(distributed, address, absent),
            pytest.raises(MissingPackageError, match=r"1 of 1 workers \(tcp.*cannot import millie"),
        ):
            _open("dask", address)
        with (
            _dask_worker(distributed, address, other_millie("__version__ = '0.0.9'")),
            pytest.raises(ConfigError, match=r"1 of 1 workers \(tcp.*millie 0\.0\.9, this process"),
        ):
            _open("dask", address)


def test_ray_workers_with_another_version_are_refused(
    ray: ModuleType, other_millie: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", other_millie("__version__ = '0.0.9'"))
    with pytest.raises(ConfigError, match=r"1 of 1 workers \(node .*millie 0\.0\.9, this process"):
        _open("ray", None, workers=1)
    assert not ray.is_initialized()


def test_a_dask_run_without_workers_ends_in_words(distributed: ModuleType) -> None:
    from millie.engines.dask import DaskEngine  # noqa: PLC0415 - an extra

    with (
        _scheduler(distributed) as cluster,
        distributed.Client(cluster.scheduler_address, set_as_default=False) as client,
    ):
        outcomes = DaskEngine(client, patience_s=0.5).map(slow, [Unit("a", 0)])
        with pytest.raises(MissingError, match=r"no worker for 0\.5 s: .*finished work is kept"):
            next(outcomes)


def test_a_dask_run_whose_scheduler_goes_ends_in_words(distributed: ModuleType) -> None:
    with (
        _scheduler(distributed, workers=1) as cluster,
        open_engine("dask", cluster.scheduler_address) as engine,
    ):
        outcomes = engine.map(slow, [Unit("a", 0), Unit("b", 5)])
        assert next(outcomes).status == "done"
        cluster.close()
        with pytest.raises(MissingError, match="Dask scheduler is gone"):
            next(outcomes)


def _scheduler(distributed: ModuleType, workers: int = 0) -> Any:
    """A scheduler that listens, with workers that are threads here."""
    return distributed.LocalCluster(
        n_workers=workers, processes=False, protocol="tcp", dashboard_address=None
    )


def _open(engine: str, address: str | None, workers: int | None = None) -> None:
    with open_engine(engine, address, workers):
        pass


@contextmanager
def _dask_worker(distributed: ModuleType, address: str, path: str) -> Iterator[None]:
    """One worker started like on another machine, with a search path of its own."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address]
    command += ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--death-timeout", "30"]
    process = subprocess.Popen(  # noqa: S603
        command,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with distributed.Client(address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
            yield
            process.kill()
            process.wait()
            while client.nthreads():
                time.sleep(0.05)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
