from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from matplotlib.figure import Figure

from millie.outputs.figure_files import pdf_bytes, svg_uri, write_figures
from millie.outputs.figures import (
    BinPoint,
    calibration_figure,
    confusion_figure,
    decision_figure,
    histogram_figure,
    intervals_figure,
    lines_figure,
    patients_figure,
    precision_recall_figure,
    prevalence_figure,
    roc_figure,
    roc_lines_figure,
    scatter_figure,
)
from millie.statistics.curves import roc_band
from millie.statistics.decision_curve import decision_curve

HOSTILE = "<b>$x_{1}$ & \"'\u0000\u202e"


def svg(figure: Figure) -> str:
    uri = svg_uri(figure)
    head, _, content = uri.partition(",")
    assert head == "data:image/svg+xml;base64"
    text = base64.b64decode(content).decode()
    ElementTree.fromstring(text)  # noqa: S314 - our own drawing, to see that it is XML
    return text


def test_band_holds_the_curve_and_is_the_same_for_the_same_seed() -> None:
    rng = np.random.default_rng(1)
    positive = np.arange(60) < 25
    score = rng.normal(positive * 1.0, 1)
    bands = [roc_band(positive, score, np.random.default_rng(0), resamples=200) for _ in range(2)]
    np.testing.assert_array_equal(bands[0].low, bands[1].low)
    band = bands[0]
    height = np.interp(band.grid, band.fpr, band.tpr)
    assert ((band.low - 0.06 <= height) & (height <= band.high + 0.06)).all()
    assert (band.low <= band.high).all()
    assert (band.n_positive, band.n_negative) == (25, 35)


def test_every_figure_is_an_svg_and_equal_data_gives_equal_bytes() -> None:
    positive = np.array([True, False, True, False])
    score = np.array([0.9, 0.2, 0.4, 0.5])
    band = roc_band(positive, score, np.random.default_rng(0), resamples=20)
    points = [BinPoint(0.2, 0.0, 0.0, 0.5, 3), BinPoint(0.8, 1.0, 0.5, 1.0, 3)]
    for draw in (
        lambda: roc_figure(band, HOSTILE),
        lambda: calibration_figure(points, HOSTILE),
        lambda: patients_figure({HOSTILE: score, "b": score[:0]}, 0.5, HOSTILE, HOSTILE),
        lambda: scatter_figure(
            {HOSTILE: np.zeros((3, 2)), "b": np.ones((2, 2))}, (HOSTILE, "y"), HOSTILE
        ),
        lambda: histogram_figure(score, HOSTILE),
        lambda: roc_lines_figure({HOSTILE: (score, score), "b": (score, score)}, HOSTILE),
        lambda: precision_recall_figure(score, score, 0.5, HOSTILE),
        lambda: decision_figure(
            decision_curve(positive, score, np.random.default_rng(0), resamples=20), HOSTILE
        ),
        lambda: prevalence_figure(score, {HOSTILE: (score, score, score)}, HOSTILE),
        lambda: lines_figure({HOSTILE: (score,) * 4, "b": (score,) * 4}, (HOSTILE, "y"), HOSTILE),
        lambda: intervals_figure([(HOSTILE, 0.5, 0.4, 0.6)], 0.5, HOSTILE, HOSTILE),
        lambda: confusion_figure([[1, 2], [0, 0]], (HOSTILE, "b"), (HOSTILE, "b"), HOSTILE),
    ):
        text = svg(draw())
        assert text == svg(draw())
        assert "http" not in text.replace("http://www.w3.org", "").replace(
            "http://purl.org", ""
        ).replace("http://creativecommons.org", "").replace("https://matplotlib.org", "")


def test_names_are_drawn_as_they_are() -> None:
    text = svg(scatter_figure({"<b>$x$": np.zeros((3, 2))}, ("x", "y"), "t"))
    assert "&lt;b&gt;$x$" in text


def test_no_global_plotting_state() -> None:
    code = "import sys, millie.outputs.report; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


def test_files_are_written_once_and_again_when_the_figure_changes(tmp_path: Path) -> None:
    first = write_figures(tmp_path, {"a": histogram_figure(np.array([0.1, 0.9]), "x")})
    pdf = tmp_path / "a.pdf"
    assert pdf.read_bytes().startswith(b"%PDF")
    assert (tmp_path / "a.svg").read_bytes() == base64.b64decode(first["a"].partition(",")[2])
    stamp = pdf.stat().st_mtime_ns
    write_figures(tmp_path, {"a": histogram_figure(np.array([0.1, 0.9]), "x")})
    assert pdf.stat().st_mtime_ns == stamp
    write_figures(tmp_path, {"a": histogram_figure(np.array([0.5, 0.9]), "x")})
    assert pdf.stat().st_mtime_ns != stamp
    assert pdf_bytes(histogram_figure(np.array([0.5, 0.9]), "x")) == pdf.read_bytes()
