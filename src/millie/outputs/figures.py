"""Figures of the reports, drawn without any global plotting state.

Owns colours and looks. Colours are those of Okabe and Ito (2008), told apart with any colour
vision; classes differ by marker as well. The same data gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from millie.statistics.curves import RocBand
from millie.statistics.decision_curve import DecisionCurve

Floats = NDArray[np.float64]

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
_INK, _MUTED, _GRID = "#1c2430", "#5a6472", "#dfe4ea"
_POINTS_SHOWN = 6000
_LONGEST_TEXT = 60
_PREVALENCE_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True, slots=True)
class BinPoint:
    """One bin of a calibration curve: mean probability, share of positives, its interval."""

    probability: float
    share: float
    low: float
    high: float
    n: int


def roc_figure(band: RocBand, title: str) -> Figure:
    """ROC curve with its band and the line of chance."""
    figure, axes = _square()
    axes.fill_between(band.grid, band.low, band.high, color=OKABE_ITO[5], alpha=0.3, linewidth=0)
    axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(band.fpr, band.tpr, color=OKABE_ITO[0], linewidth=2)
    axes.annotate("chance", (0.62, 0.585), color=_MUTED, rotation=45, fontsize=8)
    label(axes, "1 − specificity", "sensitivity", title)
    return figure


def precision_recall_figure(recall: Floats, precision: Floats, share: float, title: str) -> Figure:
    """Precision against recall, with the share of positives that a guess would reach."""
    figure, axes = _square()
    axes.axhline(share, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.step(recall, precision, where="post", color=OKABE_ITO[0], linewidth=2)
    axes.annotate("chance", (0.02, min(share + 0.02, 0.96)), color=_MUTED, fontsize=8)
    label(axes, "recall (sensitivity)", "precision (positive predictive value)", title)
    return figure


def decision_figure(curve: DecisionCurve, title: str) -> Figure:
    """Net benefit of the model with its band, of treating all and of treating none."""
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    plain(axes)
    x = curve.threshold
    axes.fill_between(x, curve.low, curve.high, color=OKABE_ITO[5], alpha=0.3, linewidth=0)
    axes.plot(x, curve.model, color=OKABE_ITO[0], linewidth=2, label="model")
    axes.plot(x, curve.treat_all, color=OKABE_ITO[1], linewidth=1.5, linestyle=(0, (6, 2)),
              label="act on all")  # fmt: skip
    axes.axhline(0, color=_INK, linewidth=1, label="act on none")
    top = max(float(curve.treat_all[0]), float(curve.high.max()))
    axes.set(xlim=(0, float(x[-1])), ylim=(-0.1 * top - 0.01, 1.08 * top))
    axes.legend(frameon=False, loc="upper right")
    label(axes, "threshold probability", "net benefit per patient", title)
    return figure


def prevalence_figure(
    prevalence: Floats, curves: Mapping[str, tuple[Floats, Floats, Floats]], title: str
) -> Figure:
    """Predictive values (value, low, high by name) over the prevalence, on a logarithmic axis."""
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    plain(axes)
    for place, (name, (value, low, high)) in enumerate(curves.items()):
        axes.fill_between(prevalence, low, high, color=OKABE_ITO[place], alpha=0.2, linewidth=0)
        axes.plot(prevalence, value, color=OKABE_ITO[place], linewidth=2, label=literal(name),
                  linestyle=("-", (0, (6, 2)))[place % 2])  # fmt: skip
    axes.set(xscale="log", ylim=(-0.01, 1.01))
    axes.set_xticks(list(_PREVALENCE_TICKS), [f"{share:.0%}" for share in _PREVALENCE_TICKS])
    axes.minorticks_off()
    axes.legend(frameon=False, loc="center left")
    label(axes, "prevalence", "predictive value", title)
    return figure


def lines_figure(
    curves: Mapping[str, tuple[Floats, Floats, Floats, Floats]],
    axis_names: tuple[str, str],
    title: str,
) -> Figure:
    """Curves with bars: (x, value, low, high) by name."""
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    plain(axes)
    for place, (name, (x, value, low, high)) in enumerate(curves.items()):
        bars = np.stack([np.maximum(0, value - low), np.maximum(0, high - value)])
        axes.errorbar(
            x, value, yerr=bars, color=OKABE_ITO[place % len(OKABE_ITO)], label=literal(name),
            marker=MARKERS[place % len(MARKERS)], linewidth=1.8, elinewidth=1.2, capsize=2,
        )  # fmt: skip
    if len(curves) > 1:
        axes.legend(frameon=False)
    label(axes, *axis_names, title)
    return figure


def intervals_figure(
    rows: Sequence[tuple[str, float, float, float]], reference: float, xlabel: str, title: str
) -> Figure:
    """A forest plot: name, value and ends of the interval of each row; a line at the reference."""
    figure = Figure(figsize=(6.2, 1.0 + 0.34 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    plain(axes)
    value = np.array([row[1] for row in rows])
    bars = np.array([[max(0.0, v - low), max(0.0, high - v)] for _, v, low, high in rows]).T
    axes.errorbar(value, np.arange(len(rows)), xerr=bars, fmt="o", color=OKABE_ITO[0],
                  ecolor=OKABE_ITO[5], elinewidth=2, markersize=6)  # fmt: skip
    axes.axvline(reference, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(rows)), [literal(row[0]) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    label(axes, xlabel, "", title)
    return figure


def confusion_figure(
    counts: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str], title: str
) -> Figure:
    """Counts with shares of the row; rows are the truth."""
    figure = Figure(figsize=(2.6 + 1.6 * len(columns), 1.5 + 0.8 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    table = np.asarray(counts, dtype=np.float64)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        axes.text(column, row, f"{int(table[row, column]):,}\n{share:.0%}", ha="center",
                  va="center", color=_INK, fontsize=9)  # fmt: skip
    axes.set_xticks(range(len(columns)), [literal(name[:24]) for name in columns], fontsize=8.5)
    axes.set_yticks(range(len(rows)), [literal(name[:24]) for name in rows], fontsize=8.5)
    label(axes, "", "", title)
    return figure


def roc_lines_figure(curves: Mapping[str, tuple[Floats, Floats]], title: str) -> Figure:
    """Several ROC curves (false-positive rate, sensitivity) by name."""
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
    styles = ("-", (0, (6, 2)), (0, (2, 2)), (0, (6, 2, 1, 2)))
    for place, (name, (fpr, tpr)) in enumerate(curves.items()):
        axes.plot(
            fpr, tpr, linewidth=2, label=literal(name), color=OKABE_ITO[place % len(OKABE_ITO)],
            linestyle=styles[place % len(styles)],
        )  # fmt: skip
    if len(curves) > 1:
        figure.legend(frameon=False, loc="outside lower center", fontsize=8.5)
    label(axes, "1 − specificity", "sensitivity", title)
    return figure


def calibration_figure(points: Sequence[BinPoint], title: str) -> Figure:
    """Share of positives against mean probability, with exact intervals."""
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
    label(axes, "mean predicted probability", "observed proportion", title)
    return figure


def patients_figure(
    scores: Mapping[str, Floats], threshold: float | None, xlabel: str, title: str
) -> Figure:
    """One dot a patient by diagnosis; an SVG data URI.

    Args:
        scores: for each diagnosis the probability of each of its patients.
        threshold: drawn as a line where known.
        xlabel: what the axis shows.
        title: above the figure.
    """
    figure = Figure(figsize=(7.2, 0.9 + 0.62 * len(scores)), layout="constrained")
    axes = figure.add_subplot()
    plain(axes)
    for row, values in enumerate(scores.values()):
        axes.scatter(
            values, row + _spread(values), s=26, alpha=0.75, linewidths=0.6, edgecolors="white",
            color=OKABE_ITO[row % len(OKABE_ITO)], marker=MARKERS[row % len(MARKERS)],
        )  # fmt: skip
        axes.axhline(row, color=_GRID, linewidth=0.8, zorder=0)
    if threshold is not None:
        axes.axvline(threshold, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(
        range(len(scores)), [f"{literal(k[:24])} (n = {len(v)})" for k, v in scores.items()]
    )
    axes.set(xlim=(-0.02, 1.02), ylim=(len(scores) - 0.5, -0.5))
    label(axes, xlabel, "", title)
    return figure


def scatter_figure(points: Mapping[str, Floats], axis_names: tuple[str, str], title: str) -> Figure:
    """Cells in the plane of two components, coloured by class; an SVG data URI.

    Args:
        points: (n, 2) for each class. At most some thousands are drawn, evenly over the rows.
        axis_names: of the horizontal and the vertical axis.
        title: above the figure.
    """
    figure = Figure(figsize=(6.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    plain(axes)
    total = sum(len(p) for p in points.values())
    stride = max(1, -(-total // _POINTS_SHOWN))
    for place, (name, xy) in enumerate(points.items()):
        shown = xy[::stride]
        axes.scatter(
            shown[:, 0], shown[:, 1], s=14, alpha=0.55, linewidths=0, label=literal(name),
            color=OKABE_ITO[place % len(OKABE_ITO)], marker=MARKERS[place % len(MARKERS)],
            rasterized=True,
        )  # fmt: skip
    legend = axes.legend(
        frameon=False, loc="upper left", bbox_to_anchor=(1, 1), markerscale=1.6, handletextpad=0.3
    )
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    label(axes, *axis_names, title)
    return figure


def histogram_figure(values: Floats, xlabel: str) -> Figure:
    """How many cells have which score between 0 and 1; a small figure.

    Its colour is that of evidence for the class.
    """
    figure = Figure(figsize=(4.2, 1.7), layout="constrained")
    axes = figure.add_subplot()
    plain(axes)
    axes.hist(
        values, bins=list(np.linspace(0, 1, 21)), color=OKABE_ITO[1], edgecolor="white",
        linewidth=0.8,
    )  # fmt: skip
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    label(axes, xlabel, "cells", "")
    return figure


def rates_over_runs(
    rates: Sequence[tuple[float, float, float] | None],
    alarms: Sequence[bool],
    expected: float | None,
    title: str,
) -> Figure:
    """A small chart: share, lower and upper end for each run; runs with an alarm are triangles.

    Args:
        rates: None: a run without patients.
        alarms: of each run.
        expected: drawn as a line; None: not known.
        title: above the figure.
    """
    figure = Figure(figsize=(3.5, 2.3), layout="constrained")
    axes = figure.add_subplot()
    plain(axes)
    if expected is not None:
        axes.axhline(expected, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for flag, colour, marker in ((False, OKABE_ITO[0], "o"), (True, OKABE_ITO[1], "^")):
        shown = [(i + 1, *r) for i, r in enumerate(rates) if r and alarms[i] == flag]
        if shown:
            x, value, low, high = np.array(shown).T
            bars = np.stack([np.maximum(0, value - low), np.maximum(0, high - value)])
            axes.errorbar(x, value, yerr=bars, fmt=marker, color=colour, elinewidth=1.4,
                          markersize=7 if flag else 5)  # fmt: skip
    axes.set(ylim=(-0.03, 1.03))
    _run_axis(axes, len(rates))
    label(axes, "run", "share of patients", title)
    return figure


def values_over_runs(values: Sequence[Floats], ylabel: str) -> Figure:
    """One dot a patient for each run, with the run's median as a bar."""
    figure = Figure(figsize=(5.6, 2.8), layout="constrained")
    axes = figure.add_subplot()
    plain(axes)
    for place, own in enumerate(values, start=1):
        if len(own):
            axes.scatter(place + _spread(own), own, s=18, alpha=0.6, linewidths=0,
                         color=OKABE_ITO[0])  # fmt: skip
            axes.plot([place - 0.35, place + 0.35], [float(np.median(own))] * 2, color=_INK,
                      linewidth=1.8)  # fmt: skip
    _run_axis(axes, len(values))
    label(axes, "run", ylabel, "")
    return figure


