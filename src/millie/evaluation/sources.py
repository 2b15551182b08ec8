"""What the source of images does: models tested where they were not trained, and embeddings probed.

A source is a site with its scanner (:func:`millie.evaluation.colours.source_of`). Owns the two
controls that need several sources, and the words for a study that has one. AUCs are taken within a
source and averaged, so that a difference between sources cannot help.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from millie.evaluation.folds import FoldResult, Study, finish_fold
from millie.learning.sampling import CellSource, whole_bag
from millie.learning.splits import Fold, cut_validation, make_splits
from millie.learning.train import Progress, silent
from millie.statistics.intervals import Estimate, delong_interval, patient_bootstrap, smallest_class
from millie.statistics.metrics import both_classes, macro_auc, roc_auc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from millie.config import EvaluationConfig

    Floats = NDArray[np.float64]

_FEWEST = 4
"""Patients of a source below which it is not probed."""

_PROBE_REPEATS = 10
_PROBE_COMPONENTS = 20


@dataclass(frozen=True, slots=True)
class SourceFinding:
    """What a control on sources found.

    Attributes:
        auc: None where it cannot be measured.
        told: what was done and found, in words.
    """

    auc: Estimate | None
    told: str


def leave_one_source_out(
    study: Study, sources: Mapping[str, str], out: Path, progress: Progress = silent
) -> SourceFinding:
    """Test the patients of each source by a model that was trained on the others.

    Patients of unknown source take no part: they may be of the source that is left out.

    Args:
        study: cells, diagnoses and settings of the cross-validation.
        sources: source by patient, as far as known.
        out: folder for the folds, which are resumed.
        progress: called after each epoch.
    """
    results, told = {}, []
    for number, name in enumerate(sorted(set(sources.values()))):
        test = tuple(sorted(p for p in study.labels if sources.get(p) == name))
        fold = _fold_without(study, sources, test, number)
        lacking = _lacking(study, (*fold.train, *fold.validation))
        if lacking:
            told.append(f"{name}: cannot be left out, too few patients of {lacking} would remain")
            continue
        results[name] = finish_fold(study, fold, out, progress)
        told.append(_of_source(study, name, results[name]))
    if unknown := len(study.labels.keys() - sources.keys()):
        told.append(f"without {unknown} of unknown source")
    return SourceFinding(_within_sources(study, results), "; ".join(told))


def _fold_without(
    study: Study, sources: Mapping[str, str], test: Sequence[str], number: int
) -> Fold:
    known = sorted(study.labels.keys() & sources.keys())
    labels = {p: study.labels[p] for p in known if p not in set(test)}
    training = study.config.training
    fraction = training.validation_fraction if training.ensemble == 1 else 0.0
    rng = np.random.default_rng([training.seed, number])
    train, validation = cut_validation(labels, fraction, rng)
    return Fold(0, number, train, validation, tuple(test))


def _lacking(study: Study, part: Sequence[str]) -> str:
    """Classes with fewer than three patients in a training part, in words."""
    counts = Counter(study.labels[p] for p in part)
    return ", ".join(name for name in study.classes if counts[name] < 3)


def _of_source(study: Study, name: str, result: FoldResult) -> str:
    truth, score = _scores(study, result)
    counts = Counter(s.label for s in result.patients.values())
    named = ", ".join(f"{n} {label}" for label, n in sorted(counts.items()))
    called = score >= result.threshold
    if both_classes(truth):
        found = delong_interval(truth, score, study.config.evaluation.confidence)
        return f"{name} ({named}): AUC {found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
    return f"{name} ({named}): {int(called.sum())} called {study.positive}"


def _scores(study: Study, result: FoldResult) -> tuple[NDArray[np.bool_], Floats]:
    index = study.classes.index(study.positive)
    truth = np.array([s.label == study.positive for s in result.patients.values()], bool)
    return truth, np.array([s.probabilities[index] for s in result.patients.values()])


def _within_sources(study: Study, results: Mapping[str, FoldResult]) -> Estimate | None:
    """Mean AUC within left-out sources, weighed by their pairs of patients; None without any."""
    parts = [_scores(study, result) for result in results.values()]
    parts = [(truth, score) for truth, score in parts if both_classes(truth)]
    if not parts:
        return None
    truth, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    group = np.repeat(np.arange(len(parts)), [len(t) for t, _ in parts])

    def statistic(drawn: NDArray[np.intp]) -> float:
        values, weights = [], []
        for number in range(len(parts)):
            own = drawn[group[drawn] == number]
            values.append(roc_auc(truth[own], score[own]))
            weights.append(int(truth[own].sum()) * int((~truth[own]).sum()))
        return float(np.average(values, weights=weights))

    wanted = study.config.evaluation
    strata = [f"{g} {t}" for g, t in zip(group, truth, strict=True)]
    rng = np.random.default_rng(wanted.seed)
    return patient_bootstrap(
        strata, statistic, wanted.bootstrap, rng, wanted.confidence, wanted.bootstrap_method,
        smallest_class(truth),
    )  # fmt: skip


def probe_source(study: Study, sources: Mapping[str, str]) -> SourceFinding:
    """How well a patient's mean embedding tells the source (logistic regression).

    Within one diagnosis where that is possible: else the diagnosis may tell the source.
    """
    chosen, what = _to_probe(study.labels, sources)
    if not chosen:
        told = f"no two sources have {_FEWEST} patients each: cannot be measured"
        return SourceFinding(None, told)
    if study.material.source.images:
        return SourceFinding(None, "the encoder is trained anew in each fold: not measured")
    told = f"{what}, {_counted(chosen)}"
    found = probe(_means(study.material.source, chosen), chosen, study.config.evaluation)
    if study.recoloured is not None:
        told += f"; before the colours were transferred AUC {found.value:.2f}"
        changed = study.for_training(sorted(study.labels)).material.source
        found = probe(_means(changed, chosen), chosen, study.config.evaluation)
    return SourceFinding(found, told)


def _to_probe(labels: Mapping[str, str], sources: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Source of the patients that are probed, and who they are."""
    options = []
    for name in sorted(set(labels.values())):
        own = _large({p: s for p, s in sources.items() if labels.get(p) == name})
        if own:
            options.append((own, f"among {name}"))
    if options:
        return max(options, key=lambda option: len(option[0]))
    everyone = _large({p: s for p, s in sources.items() if p in labels})
    return everyone, "among all (diagnosis and source are mixed)"


