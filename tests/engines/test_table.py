from __future__ import annotations

import sys

import pytest

from millie.engines.seam import ProcessEngine, SerialEngine
from millie.engines.table import ENGINES, open_engine
from millie.errors import ConfigError, MissingPackageError


def test_the_local_engines_need_nothing() -> None:
    assert list(ENGINES) == ["serial", "process", "dask", "ray"]
    with open_engine("serial") as engine:
        assert isinstance(engine, SerialEngine)
    with open_engine(workers=3) as engine:
        assert isinstance(engine, ProcessEngine)
        assert engine.workers == 3


@pytest.mark.parametrize(
    ("name", "address", "workers", "expected"),
    [
        ("slurm", None, None, "unknown engine 'slurm'; known: serial, process, dask, ray"),
        ("process", "node7:8786", None, "takes no address; expected one of dask, ray"),
        ("serial", "node7:8786", None, "takes no address"),
        ("serial", None, 2, "runs in this process; leave --workers out"),
        ("process", None, 0, "workers=0: expected at least 1"),
        ("dask", "node7:8786", 2, "brings its own workers; leave --workers out"),
        ("ray", "node7:6379", 2, "brings its own workers; leave --workers out"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    name: str, address: str | None, workers: int | None, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected), open_engine(name, address, workers):
        pass


@pytest.mark.parametrize(("name", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_extra_is_named(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"millie.engines.{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    # Where the extra is not installed at all, the first of its packages is the one that is missed.
    missed = rf"\(({package}|{name})\)"
    expected = rf"needs a package that is not installed {missed}: pip install 'millie\[{name}"
    with pytest.raises(MissingPackageError, match=expected), open_engine(name):
        pass