def evidence_figure(evidence: Floats, ends: Sequence[int], limit: float) -> Figure:
    """A test martingale over patients, on a logarithmic axis; the limit and the ends of runs."""
    figure = Figure(figsize=(5.6, 2.8), layout="constrained")
    axes = figure.add_subplot()
    plain(axes)
    axes.axhline(limit, color=OKABE_ITO[1], linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate("alarm", (1, limit), color=OKABE_ITO[1], fontsize=8, va="bottom")
    axes.vlines(np.asarray(ends[:-1]) + 0.5, 0, 1, transform=axes.get_xaxis_transform(),
                color=_GRID, linewidth=1, zorder=0)  # fmt: skip
    axes.step(np.arange(1, len(evidence) + 1), evidence, where="mid", color=OKABE_ITO[0],
              linewidth=1.8)  # fmt: skip
    low, high = float(evidence.min()), max(limit, float(evidence.max()))
    axes.set(yscale="log", ylim=(min(0.5, low) / 1.5, high * 3))
    _run_axis(axes, len(evidence))
    label(axes, "patients, in the order of time", "evidence of change", "")
    return figure


def _run_axis(axes: Axes, n: int) -> None:
    axes.set_xlim(0.4, n + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))


def _square() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    plain(axes)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.grid(color=_GRID, linewidth=0.7)
    return figure, axes


