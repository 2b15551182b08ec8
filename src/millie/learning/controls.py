"""Confound controls: what can be reached without looking at the cells.

Each control uses the same patients and the same splits as the headline and ends in an AUC with its
interval and a verdict in words. Owns the controls; the pipeline they run is the ordinary one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from millie.bags.store import BagReader
from millie.files import write_text
from millie.learning.evaluate import CrossvalResult, crossval
from millie.learning.intervals import Estimate, delong_interval
from millie.learning.material import participants
from millie.learning.train import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from millie.bags.store import Store
    from millie.config import Config
    from millie.learning.splits import Splits

    Floats = NDArray[np.float64]

CONTROLS = {
    "background": "The same pipeline on crops whose cell is painted over: only the surroundings "
    "(stain, light, camera, red cells) are left.",
    "bag_size": "The number of cells of a patient alone (logistic regression).",
    "image_files": "Number, size, shape, scale and folder depth of the image files alone "
    "(logistic regression); no pixel is read.",
    "shuffled_labels": "The same pipeline with diagnoses dealt out at random: anything above "
    "chance is a leak between training and test.",
}


@dataclass(frozen=True, slots=True)
class ControlResult:
    """What one control reached.

    Attributes:
        name: of :data:`CONTROLS`.
        auc: of the positive class.
        verdict: what that means for the headline.
    """

    name: str
    auc: Estimate
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "name": self.name,
            "description": f"{CONTROLS[self.name]} {self.verdict}",
            "auc": self.auc.to_dict(),
            "verdict": self.verdict,
        }


def run_controls(
    store: Store,
    config: Config,
    out: Path,
    progress: Progress = silent,
    *,
    main: CrossvalResult,
    names: Sequence[str] = tuple(CONTROLS),
) -> list[ControlResult]:
    """Run the controls of a finished cross-validation and write ``controls.json``.

    Background and shuffled labels take as long as the cross-validation itself (and are resumed
    like it, under ``out/controls/``); the others take seconds.

    Args:
        store: the bags of the cross-validation.
        config: its configuration.
        out: its folder.
        progress: called by the cross-validations inside.
        main: its result.
        names: which controls.
    """
    runs: dict[str, Callable[[], Estimate]] = {
        "background": lambda: _background(store, config, out, progress),
        "bag_size": lambda: _by_features(_bag_sizes(store), store, main, config),
        "image_files": lambda: _by_features(_file_features(store), store, main, config),
        "shuffled_labels": lambda: _shuffled(store, config, out, progress),
    }
    headline = _estimate(main.metrics["headline"]["auc"])
    results = []
    for name in names:
        auc = runs[name]()
        results.append(ControlResult(name, auc, verdict(name, auc, headline)))
    content = {
        "verdict": overall(results),
        "controls": [result.to_dict() for result in results],
    }
    write_text(out / "controls.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    return results


def verdict(name: str, control: Estimate, headline: Estimate) -> str:
    """What a control says about the headline, in plain words."""
    told = f"AUC {control.value:.2f} ({control.low:.2f} to {control.high:.2f})"
    if control.low <= 0.5:
        return f"{told}: not shown to be better than chance."
    if name == "shuffled_labels":
        return (
            f"{told} with random diagnoses: training and test are not independent. Do not trust "
            "the headline before this is explained."
        )
    if control.high >= headline.value or control.value >= headline.low:
        return (
            f"{told}, as good as the model within its interval (AUC {headline.value:.2f}): the "
            "headline can be explained without the cells."
        )
    return (
        f"{told}: better than chance without the cells, so part of the headline "
        f"(AUC {headline.value:.2f}) may come from it."
    )


def overall(results: Sequence[ControlResult]) -> str:
    """One sentence on all controls."""
    loud = [r for r in results if r.auc.low > 0.5]
    if not loud:
        return "No control is shown to be better than chance."
    worst = max(loud, key=lambda r: r.auc.value)
    named = ", ".join(f"{r.name.replace('_', ' ')} ({r.auc.value:.2f})" for r in loud)
    return (
        f"Better than chance without the cells: {named}. The headline is biology only as far as "
        f"it exceeds {worst.auc.value:.2f}, and only data from another source can show that."
    )


def _background(store: Store, config: Config, out: Path, progress: Progress) -> Estimate:
    model = config.model.model_copy(update={"background": "only"})
    changed = config.model_copy(update={"model": model})
    result = crossval(store, changed, out / "controls" / "background", progress)
    return _estimate(result.metrics["headline"]["auc"])


def _shuffled(store: Store, config: Config, out: Path, progress: Progress) -> Estimate:
    """Mean over folds: every repeat deals the diagnoses out anew by its splits' seed."""
    labels = participants(store).labels
    patients = sorted(labels)
    order = np.random.default_rng([config.evaluation.seed, 7]).permutation(len(patients))
    dealt = {p: labels[patients[i]] for p, i in zip(patients, order, strict=True)}
    result = crossval(store, config, out / "controls" / "shuffled_labels", progress, labels=dealt)
    return _estimate(result.metrics["headline"]["auc"])


def _bag_sizes(store: Store) -> dict[str, list[float]]:
    return {bag.patient: [math.log(bag.n_cells)] for bag in store.index() if bag.n_cells}


def _file_features(store: Store) -> dict[str, list[float]]:
    """Properties of a patient's image files, means over files."""
    features = {}
    for bag in store.index():
        with BagReader(bag.path, verify=False) as reader:
            sources = reader.sources
        rows = [
            (
                source.height_px,
                source.width_px,
                source.width_px / max(source.height_px, 1),
                source.um_px or 0.0,
                source.name.count("/"),
            )
            for source in sources
        ] or [(0, 0, 0.0, 0.0, 0)]
        features[bag.patient] = [math.log1p(len(sources)), *np.mean(rows, axis=0).tolist()]
    return features


def _by_features(
    features: Mapping[str, Sequence[float]], store: Store, main: CrossvalResult, config: Config
) -> Estimate:
    """AUC of a logistic regression on a few numbers a patient, by the splits of the headline."""
    labels = participants(store).labels
    positive = main.metrics["positive"]
    return regress(features, {p: x == positive for p, x in labels.items()}, main.splits, config)


def regress(
    features: Mapping[str, Sequence[float]],
    truth: Mapping[str, bool],
    splits: Splits,
    config: Config,
) -> Estimate:
    """AUC of probabilities averaged over repeats, each from a fold that did not train on it."""
    patients = sorted(truth)
    row = {p: i for i, p in enumerate(patients)}
    x = np.array([features[p] for p in patients], np.float64)
    y = np.array([truth[p] for p in patients])
    total = np.zeros(len(patients))
    for fold in splits.assignments:
        test = np.array([row[p] for p in fold.test])
        rest = np.array([row[p] for p in (*fold.train, *fold.validation)])
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
        model.fit(x[rest], y[rest])
        total[test] += model.predict_proba(x[test])[:, 1]
    return delong_interval(y, total / splits.repeats, config.evaluation.confidence)


def _estimate(values: Mapping[str, Any]) -> Estimate:
    return Estimate(values["value"], values["low"], values["high"], values["method"])
