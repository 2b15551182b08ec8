"""Figures of merit: how well probabilities separate classes, and how calls agree with diagnoses.

Owns point estimates; their intervals are in :mod:`millie.statistics.intervals`. With more than two
classes the binary figures are those of one class against the rest. Nothing here knows patients,
folds or files.

AUC and average precision are taken thousands of times in a bootstrap: scikit-learn gives the same
values (tests compare them) but takes far longer to check its arguments. It takes a second to load,
too, which the page of a single patient should not pay: the functions that need it load it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from millie.errors import ConfigError, no_warnings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class RocCurve:
    """Operating points from (0, 0) to (1, 1).

    Attributes:
        fpr: 1 - specificity, rising.
        tpr: sensitivity.
        thresholds: smallest score that is called positive; the first is infinite.
    """

    fpr: Floats
    tpr: Floats
    thresholds: Floats


def both_classes(positive: Bools) -> bool:
    """Whether an ROC curve exists."""
    return bool(positive.any() and not positive.all())


def roc_auc(positive: Bools, score: Floats) -> float:
    """Area under the ROC curve from ranks (Mann-Whitney); ties count one half.

    Raises:
        ConfigError: only one class.
    """
    _check(positive)
    m = int(positive.sum())
    # Midranks by two searches: a bootstrap takes thousands of these, of a hundred values each.
    ordered, own = np.sort(score), score[positive]
    below, upto = np.searchsorted(ordered, own), np.searchsorted(ordered, own, side="right")
    ranks = ((below + upto + 1) / 2).sum()
    return float((ranks - m * (m + 1) / 2) / (m * (len(positive) - m)))


def average_precision(positive: Bools, score: Floats) -> float:
    """Average precision; a guess gives the share of positives.

    The sum over distinct scores of (rise in recall) x precision, as scikit-learn has it, without
    the checks of arguments that take most of its time in a bootstrap.

    Raises:
        ConfigError: only one class.
    """
    _check(positive)
    order = np.argsort(score, kind="stable")[::-1]
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    true = np.cumsum(positive[order])[last]
    precision, recall = true / (last + 1), true / true[-1]
    steps = np.diff(recall, prepend=0.0) * precision
    return float(np.sum(steps[::-1].copy()))  # in its order too: equal to the last bit


def roc(positive: Bools, score: Floats) -> RocCurve:
    """The ROC curve, its corner points only.

    Raises:
        ConfigError: only one class.
    """
    from sklearn.metrics import roc_curve  # noqa: PLC0415 - see the top

    _check(positive)
    return RocCurve(*roc_curve(positive, score))


def precision_recall(positive: Bools, score: Floats) -> tuple[Floats, Floats]:
    """Precision and recall at every distinct threshold, from the strictest to the loosest.

    Raises:
        ConfigError: only one class.
    """
    from sklearn.metrics import precision_recall_curve  # noqa: PLC0415 - see the top

    _check(positive)
    precision, recall, _ = precision_recall_curve(positive, score)
    # The last point, precision 1 at recall 0, is added by scikit-learn: no threshold gives it.
    return precision[-2::-1], recall[-2::-1]


def macro_auc(truth: NDArray[np.intp], probabilities: Floats) -> float:
    """Mean over classes of the AUC of the class against the rest.

    Args:
        truth: (n,) class index.
        probabilities: (n, C).

    Raises:
        ConfigError: a class that does not occur.
    """
    C = probabilities.shape[1]
    return float(np.mean([roc_auc(truth == c, probabilities[:, c]) for c in range(C)]))


def confusion(truth: NDArray[np.intp], calls: NDArray[np.intp], n_classes: int) -> NDArray[np.intp]:
    """Counts (C, C): rows are diagnoses, columns are calls."""
    from sklearn.metrics import confusion_matrix  # noqa: PLC0415 - see the top

    counts: NDArray[np.intp] = confusion_matrix(truth, calls, labels=list(range(n_classes)))
    return counts


def balanced_accuracy(truth: NDArray[np.intp], calls: NDArray[np.intp]) -> float:
    """Mean over the classes that occur of the share called right."""
    from sklearn.metrics import balanced_accuracy_score  # noqa: PLC0415 - see the top

    # A class that is called but does not occur, or a single class: what is wanted here.
    with no_warnings(UserWarning):
        return float(balanced_accuracy_score(truth, calls))


def sensitivity(positive: Bools, called: Bools) -> float:
    """Share of the positives that are called positive.

    Raises:
        ConfigError: only one class.
    """
    _check(positive)
    return float(called[positive].mean())


def specificity(positive: Bools, called: Bools) -> float:
    """Share of the negatives that are called negative.

    Raises:
        ConfigError: only one class.
    """
    _check(positive)
    return float((~called[~positive]).mean())


def likeliest(probabilities: Sequence[float], classes: Sequence[str]) -> str:
    """The most probable of the classes; empty where none of them is more probable still.

    What probabilities lack to 1 is none of them: a single mature cell, say
    (:func:`millie.inference.alone.cells_alone`).
    """
    best, name = max(zip(probabilities, classes, strict=True), key=lambda pair: pair[0])
    return name if best >= 1 - sum(probabilities) else ""


def make_calls(probabilities: Floats, positive: int, threshold: Floats | float) -> NDArray[np.intp]:
    """Class index of each row: the positive class from its threshold on, else the best other.

    Args:
        probabilities: (n, C).
        positive: index of the class that the threshold belongs to.
        threshold: of its probability, one or one a row.
    """
    others = probabilities.copy()
    others[:, positive] = -np.inf
    calls: NDArray[np.intp] = np.where(
        probabilities[:, positive] >= threshold, positive, others.argmax(axis=1)
    )
    return calls


def choose_positive(classes: Sequence[str], labels: Sequence[str], wanted: str | None) -> str:
    """The class of the binary figures: as wanted, else APL, else the rarest (ties: first name).

    Raises:
        ConfigError: the wanted class does not occur.
    """
    if wanted is not None:
        if wanted not in classes:
            raise ConfigError(
                f"evaluation.positive='{wanted}': expected one of {', '.join(classes)}"
            )
        return wanted
    if "APL" in classes:
        return "APL"
    return min(classes, key=lambda name: (list(labels).count(name), name))


def _check(positive: Bools) -> None:
    if not both_classes(positive):
        raise ConfigError(
            f"{int(positive.sum())} positive of {len(positive)}: this figure needs both classes"
        )
