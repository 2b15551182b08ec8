"""Mature and leukaemic cells alone: does the class come from the disease's cells or from the film?

A leukaemia sits in its own cells; stain, light and camera are on every cell of a film. The networks
of a fold, trained on whole bags, are shown the cells of one group of types alone, of patients they
did not train on, and an equally large random part of the bag, so that the number of cells is not
what differs. Cell labels are used here for evaluation only. Owns the groups, the parts of a bag
that are scored, the figures and the words; networks are run by :mod:`millie.evaluation.folds`.

A mature cell may still belong to the leukaemia (monocytes of a monocytic one, dysplastic
neutrophils), and the mixture of mature cells may tell the disease: only a type that the disease
spares (lymphocytes of a myeloid leukaemia) shows the film alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from millie.statistics.intervals import Estimate, delong_difference, delong_interval
from millie.statistics.metrics import roc_auc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from millie.evaluation.folds import FoldResult, PatientScore

    Floats = NDArray[np.float64]
    Indices = NDArray[np.int64]

MATURE = "mature cells"
LEUKAEMIC = "blasts and promyelocytes"

_MATURE_TYPES = {
    "neutrophils": ("neutrophil", "band neutrophil", "segmented neutrophil"),
    "lymphocytes": ("lymphocyte", "variant lymphocyte"),
    "monocytes": ("monocyte",),
    "eosinophils": ("eosinophil",),
    "basophils": ("basophil",),
}
GROUPS: dict[str, tuple[str, ...]] = {
    MATURE: tuple(name for types in _MATURE_TYPES.values() for name in types),
    LEUKAEMIC: (
        "blast", "myeloblast", "monoblast", "lymphoblast", "megakaryoblast", "promonocyte",
        "promyelocyte", "faggot cell",
    ),
    **_MATURE_TYPES,
    "myelocytes and metamyelocytes": ("myelocyte", "metamyelocyte"),
    "erythroblasts": ("erythroblast", "proerythroblast"),
    "smudge cells": ("smudge cell",),
}  # fmt: skip
"""Cell types of each group, by the names that the readers of published sets give them."""

FEWEST_CELLS = 5
"""Cells of a group from which a patient takes part: of fewer, one wrong label is a quarter and
more; with ten, a fifth of the patients of ``apl_aml`` with blasts or promyelocytes is lost."""

SUSPICIOUS = 0.7
"""An AUC from which "not shown" must not be read as "absent"."""

_FEWEST_PATIENTS = 3  # of the positive class and of the rest, as for a source that is left out
_DRAWS = 5


@dataclass(frozen=True, slots=True)
class GroupScore:
    """What the networks of a fold say about a part of a patient's cells.

    Attributes:
        n_cells: cells of the group.
        probabilities: calibrated, in the order of the classes, of these cells alone.
        drawn: the same of as many cells of the whole bag, drawn at random, several times.
    """

    n_cells: int
    probabilities: tuple[float, ...]
    drawn: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class GroupFigure:
    """What one group of cells reaches alone, and the whole bag on the same patients.

    Attributes:
        name: of :data:`GROUPS`.
        n_by_class: patients with enough cells of the group.
        median_cells: cells of the group of these patients, median.
        auc: of the positive class by these cells alone; None, as all that follow: too few patients.
        whole: by the whole bag.
        minus_whole: difference to it, paired.
        drawn: by equally large random parts of the bag, mean over draws.
        minus_drawn: difference to it, paired.
    """

    name: str
    n_by_class: Mapping[str, int]
    median_cells: float
    auc: Estimate | None = None
    whole: Estimate | None = None
    minus_whole: Estimate | None = None
    drawn: float | None = None
    minus_drawn: Estimate | None = None

    @property
    def n(self) -> int:
        """Patients."""
        return sum(self.n_by_class.values())

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; what is not measured is left out."""
        estimates = {
            "auc": self.auc,
            "whole": self.whole,
            "minus_whole": self.minus_whole,
            "minus_drawn": self.minus_drawn,
        }
        found = {name: e.to_dict() for name, e in estimates.items() if e is not None}
        drawn = {} if self.drawn is None else {"drawn": {"value": self.drawn}}
        counts = {"n_by_class": dict(self.n_by_class), "median_cells": self.median_cells}
        return {"name": self.name, **counts, **found, **drawn}


