"""Figures of the reports as SVG, drawn without any global plotting state.

Owns colours and looks. Colours are those of Okabe and Ito (2008), told apart with any colour
vision; classes differ by marker as well. The same data gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from millie.outputs.curves import RocBand
from millie.outputs.gallery import data_uri

Floats = NDArray[np.float64]

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "^", "s", "D", "v", "P", "X")
_INK, _MUTED, _GRID = "#1c2430", "#5a6472", "#dfe4ea"
_POINTS_SHOWN = 6000
_LONGEST_TEXT = 60
_SVG: dict[Any, Any] = {"svg.hashsalt": "millie", "svg.fonttype": "none"}


@dataclass(frozen=True, slots=True)
class BinPoint:
    """One bin of a calibration curve: mean probability, share of positives, its interval."""

    probability: float
    share: float
    low: float
    high: float
    n: int


def roc_figure(band: RocBand, title: str) -> str:
    """ROC curve with its band and the line of chance; an SVG data URI."""
    figure, axes = _square()
    axes.fill_between(band.grid, band.low, band.high, color=OKABE_ITO[5], alpha=0.3, linewidth=0)
    axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(band.fpr, band.tpr, color=OKABE_ITO[0], linewidth=2)
    axes.annotate("chance", (0.62, 0.585), color=_MUTED, rotation=45, fontsize=8)
    _label(axes, "1 − specificity", "sensitivity", title)
    return _uri(figure)


def roc_lines_figure(curves: Mapping[str, tuple[Floats, Floats]], title: str) -> str:
    """Several ROC curves (false-positive rate, sensitivity) by name; an SVG data URI."""
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
    styles = ("-", (0, (6, 2)), (0, (2, 2)), (0, (6, 2, 1, 2)))
    for place, (name, (fpr, tpr)) in enumerate(curves.items()):
        axes.plot(
            fpr, tpr, linewidth=2, label=_literal(name), color=OKABE_ITO[place % len(OKABE_ITO)],
            linestyle=styles[place % len(styles)],
        )  # fmt: skip
    if len(curves) > 1:
        axes.legend(frameon=False, loc="lower right")
    _label(axes, "1 − specificity", "sensitivity", title)
    return _uri(figure)


def calibration_figure(points: Sequence[BinPoint], title: str) -> str:
    """Share of positives against mean probability, with exact intervals; an SVG data URI."""
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
    x = np.array([p.probability for p in points])
    y = np.array([p.share for p in points])
    below = np.maximum(0, y - [p.low for p in points])
    above = np.maximum(0, [p.high for p in points] - y)
    axes.errorbar(
        x, y, yerr=np.stack([below, above]), fmt="o", color=OKABE_ITO[0], ecolor=OKABE_ITO[5],
        elinewidth=2, markersize=6, capsize=0,
    )  # fmt: skip
    _label(axes, "mean predicted probability", "share of patients", title)
    return _uri(figure)


def patients_figure(
    scores: Mapping[str, Floats], threshold: float | None, xlabel: str, title: str
) -> str:
    """One dot a patient by diagnosis; an SVG data URI.

    Args:
        scores: for each diagnosis the probability of each of its patients.
        threshold: drawn as a line where known.
        xlabel: what the axis shows.
        title: above the figure.
    """
    figure = Figure(figsize=(7.2, 0.9 + 0.62 * len(scores)), layout="constrained")
    axes = figure.add_subplot()
    _plain(axes)
    for row, values in enumerate(scores.values()):
        axes.scatter(
            values, row + _spread(values), s=26, alpha=0.75, linewidths=0.6, edgecolors="white",
            color=OKABE_ITO[row % len(OKABE_ITO)], marker=_MARKERS[row % len(_MARKERS)],
        )  # fmt: skip
        axes.axhline(row, color=_GRID, linewidth=0.8, zorder=0)
    if threshold is not None:
        axes.axvline(threshold, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(
        range(len(scores)), [f"{_literal(k[:24])} (n = {len(v)})" for k, v in scores.items()]
    )
    axes.set(xlim=(-0.02, 1.02), ylim=(len(scores) - 0.5, -0.5))
    _label(axes, xlabel, "", title)
    return _uri(figure)


def scatter_figure(points: Mapping[str, Floats], axis_names: tuple[str, str], title: str) -> str:
    """Cells in the plane of two components, coloured by class; an SVG data URI.

    Args:
        points: (n, 2) for each class. At most some thousands are drawn, evenly over the rows.
        axis_names: of the horizontal and the vertical axis.
        title: above the figure.
    """
    figure = Figure(figsize=(6.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    _plain(axes)
    total = sum(len(p) for p in points.values())
    stride = max(1, -(-total // _POINTS_SHOWN))
    for place, (name, xy) in enumerate(points.items()):
        shown = xy[::stride]
        axes.scatter(
            shown[:, 0], shown[:, 1], s=14, alpha=0.55, linewidths=0, label=_literal(name),
            color=OKABE_ITO[place % len(OKABE_ITO)], marker=_MARKERS[place % len(_MARKERS)],
            rasterized=True,
        )  # fmt: skip
    legend = axes.legend(
        frameon=False, loc="upper left", bbox_to_anchor=(1, 1), markerscale=1.6, handletextpad=0.3
    )
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    _label(axes, *axis_names, title)
    return _uri(figure)


def histogram_figure(values: Floats, xlabel: str) -> str:
    """How many cells have which score between 0 and 1; a small SVG data URI."""
    figure = Figure(figsize=(4.2, 1.7), layout="constrained")
    axes = figure.add_subplot()
    _plain(axes)
    axes.hist(
        values, bins=list(np.linspace(0, 1, 21)), color=OKABE_ITO[0], edgecolor="white",
        linewidth=0.8,
    )  # fmt: skip
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    _label(axes, xlabel, "cells", "")
    return _uri(figure)


def _square() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    _plain(axes)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.grid(color=_GRID, linewidth=0.7)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_MUTED)
    axes.tick_params(colors=_INK, labelsize=8.5, color=_MUTED)
    axes.set_axisbelow(True)


def _label(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set_xlabel(_literal(x), color=_INK)
    axes.set_ylabel(_literal(y), color=_INK)
    axes.set_title(_literal(title), color=_INK, loc="left", fontsize=10.5, fontweight="bold")


def _literal(text: str) -> str:
    """Text that matplotlib draws as it is: no formulas, nothing that XML refuses, not too long."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    if len(shown) > _LONGEST_TEXT:
        shown = shown[: _LONGEST_TEXT - 1] + "…"
    return shown.replace("$", r"\$")


def _spread(values: Floats) -> Floats:
    """Vertical places around 0 that keep near dots apart: a fixed pattern, nothing random."""
    pattern = np.array([0.0, 0.16, -0.16, 0.28, -0.28, 0.08, -0.08])
    places = np.empty(len(values))
    places[np.argsort(values, kind="stable")] = pattern[np.arange(len(values)) % len(pattern)]
    return places


def _uri(figure: Figure) -> str:
    stream = io.BytesIO()
    with mpl.rc_context(_SVG):
        figure.savefig(stream, format="svg", metadata={"Date": None}, dpi=200)
    return data_uri(stream.getvalue(), "image/svg+xml")