def plain(axes: Axes) -> None:
    """Thin, quiet axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_MUTED)
    axes.tick_params(colors=_INK, labelsize=8.5, color=_MUTED)
    axes.set_axisbelow(True)


def label(axes: Axes, x: str, y: str, title: str) -> None:
    """Names of both axes and the title, each as it is written."""
    axes.set_xlabel(literal(x), color=_INK)
    axes.set_ylabel(literal(y), color=_INK)
    axes.set_title(literal(title), color=_INK, loc="left", fontsize=10.5, fontweight="bold")


def literal(text: str) -> str:
    """Text that matplotlib draws as it is: no formulas, nothing that XML refuses, not too long."""
    shown = "".join(
        c if c.isprintable() or c == "\N{NO-BREAK SPACE}" else "\N{REPLACEMENT CHARACTER}"
        for c in text
    )
    if len(shown) > _LONGEST_TEXT:
        shown = shown[: _LONGEST_TEXT - 1] + "…"
    return shown.replace("$", r"\$")


def _spread(values: Floats) -> Floats:
    """Vertical places around 0 that keep near dots apart: a fixed pattern, nothing random."""
    pattern = np.array([0.0, 0.16, -0.16, 0.28, -0.28, 0.08, -0.08])
    places = np.empty(len(values))
    places[np.argsort(values, kind="stable")] = pattern[np.arange(len(values)) % len(pattern)]
    return places
