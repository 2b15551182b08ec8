"""What a study says of single cells, against experts' labels that its cohort did not carry.

`python benchmarks/cells_alone.py STUDY STORE`: STUDY was written by `millie crossval` on a cohort
without labels of cells (``cohort.py``), STORE holds the same cells of some of its patients with
labels; cells are joined by patient and place. Prints, out of fold, the ROC AUC of promyelocytes by
APL, of blasts by AML and of both by any leukaemia, among all labelled cells; how many cells of a
type have one half or more of all leukaemias; and, patient by patient, that share beside the share
of immature cells by label. Intervals: 1,000 draws of the patients, whatever their diagnosis.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from millie.bags.store import BagReader, Store
from millie.outputs.tables import read_csv

IMMATURE_BY_EYE = ("blast", "promyelocyte", "promonocyte")
SHOWN = ("blast", "promyelocyte", "monocyte", "lymphocyte", "segmented neutrophil", "smudge cell")
DRAWS = 1000


def labels_of(store: Path) -> dict[tuple[str, float, float, int], str]:
    """Label of each cell that has one, by patient, centre and number in its bag."""
    found = {}
    for summary in Store(store).index():
        with BagReader(summary.path, verify=False) as bag:
            for number, cell in enumerate(bag.cells):
                if cell.label:
                    place = round(cell.x_px, 3), round(cell.y_px, 3)
                    found[summary.patient, *place, number] = cell.label
    return found


def auc(is_one: NDArray[np.bool_], score: NDArray[np.float64], patients: NDArray[np.str_]) -> str:
    """ROC AUC of cells with an interval over patients."""
    own = [np.flatnonzero(patients == patient) for patient in np.unique(patients)]
    rng, drawn = np.random.default_rng(0), []
    for _ in range(DRAWS):
        cells = np.concatenate([own[i] for i in rng.integers(0, len(own), len(own))])
        drawn.append(roc_auc_score(is_one[cells], score[cells]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{roc_auc_score(is_one, score):.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    study, store = map(Path, sys.argv[1:])
    labels = labels_of(store)
    rows = []
    for row in read_csv(study / "cells.csv", ["patient", "cell", "x_px", "y_px"]):
        place = round(float(row["x_px"]), 3), round(float(row["y_px"]), 3)
        if label := labels.get((row["patient"], *place, int(row["cell"]))):
            scores = [float(row[f"probability_{name}"]) for name in ("ALL", "AML", "APL")]
            rows.append((row["patient"], label, scores))
    if not rows:
        raise SystemExit(f"{study}/cells.csv and {store} have no labelled cell in common")
    patients, label = (np.array([row[i] for row in rows]) for i in (0, 1))
    scores = np.array([row[2] for row in rows])
    sick = scores.sum(axis=1)
    blast, promyelocyte = label == "blast", label == "promyelocyte"
    print(f"{len(rows):,} labelled cells of {len(set(patients))} patients")
    print(f"promyelocytes by APL: {auc(promyelocyte, scores[:, 2], patients)}")
    print(f"blasts by AML: {auc(blast, scores[:, 1], patients)}")
    print(f"both by any leukaemia: {auc(blast | promyelocyte, sick, patients)}")
    for name in SHOWN:
        print(f"{name}: {(sick[label == name] >= 0.5).mean():.3f} of {(label == name).sum():,}")
    by_eye, found = (
        np.array([told[patients == patient].mean() for patient in np.unique(patients)])
        for told in (np.isin(label, IMMATURE_BY_EYE), sick >= 0.5)
    )
    gap = found - by_eye
    print(f"share of a patient's cells beside that by label (median {np.median(by_eye):.2f}): "
          f"{gap.mean():+.3f}, limits of agreement {gap.mean() - 1.96 * gap.std(ddof=1):+.2f} to "
          f"{gap.mean() + 1.96 * gap.std(ddof=1):+.2f}, Spearman "
          f"{spearmanr(by_eye, found).statistic:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
