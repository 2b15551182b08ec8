"""Engines with workers that can import the test modules."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from millie.engines.seam import Engine
from millie.engines.table import ENGINES, open_engine

ROOT = Path(__file__).parents[2]
PACKAGE = {"dask": "distributed", "ray": "ray"}


@pytest.fixture(scope="package", autouse=True)
def importable_by_workers() -> Iterator[None]:
    """Spawned workers inherit the path, others the environment; modules go by their full name."""
    known = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT), *sys.path])
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *known]))
        yield


@pytest.fixture(params=list(ENGINES), scope="module")
def engine(request: pytest.FixtureRequest, importable_by_workers: None) -> Iterator[Engine]:
    """Each engine, open, with two workers; skipped, visibly, where its extra is missing."""
    name = request.param
    if name in PACKAGE:
        pytest.importorskip(PACKAGE[name], reason=f"extra {name} is not installed")
    with open_engine(name, workers=None if name == "serial" else 2) as opened:
        yield opened
