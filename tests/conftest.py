"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from millie.config import Config

if TYPE_CHECKING:
    from millie.synthetic import TrueCell
    from millie.synthetic.slide import SlideConfig


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of real images; the test is skipped, visibly, where it is missing."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("MILLIE_DATA", default))
    if not (root / "apl_aml").is_dir():
        pytest.skip(f"no real images at {root}; set MILLIE_DATA")
    return root


TINY = [
    "crops.size_px=32",
    "model.encoder=resnet_small",
    "model.pretrained=false",
    "model.hidden=[16]",
    "training.max_epochs=4",
    "training.ensemble=1",
    "evaluation.bootstrap=100",
    "prediction.min_cells=3",
    "prediction.min_cells_negative=5",
]
"""Settings that make every stage quick."""


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """Small crops and an untrained small network: quick, and good for nothing else."""
    return Config().with_settings(TINY)


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of a drawn cohort: normal and APL, six patients each, one field a patient."""
    from millie.synthetic import CohortConfig, FilmConfig
    from millie.synthetic.cohort import write_configured_cohort

    config = CohortConfig(
        n_per_class=6,
        seed=3,
        cells_per_patient=6,
        cells_per_field=(6, 6),
        labels=("normal", "APL"),
        film=FilmConfig(width_px=512, height_px=400),
    )
    return write_configured_cohort(tmp_path_factory.mktemp("cohort") / "films", config)


@pytest.fixture(scope="session")
def tiny_store(films: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bag store of the drawn cohort."""
    from millie import pipeline

    store = tmp_path_factory.mktemp("bags") / "store"
    pipeline.segment(pipeline.read_cohort([films]), store, tiny_config)
    return store


class DrawnSlide(NamedTuple):
    """A whole slide in a file, its settings and the leukocytes of its monolayer."""

    path: Path
    config: SlideConfig
    cells: list[TrueCell]


@pytest.fixture(scope="session")
def drawn_slide(tmp_path_factory: pytest.TempPathFactory) -> DrawnSlide:
    """A slide of 6144 x 2048 px: thick film, three columns of monolayer, feathered edge, glass."""
    pytest.importorskip("openslide", reason="needs the extra: pip install 'millie[slides]'")
    from millie.synthetic.slide import SlideConfig, write_slide

    config = SlideConfig(thick=1, monolayer=3, feathered=1, glass=1, rows=2)
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    return DrawnSlide(path, config, write_slide(path, config))
