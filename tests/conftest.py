"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of real images; the test is skipped, visibly, where it is missing."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("MILLIE_DATA", default))
    if not (root / "apl_aml").is_dir():
        pytest.skip(f"no real images at {root}; set MILLIE_DATA")
    return root
