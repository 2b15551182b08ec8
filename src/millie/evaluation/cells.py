"""Single cells: how well a cell's own probability tells its type, and their map in two dimensions.

Cell labels are used here and nowhere else; no network has seen them. A patient's cells come from
one film and are not independent: intervals resample patients, not cells.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.decomposition import PCA

from millie.statistics import metrics
from millie.statistics.intervals import patient_bootstrap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from millie.config import EvaluationConfig

    Floats = NDArray[np.float64]

TARGETS = {
    "APL": ("promyelocyte",),
    "AML": ("myeloblast", "blast"),
    "ALL": ("lymphoblast", "blast"),
}
"""Beginnings of words in a cell's label that make it a disease's cell, most specific first."""

_PCA_CELLS = 20_000
_FEWEST = 10


@dataclass(frozen=True, slots=True, eq=False)
class CellScores:
    """Labelled cells of the test patients of repeat 0.

    Attributes:
        patients: (n,) whose cell.
        diagnoses: (n,) of that patient.
        labels: (n,) expert's type.
        score: (n,) probability of the positive class, the cell alone.
        called: (n,) whether nothing is more probable of the cell than that class, "none of them"
            included.
    """

    patients: NDArray[np.str_]
    diagnoses: NDArray[np.str_]
    labels: NDArray[np.str_]
    score: Floats
    called: NDArray[np.bool_]


def target_label(labels: Sequence[str], positive: str) -> str | None:
    """The cell type that stands for the positive class, or None where none is known.

    The most frequent label (ties: first name) that contains the first word of the disease's list
    that occurs at all.
    """
    for word in TARGETS.get(positive, ()):
        matching = sorted(label for label in set(labels) if re.search(rf"\b{word}", label.lower()))
        if matching:
            return max(matching, key=lambda name: list(labels).count(name))
    return None


def cell_part(cells: CellScores, positive: str, config: EvaluationConfig) -> dict[str, Any] | None:
    """Figures on single cells; None where no cell has a label.

    Returns:
        ``n``, ``target``, ``auc`` of the target against all other labelled cells, the same within
        patients of the positive class only (there no difference between films can help),
        ``confusion`` (rows other, target; columns not called, called), ``roc``, and ``by_label``.
    """
    if len(cells.labels) == 0:
        return None
    target = target_label(cells.labels.tolist(), positive)
    part: dict[str, Any] = {
        "n": len(cells.labels),
        "n_patients": len(np.unique(cells.patients)),
        "target": target,
        "rows": ["other", target],
        "columns": [f"not called {positive}", f"called {positive}"],
        "by_label": _by_label(cells),
        "auc": None,
        "auc_within_positive": None,
        "confusion": None,
        "roc": None,
        "protocol": "Cells of test patients in the first repeat, each scored alone by networks "
        "trained on diagnoses only (where the encoder tells types of cell, times the probability "
        "that it is immature); intervals by bootstrap over patients.",
    }
    if target is None:
        return part
    is_target = cells.labels == target
    part["auc"] = _auc(cells, np.ones(len(is_target), bool), is_target, config)
    part["auc_within_positive"] = _auc(cells, cells.diagnoses == positive, is_target, config)
    counts = metrics.confusion(is_target.astype(np.intp), cells.called.astype(np.intp), 2)
    part["confusion"] = counts.tolist()
    if metrics.both_classes(is_target):
        curve = metrics.roc(is_target, cells.score)
        part["roc"] = {"fpr": curve.fpr.tolist(), "tpr": curve.tpr.tolist()}
    return part


def _auc(
    cells: CellScores,
    chosen: NDArray[np.bool_],
    is_target: NDArray[np.bool_],
    config: EvaluationConfig,
) -> dict[str, Any] | None:
    """AUC among chosen cells with a bootstrap over patients; None with too few cells."""
    target, score = is_target[chosen], cells.score[chosen]
    if min(target.sum(), (~target).sum()) < _FEWEST:
        return None
    owners, diagnoses = cells.patients[chosen], cells.diagnoses[chosen]
    names = np.unique(owners)
    members = [np.flatnonzero(owners == name) for name in names]

    def statistic(patients: NDArray[np.intp]) -> float:
        drawn = np.concatenate([members[i] for i in patients])
        if not metrics.both_classes(target[drawn]):
            return 0.5
        return metrics.roc_auc(target[drawn], score[drawn])

    strata = [str(diagnoses[m[0]]) for m in members]
    rng = np.random.default_rng(config.seed)
    having = min(len(np.unique(owners[target])), len(np.unique(owners[~target])))
    found = patient_bootstrap(
        strata, statistic, config.bootstrap, rng, config.confidence, config.bootstrap_method, having
    )
    counts = {"n_target": int(target.sum()), "n_other": int((~target).sum())}
    return {**found.to_dict(), **counts}


def _by_label(cells: CellScores) -> list[dict[str, Any]]:
    """Count and mean probability of each type, most frequent first."""
    rows = []
    for label in np.unique(cells.labels):
        own = cells.labels == label
        rows.append(
            {
                "label": str(label),
                "n": int(own.sum()),
                "mean_probability": float(cells.score[own].mean()),
                "called": float(cells.called[own].mean()),
            }
        )
    return sorted(rows, key=lambda row: (-row["n"], row["label"]))


@dataclass(frozen=True, slots=True, eq=False)
class CellMap:
    """Cells in the plane of the two largest variances.

    Attributes:
        points: (n, 2) by patient.
        explained: share of the variance on each axis.
    """

    points: Mapping[str, NDArray[np.float64]]
    explained: tuple[float, float]


def cell_map(
    embeddings: Mapping[str, NDArray[np.floating[Any]]], rng: np.random.Generator
) -> CellMap:
    """Principal components of embeddings; fitted on at most 20,000 cells, drawn at random.

    Args:
        embeddings: (n, D) by patient.
        rng: for that draw and the randomised decomposition.
    """
    everything = np.concatenate([embeddings[p] for p in sorted(embeddings)]).astype(np.float64)
    chosen = everything
    if len(everything) > _PCA_CELLS:
        chosen = everything[rng.choice(len(everything), _PCA_CELLS, replace=False)]
    parts = min(2, *chosen.shape)
    pca = PCA(parts, svd_solver="randomized", random_state=int(rng.integers(2**31))).fit(chosen)
    points = {}
    for patient in sorted(embeddings):
        plane = np.zeros((len(embeddings[patient]), 2))
        plane[:, :parts] = pca.transform(embeddings[patient].astype(np.float64))
        points[patient] = plane
    explained = [*pca.explained_variance_ratio_.tolist(), 0.0][:2]
    return CellMap(points, (explained[0], explained[1]))
