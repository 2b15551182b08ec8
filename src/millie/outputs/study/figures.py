"""The figures of a study, drawn once for its page and its manuscript.

Owns which figures there are and what each is called; how they look is
:mod:`millie.outputs.figures`, in which files they end :mod:`millie.outputs.figure_files`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from millie.outputs.figures import (
    BinPoint,
    calibration_figure,
    confusion_figure,
    decision_figure,
    patients_figure,
    precision_recall_figure,
    prevalence_figure,
    roc_figure,
    roc_lines_figure,
    scatter_figure,
)
from millie.outputs.page import percent
from millie.outputs.study.records import Matrix, Study, matrix, measure_of, read_components
from millie.statistics.curves import Bools, Floats, roc_band
from millie.statistics.decision_curve import DecisionCurve, decision_curve
from millie.statistics.metrics import precision_recall
from millie.statistics.rates import Counts, PredictiveValues, predictive_values

PREVALENCES = np.geomspace(0.01, 0.5, 60)
"""From a laboratory that sees few leukaemias to a referral centre."""

_CELL_TYPES = 6
_SEED = 0


def study_figures(study: Study) -> dict[str, Figure]:
    """All figures that the study's files allow, by file name.

    ``roc``, ``precision_recall``, ``calibration``, ``decision_curve``, ``predictive_values``,
    ``patients``, ``confusion``, ``cells_roc``, ``cells_confusion``, ``pca_diagnosis``,
    ``pca_type``.
    """
    found = {"patients": _dots(study)}
    if (curve := net_benefit(study)) is not None:
        found["roc"] = roc_of(study)
        found["precision_recall"] = _precision_recall(study)
        found["decision_curve"] = decision_figure(curve, f"Decision curve, {study.positive}")
        found["predictive_values"] = _predictive(study)
    if points := calibration_points(study.metrics.get("calibration")):
        found["calibration"] = calibration_figure(points, f"Calibration, {study.positive}")
    if study.confusion is not None:
        found["confusion"] = _matrix(study.confusion, "Patients")
    return found | _cells(study) | components_of(study)


def outcomes(study: Study) -> tuple[Bools, Floats]:
    """Whether each patient has the positive class, and its mean probability."""
    positive: Bools = np.array([p.label == study.positive for p in study.patients], dtype=np.bool_)
    return positive, np.array([p.probability for p in study.patients])


def counts(study: Study) -> Counts:
    """Patients by diagnosis and call of the positive class."""
    called = np.array([p.call == study.positive for p in study.patients], dtype=np.bool_)
    return Counts.of(outcomes(study)[0], called)


def net_benefit(study: Study) -> DecisionCurve | None:
    """The decision curve; None where a class is missing."""
    positive, score = outcomes(study)
    if positive.all() or not positive.any():
        return None
    return decision_curve(positive, score, np.random.default_rng(_SEED))


def predictive(study: Study, prevalence: Floats = PREVALENCES) -> PredictiveValues:
    """Predictive values of a call of the positive class."""
    return predictive_values(counts(study), prevalence)


def calibration_points(content: object) -> list[BinPoint]:
    """Bins of the calibration curve from the metrics; empty where they have none."""
    if isinstance(content, Mapping):
        for key in ("curve", "reliability", "bins"):
            if isinstance(content.get(key), list):
                return calibration_points(content[key])
    if not isinstance(content, list):
        return []
    return [
        BinPoint(float(b["probability"]), float(b["share"]), float(b["low"]), float(b["high"]),
                 int(b["n"]))
        for b in content
        if isinstance(b, Mapping) and {"probability", "share", "low", "high", "n"} <= b.keys()
    ]  # fmt: skip


def part(study: Study, name: str) -> Mapping[str, Any]:
    """A part of the metrics; empty where there is none."""
    found = study.metrics.get(name)
    return found if isinstance(found, Mapping) else {}


def roc_of(study: Study) -> Figure:
    """The ROC curve of the positive class with its band.

    Raises:
        ConfigError: only one class.
    """
    band = roc_band(*outcomes(study), np.random.default_rng(_SEED))
    return roc_figure(band, f"{study.positive} vs the rest{_auc_words(study)}")


def _auc_words(study: Study) -> str:
    """``, AUC 0.94 (0.88 to 0.97)``, or nothing where the study has none."""
    found = measure_of("", part(study, "headline").get("auc"))
    if found is None or found.low is None or found.high is None:
        return ""
    return f", AUC {found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def _precision_recall(study: Study) -> Figure:
    positive, score = outcomes(study)
    precision, recall = precision_recall(positive, score)
    title = f"{study.positive} vs the rest"
    return precision_recall_figure(recall, precision, float(positive.mean()), title)


def _predictive(study: Study) -> Figure:
    values = predictive(study)
    curves = {
        "positive predictive value": _triple(values.positive),
        "negative predictive value": _triple(values.negative),
    }
    return prevalence_figure(values.prevalence, curves, f"Predictive values, {study.positive}")


def _triple(rows: Floats) -> tuple[Floats, Floats, Floats]:
    return rows[0], rows[1], rows[2]


def _dots(study: Study) -> Figure:
    scores = {
        name: np.array([p.probability for p in study.patients if p.label == name])
        for name in study.classes
    }
    return patients_figure(
        scores,
        study.threshold,
        f"probability of {study.positive}, mean over repeats",
        "Patients by reference diagnosis",
    )


def _matrix(table: Matrix, title: str) -> Figure:
    return confusion_figure(table.counts, table.rows, table.columns, title)


def _cells(study: Study) -> dict[str, Figure]:
    if not isinstance(study.cells, Mapping):
        return {}
    found = {}
    curves = {
        name: (np.asarray(entry["fpr"], dtype=float), np.asarray(entry["tpr"], dtype=float))
        for name, entry in _curve_entries(study.cells)
    }
    if curves:
        found["cells_roc"] = roc_lines_figure(curves, "Single cells")
    table = cell_matrix(study)
    if table is not None:
        found["cells_confusion"] = _matrix(table, "Cells")
    return found


def cell_matrix(study: Study) -> Matrix | None:
    """Cells by type and call, or None where no cell has a label."""
    cells = study.cells or {}
    return matrix(
        cells.get("confusion"), cells.get("rows", study.classes),
        cells.get("columns", study.classes),
    )  # fmt: skip


def _curve_entries(cells: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    roc = cells.get("roc")
    if not isinstance(roc, Mapping):
        return ()
    if "fpr" in roc:
        return (("all cells", roc),)
    return tuple((str(k), v) for k, v in roc.items() if isinstance(v, Mapping) and "fpr" in v)


def components_of(study: Study) -> dict[str, Figure]:
    """PCA figures: by diagnosis, and by cell type where experts named some."""
    if not (study.folder / "pca.csv").is_file():
        return {}
    labels, types, places = read_components(study.folder)
    shares = part(study, "pca").get("explained_variance", [])
    axes = [f"component {i + 1} ({percent(float(share))})" for i, share in enumerate(shares)]
    axes = axes if len(axes) == 2 else ["component 1", "component 2"]
    found = {}
    if labels:
        title = "Cells by reference diagnosis"
        found["pca_diagnosis"] = _scatter(labels, places, axes, title)
    if any(types):
        common = [name for name, _ in Counter(filter(None, types)).most_common(_CELL_TYPES)]
        shown = [name if name in common else "other" for name in types]
        found["pca_type"] = _scatter(shown, places, axes, "Cells by expert type")
    return found


def _scatter(names: Sequence[str], places: Floats, axes: Sequence[str], title: str) -> Figure:
    order = sorted(set(names), key=lambda name: (name == "other", name))
    chosen = np.asarray(names, dtype=object)
    points = {name: places[chosen == name] for name in order}
    return scatter_figure(points, (axes[0], axes[1]), title)
