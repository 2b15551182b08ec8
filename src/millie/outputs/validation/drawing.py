"""Figures of the validation report, in the looks of :mod:`millie.outputs.figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from millie.outputs.figures import MARKERS, OKABE_ITO, label, literal, plain
from millie.statistics.method_comparison import Differences, Line

Floats = NDArray[np.float64]
_GREY, _DARK = "#5a6472", "#1c2430"
_DASHED = (0, (4, 3))


def replicates_figure(
    values: Mapping[str, Sequence[tuple[str, float]]], threshold: float | None, xlabel: str
) -> Figure:
    """A row a patient, a dot an examination; days differ by marker and colour."""
    figure, axes = _axes(6.2, 1.1 + 0.34 * len(values))
    days = list(dict.fromkeys(day for own in values.values() for day, _ in own))
    for place, day in enumerate(days):
        points = [(x, row) for row, own in enumerate(values.values()) for d, x in own if d == day]
        if points:
            x, y = np.array(points).T
            axes.scatter(x, y + 0.1 * (place % 5 - 2), s=22, alpha=0.8, linewidths=0,
                         color=OKABE_ITO[place % len(OKABE_ITO)],
                         marker=MARKERS[place % len(MARKERS)])  # fmt: skip
    if threshold is not None:
        axes.axvline(threshold, color=_DARK, linewidth=1, linestyle=_DASHED)
    axes.set_yticks(range(len(values)), [literal(name[:24]) for name in values])
    axes.set_ylim(len(values) - 0.5, -0.5)
    label(axes, xlabel, "", "")
    return figure


def regression_figure(reference: Floats, new: Floats, line: Line | None, unit: str) -> Figure:
    """Both methods, the line of equality and the Passing-Bablok line."""
    figure, axes = _axes(4.4, 3.8)
    top = float(max(reference.max(), new.max())) * 1.05 + 1e-9
    axes.plot([0, top], [0, top], color=_GREY, linewidth=1, linestyle=_DASHED)
    axes.scatter(reference, new, s=22, alpha=0.75, linewidths=0, color=OKABE_ITO[0])
    if line is not None:
        ends = np.array([float(reference.min()), float(reference.max())])
        axes.plot(ends, line.intercept.value + line.slope.value * ends, color=OKABE_ITO[1],
                  linewidth=1.8)  # fmt: skip
    label(axes, f"reference, {unit}", f"millie, {unit}", "Passing-Bablok")
    return figure


def differences_figure(
    reference: Floats, new: Floats, found: Differences | None, unit: str
) -> Figure:
    """Differences over means, with the bias and the limits of agreement and their intervals."""
    figure, axes = _axes(4.4, 3.8)
    axes.scatter((reference + new) / 2, new - reference, s=22, alpha=0.75, linewidths=0,
                 color=OKABE_ITO[0])  # fmt: skip
    axes.axhline(0, color=_GREY, linewidth=1, linestyle=_DASHED)
    for one in (found.bias, found.lower, found.upper) if found else ():
        axes.axhspan(one.low, one.high, color=OKABE_ITO[5], alpha=0.2, linewidth=0)
        axes.axhline(one.value, color=OKABE_ITO[1], linewidth=1.4)
    label(axes, f"mean of both, {unit}", f"millie − reference, {unit}", "Bland-Altman")
    return figure


def shares_figure(
    x: Sequence[float], rows: Mapping[str, Sequence[tuple[float, float, float] | None]],
    xlabel: str, ylabel: str, wanted: float | None = None, *, logarithmic: bool = False,
) -> Figure:  # fmt: skip
    """Shares with their intervals over a number; a line at what is wanted."""
    figure, axes = _axes(5.2, 3.4)
    for place, (name, own) in enumerate(rows.items()):
        shown = [(at, *share) for at, share in zip(x, own, strict=True) if share is not None]
        if not shown:
            continue
        at, value, low, high = np.array(shown).T
        bars = np.stack([np.maximum(0, value - low), np.maximum(0, high - value)])
        axes.errorbar(at, value, yerr=bars, color=OKABE_ITO[place], marker=MARKERS[place],
                      linewidth=1.6, elinewidth=1.1, capsize=2, label=literal(name))  # fmt: skip
    if wanted is not None:
        axes.axhline(wanted, color=_GREY, linewidth=1, linestyle=_DASHED)
    if logarithmic and x:  # linear up to the smallest share, so that 0 has a place
        axes.set_xscale("symlog", linthresh=min(value for value in x if value > 0))
    axes.set_xticks(list(x), [f"{value:g}" for value in x])
    axes.minorticks_off()
    axes.set_ylim(-0.03, 1.03)
    axes.legend(frameon=False, fontsize=8.5)
    label(axes, xlabel, ylabel, "")
    return figure


def control_figure(
    values: Sequence[float], mean: float, sd: float, broken: Sequence[int], ylabel: str
) -> Figure:
    """Levey-Jennings chart: the mean, 1 to 3 standard deviations, points that break a rule."""
    figure, axes = _axes(7.2, 3.2)
    for step in (-3, -2, -1, 0, 1, 2, 3):
        colour, width = (OKABE_ITO[1], 1.2) if step in {-3, 3} else (_GREY, 0.7)
        style = "-" if step == 0 else _DASHED
        axes.axhline(mean + step * sd, color=colour, linewidth=width, linestyle=style)
    x = np.arange(1, len(values) + 1)
    axes.plot(x, values, color=OKABE_ITO[0], marker="o", markersize=4, linewidth=1)
    if broken:
        axes.scatter([i + 1 for i in broken], [values[i] for i in broken], s=70, zorder=3,
                     marker="^", color=OKABE_ITO[1])  # fmt: skip
    axes.set_xlim(0.4, len(values) + 0.6)
    label(axes, "examination", ylabel, "")
    return figure


def times_figure(minutes: Floats, limits: Mapping[str, float]) -> Figure:
    """Share of patients that had their call by then."""
    figure, axes = _axes(5.2, 3.0)
    ordered = np.sort(minutes)
    axes.step(ordered, np.arange(1, len(ordered) + 1) / len(ordered), where="post",
              color=OKABE_ITO[0], linewidth=1.8)  # fmt: skip
    for name, at in limits.items():
        axes.axvline(at, color=_GREY, linewidth=1, linestyle=_DASHED)
        axes.annotate(name, (at, 0.02), rotation=90, fontsize=8, color=_GREY)
    axes.set_ylim(0, 1.02)
    label(axes, "minutes", "share of patients", "")
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    plain(axes)
    return figure, axes