def _large(sources: Mapping[str, str]) -> dict[str, str]:
    """Patients of sources with enough of them; empty unless two sources are left."""
    counts = Counter(sources.values())
    kept = {p: s for p, s in sources.items() if counts[s] >= _FEWEST}
    return kept if len(set(kept.values())) > 1 else {}


def _counted(sources: Mapping[str, str]) -> str:
    return " against ".join(f"{n} {name}" for name, n in sorted(Counter(sources.values()).items()))


def _means(source: CellSource, patients: Mapping[str, str]) -> dict[str, Floats]:
    return {
        p: source.cells(p, whole_bag(source, p).indices).numpy().mean(axis=0, dtype=np.float64)
        for p in patients
    }


def probe(
    features: Mapping[str, Floats], sources: Mapping[str, str], config: EvaluationConfig
) -> Estimate:
    """Cross-validated AUC of telling the source from one vector a patient.

    Args:
        features: (D,) by patient.
        sources: source of the same patients, two or more.
        config: ``seed``, ``confidence``, ``bootstrap``.

    Returns:
        The AUC of two sources, or the mean of one against the rest of several.
    """
    names = sorted(set(sources.values()))
    patients = sorted(sources)
    row = {p: i for i, p in enumerate(patients)}
    x = np.stack([features[p] for p in patients])
    y = np.array([names.index(sources[p]) for p in patients])
    splits = make_splits(sources, 3, _PROBE_REPEATS, config.seed)
    total = np.zeros((len(patients), len(names)))
    for fold in splits.assignments:
        train, test = ([row[p] for p in part] for part in (fold.train, fold.test))
        parts = min(_PROBE_COMPONENTS, len(train) - 1, x.shape[1])
        model = make_pipeline(
            StandardScaler(),
            PCA(parts, svd_solver="full"),
            LogisticRegression(class_weight="balanced", max_iter=2000),
        )
        model.fit(x[train], y[train])
        total[test] += model.predict_proba(x[test])
    if len(names) == 2:
        return delong_interval(y == 1, total[:, 1], config.confidence)
    strata = [names[i] for i in y]
    rng = np.random.default_rng(config.seed)
    return patient_bootstrap(
        strata,
        lambda i: macro_auc(y[i], total[i]),
        config.bootstrap,
        rng,
        config.confidence,
        config.bootstrap_method,
    )
