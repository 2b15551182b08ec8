"""A trained model and two patients of one field each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from millie import pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from millie.config import Config


@pytest.fixture(scope="session")
def bundle(tiny_store: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipeline.train(tiny_store, tmp_path_factory.mktemp("model") / "tiny", tiny_config).out


@pytest.fixture
def two_folders(films: Path, tmp_path: Path) -> list[Path]:
    """Folders ``a`` and ``b`` with one field each."""
    patients = pipeline.read_cohort([films]).patients[:2]
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, patient in zip(folders, patients, strict=True):
        folder.mkdir()
        (folder / "field.jpg").write_bytes(patient.images[0].path.read_bytes())
    return folders
