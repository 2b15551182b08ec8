"""``millie.plots``: figures of what the commands wrote."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from millie import pipeline, plots
from millie.config import Config
from millie.errors import ConfigError, MissingFileError


@pytest.fixture(scope="module")
def calls(
    films: Path, tiny_store: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A prediction run of the drawn cohort."""
    folder = tmp_path_factory.mktemp("plots")
    model = pipeline.train(tiny_store, folder / "model", tiny_config)
    return pipeline.predict(model.out, films, folder / "calls").out


@pytest.fixture(scope="module")
def study(tiny_store: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-validation of the drawn cohort."""
    return pipeline.crossval(
        tiny_store, tmp_path_factory.mktemp("plots") / "study", tiny_config
    ).out


def _pixels(figure: Figure) -> int:
    """How many colours the drawn figure has: a blank one has one."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=50)
    with Image.open(stream) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    return len(np.unique(pixels, axis=0))


def _words(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def test_the_gallery_shows_the_marks_and_scores_of_the_report(calls: Path) -> None:
    figure = plots.gallery(calls, "P001", n=3)
    titles = _words(figure)
    assert 1 <= len(titles) <= 3
    assert titles[0].split()[0] == "1", "the strongest cell comes first"
    assert all(re.fullmatch(r"[\dA-Z ]+ {3}[01]\.\d\d", title) for title in titles)
    assert _pixels(figure) > 100


def test_the_gallery_of_the_other_side_has_letters(calls: Path) -> None:
    figure = plots.gallery(calls, "P001", against=True)
    assert "A" in _words(figure)[0]


def test_an_overlay_is_the_field_with_its_boxes(calls: Path) -> None:
    figure = plots.overlay(calls, "P001")
    (image,) = figure.axes[0].get_images()
    assert image.get_array().shape == (400, 512, 3)
    assert _pixels(figure) > 1000


def test_a_field_that_is_not_there(calls: Path) -> None:
    with pytest.raises(ConfigError, match="field 7; expected 0 to 0"):
        plots.overlay(calls, "P001", field=7)


def test_a_patient_that_is_not_there(calls: Path) -> None:
    with pytest.raises(ConfigError, match=r"no result of patient 'nobody'.*P001, P002"):
        plots.gallery(calls, "nobody")


def test_the_roc_has_a_band_and_its_figure(study: Path) -> None:
    figure = plots.roc(study)
    axes = figure.axes[0]
    assert "AUC" in axes.get_title(loc="left")
    assert axes.collections, "the band"


def test_the_map_has_a_point_a_cell(study: Path) -> None:
    figure = plots.embedding_map(study)
    n = len((study / "pca.csv").read_text(encoding="utf-8-sig").splitlines()) - 1
    drawn = sum(len(part.get_offsets()) for part in figure.axes[0].collections)
    assert drawn == n


def test_a_map_by_type_needs_types(study: Path) -> None:
    with pytest.raises(ConfigError, match="no cell with a type"):
        plots.embedding_map(study, by="type")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="finished run"):
        plots.roc(tmp_path / "none")
