"""What a study says of single cells, against experts' labels that its cohort did not carry.

`python benchmarks/cells_alone.py STUDY STORE`: STUDY was written by `millie crossval` on a cohort
without labels of cells (``cohort.py``), STORE holds the same cells of some of its patients with
labels; cells are joined by patient and place. Prints, out of fold, the ROC AUC of promyelocytes by
APL (of all patients, and of those with APL), of blasts by AML and of both by any leukaemia, among
all labelled cells, with intervals over patients; how many cells of a type have one half or more of
all leukaemias; and, patient by patient, that share beside the share of immature cells by label.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from millie.bags.store import BagReader, Store
from millie.config import EvaluationConfig
from millie.evaluation.cells import CellScores, cell_part
from millie.learning.material import participants
from millie.outputs.tables import read_csv
from millie.statistics.method_comparison import bland_altman

LEUKAEMIAS = ("ALL", "AML", "APL")
IMMATURE_BY_EYE = ("blast", "promyelocyte", "promonocyte")
SHOWN = ("blast", "promyelocyte", "monocyte", "lymphocyte", "segmented neutrophil", "smudge cell")

Place = tuple[str, int, float, float]


def labels_of(store: Store) -> dict[Place, str]:
    """Label of each cell that has one, by patient, number in the bag, and centre."""
    found = {}
    for summary in store.index():
        with BagReader(summary.path, verify=False) as bag:
            for number, cell in enumerate(bag.cells):
                if cell.label:
                    place = summary.patient, number, round(cell.x_px, 3), round(cell.y_px, 3)
                    found[place] = cell.label
    return found


def auc(cells: CellScores, positive: str) -> tuple[str, str]:
    """Of the type that stands for a class, among all cells and among those of its patients."""
    part = cell_part(cells, positive, EvaluationConfig())
    assert part is not None

    def told(found: dict[str, Any]) -> str:
        return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"

    return told(part["auc"]), told(part["auc_within_positive"])


def main() -> None:
    study, store = Path(sys.argv[1]), Store(Path(sys.argv[2]))
    labels, diagnoses, rows = labels_of(store), participants(store).labels, []
    for row in read_csv(study / "cells.csv", ["patient", "cell", "x_px", "y_px"]):
        centre = round(float(row["x_px"]), 3), round(float(row["y_px"]), 3)
        if label := labels.get((row["patient"], int(row["cell"]), *centre)):
            scores = [float(row[f"probability_{name}"]) for name in LEUKAEMIAS]
            rows.append((row["patient"], label, scores))
    if not rows:
        raise SystemExit(f"{study}/cells.csv and {store.root} have no labelled cell in common")
    patients, label = (np.array([row[i] for row in rows]) for i in (0, 1))
    by_class = dict(zip(LEUKAEMIAS, np.array([row[2] for row in rows]).T, strict=True))
    sick = np.sum(list(by_class.values()), axis=0)
    diagnosis = np.array([diagnoses[patient] for patient in patients])
    cells = CellScores(patients, diagnosis, label, by_class["APL"], sick >= 0.5)
    print(f"{len(rows):,} labelled cells of {len(set(patients))} patients")
    print("promyelocytes by APL: {}; within patients with APL {}".format(*auc(cells, "APL")))
    print(f"blasts by AML: {auc(replace(cells, score=by_class['AML']), 'AML')[0]}")
    either = np.where(label == "promyelocyte", "blast", label)
    print(f"both by any leukaemia: {auc(replace(cells, labels=either, score=sick), 'AML')[0]}")
    for name in SHOWN:
        print(f"{name}: {cells.called[label == name].mean():.3f} of {(label == name).sum():,}")
    by_eye, found = (
        np.array([told[patients == patient].mean() for patient in np.unique(patients)])
        for told in (np.isin(label, IMMATURE_BY_EYE), cells.called)
    )
    gap = bland_altman(by_eye, found)
    print(f"share of a patient's cells beside that by label (median {np.median(by_eye):.2f}): "
          f"{gap.bias.value:+.3f}, limits of agreement {gap.lower.value:+.2f} to "
          f"{gap.upper.value:+.2f}, Spearman {spearmanr(by_eye, found).statistic:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