@dataclass(frozen=True, slots=True)
class GroupFindings:
    """All groups of a study.

    Attributes:
        groups: those that occur, in the order of :data:`GROUPS`.
        n_both: patients with enough mature and enough leukaemic cells.
        pair: AUC of their mature cells and of their leukaemic ones; None: too few patients.
        difference: mature minus leukaemic, paired, on these patients.
    """

    groups: tuple[GroupFigure, ...]
    n_both: int = 0
    pair: tuple[float, float] | None = None
    difference: Estimate | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; what is not measured is left out."""
        found: dict[str, Any] = {"groups": [group.to_dict() for group in self.groups]}
        if self.difference is not None:
            found["minus_leukaemic"] = {**self.difference.to_dict(), "n_patients": self.n_both}
        return found

    def named(self, name: str) -> GroupFigure | None:
        """The group of this name, if it occurs."""
        return next((group for group in self.groups if group.name == name), None)

    def auc(self, name: str) -> Estimate | None:
        """AUC of this group alone, where it was measured."""
        group = self.named(name)
        return None if group is None else group.auc


def parts_to_score(patient: str, labels: Sequence[str | None]) -> dict[str, list[Indices]]:
    """Cells of each group that the patient has enough of, then the random parts of that size.

    The random parts depend on the patient and the group alone: repeats of a cross-validation score
    the same ones, so that an average over repeats has seen no more cells than the group has.

    Args:
        patient: pseudonym.
        labels: experts' type of each cell of the bag, None or empty where there is none.

    Returns:
        By group, 1 + :data:`_DRAWS` arrays of cell indices, ascending.
    """
    types = np.array([_singular(label or "") for label in labels], np.str_)
    parts = {}
    for name, members in GROUPS.items():
        own = np.flatnonzero(np.isin(types, members)).astype(np.int64)
        if len(own) >= FEWEST_CELLS:
            seed = hashlib.sha256(f"{patient}\0{name}".encode()).digest()
            rng = np.random.default_rng(list(seed))
            draws = [rng.choice(len(types), len(own), replace=False) for _ in range(_DRAWS)]
            parts[name] = [own, *map(np.sort, draws)]
    return parts


def _singular(label: str) -> str:
    return " ".join(label.lower().split()).removesuffix("s")


def find_groups(
    results: Sequence[FoldResult], classes: Sequence[str], positive: str, confidence: float
) -> GroupFindings:
    """Figures of all groups of a finished cross-validation, patients averaged over repeats.

    Args:
        results: all folds of all repeats.
        classes: in the order of the probabilities.
        positive: its probability is the score, against all others.
        confidence: of the intervals.
    """
    index = list(classes).index(positive)
    scored = {name: _scored(results, name, index) for name in GROUPS}
    groups = tuple(
        _figure(name, scores, classes, positive, confidence)
        for name, scores in scored.items()
        if scores
    )
    mature, leukaemic = scored[MATURE], scored[LEUKAEMIC]
    both = sorted(mature.keys() & leukaemic.keys())
    truth = np.array([mature[p].label == positive for p in both], bool)
    if not _enough(truth):
        return GroupFindings(groups, len(both))
    first, second = (np.array([s[p].alone for p in both]) for s in (mature, leukaemic))
    pair = roc_auc(truth, first), roc_auc(truth, second)
    difference = delong_difference(truth, first, second, confidence)
    return GroupFindings(groups, len(both), pair, difference)


@dataclass(frozen=True, slots=True, eq=False)
class _Scores:
    """Probabilities of the positive class of one patient, means over repeats.

    Attributes:
        label: diagnosis.
        n_cells: of the group.
        alone: of these cells.
        whole: of the bag.
        drawn: (D,) of random parts.
    """

    label: str
    n_cells: int
    alone: float
    whole: float
    drawn: Floats


def _scored(results: Sequence[FoldResult], name: str, index: int) -> dict[str, _Scores]:
    """By patient with enough cells of the group."""
    found: dict[str, list[tuple[PatientScore, GroupScore]]] = {}
    for result in results:
        for patient, score in result.patients.items():
            if name in score.groups:
                found.setdefault(patient, []).append((score, score.groups[name]))
    return {
        patient: _Scores(
            pairs[0][0].label,
            pairs[0][1].n_cells,
            float(np.mean([group.probabilities[index] for _, group in pairs])),
            float(np.mean([score.probabilities[index] for score, _ in pairs])),
            np.mean([[p[index] for p in group.drawn] for _, group in pairs], axis=0),
        )
        for patient, pairs in sorted(found.items())
    }


def _figure(
    name: str,
    scores: Mapping[str, _Scores],
    classes: Sequence[str],
    positive: str,
    confidence: float,
) -> GroupFigure:
    counts = Counter(s.label for s in scores.values())
    n_by_class = {label: counts[label] for label in classes}
    median = float(np.median([s.n_cells for s in scores.values()]))
    truth = np.array([s.label == positive for s in scores.values()])
    if not _enough(truth):
        return GroupFigure(name, n_by_class, median)
    alone = np.array([s.alone for s in scores.values()])
    whole = np.array([s.whole for s in scores.values()])
    drawn = np.stack([s.drawn for s in scores.values()], axis=1)
    auc = delong_interval(truth, alone, confidence)
    minus_drawn = delong_difference(truth, alone, drawn, confidence)
    return GroupFigure(
        name,
        n_by_class,
        median,
        auc,
        delong_interval(truth, whole, confidence),
        delong_difference(truth, alone, whole, confidence),
        auc.value - minus_drawn.value,
        minus_drawn,
    )


def _enough(truth: NDArray[np.bool_]) -> bool:
    return min(int(truth.sum()), int((~truth).sum())) >= _FEWEST_PATIENTS


def group_verdict(found: GroupFindings) -> str:
    """What mature and leukaemic cells alone say about the headline, in plain words."""
    if not found.groups:
        return (
            f"No AUC: no patient has {FEWEST_CELLS} cells with an expert's label of a known type; "
            "cannot be measured."
        )
    mature, leukaemic = _alone(found, MATURE), _alone(found, LEUKAEMIC)
    if found.auc(MATURE) is None:
        return f"No AUC: {MATURE} {mature}; {LEUKAEMIC} {leukaemic}. Cannot be measured."
    told = f"{mature}; {LEUKAEMIC} {leukaemic}. {_paired(found)}"
    return f"{told}{conclusion(found)}{_single_types(found)}"


def conclusion(found: GroupFindings) -> str:
    """The verdict in one sentence; empty where mature cells could not be measured."""
    mature, leukaemic = found.auc(MATURE), found.auc(LEUKAEMIC)
    if mature is None:
        return ""
    if mature.low <= 0.5:
        return _not_shown(mature, leukaemic)
    if found.difference is None:
        return (
            "Mature cells alone tell the class, and the leukaemic ones cannot be compared: the "
            "headline may come from the film."
        )
    if found.difference.high < 0:
        return (
            "The leukaemic cells tell the class better than mature cells, but mature cells alone "
            "tell it too: part of the headline may come from the film."
        )
    how = "better than" if found.difference.low > 0 else "as well as"
    return (
        f"Mature cells alone tell the class {how} the leukaemic ones: the headline may come from "
        "the film."
    )


def _not_shown(mature: Estimate, leukaemic: Estimate | None) -> str:
    told = "Mature cells alone are not shown to tell the class"
    if mature.value >= SUSPICIOUS:
        return f"{told}, but there are too few patients to rule it out."
    if leukaemic is not None and leukaemic.low > 0.5:
        return (
            f"{told} and the leukaemic ones do: evidence that the headline comes from the "
            "leukaemic cells."
        )
    return f"{told}."


def _alone(found: GroupFindings, name: str) -> str:
    """A group's AUC, or why there is none."""
    group = found.named(name)
    if group is None:
        return f"in no patient ({FEWEST_CELLS} cells needed)"
    if group.auc is None:
        counts = ", ".join(f"{n} {label}" for label, n in group.n_by_class.items())
        return f"in too few patients ({counts}; {FEWEST_CELLS} cells needed)"
    auc = group.auc
    return f"AUC {auc.value:.2f} ({auc.low:.2f} to {auc.high:.2f}; {group.n} patients)"


def _paired(found: GroupFindings) -> str:
    if found.pair is None or found.difference is None:
        return ""
    d = found.difference
    # both perfect: the variance is 0 and says nothing
    interval = f" ({d.low:+.2f} to {d.high:+.2f})" if d.low < d.high else ""
    return (
        f"In the {found.n_both} patients with both, {found.pair[0]:.2f} against "
        f"{found.pair[1]:.2f}, difference {d.value:+.2f}{interval}. "
    )


def _single_types(found: GroupFindings) -> str:
    """Which single mature types tell the class: there the mixture of types cannot help."""
    measured = {name: auc for name in _MATURE_TYPES if (auc := found.auc(name)) is not None}
    telling = [f"{name} ({auc.value:.2f})" for name, auc in measured.items() if auc.low > 0.5]
    if telling:
        return f" Single mature types that are better than chance: {', '.join(telling)}."
    mature = found.auc(MATURE)
    if measured and mature is not None and mature.low > 0.5:
        return " No single mature type is shown to tell it, but their mixture may."
    return ""
