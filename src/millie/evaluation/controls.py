"""Confound controls: what can be reached without looking at the cells, or at the leukaemic ones.

Each control uses the same patients and the same splits as the headline and ends in an AUC with its
interval and a verdict in words. Owns the controls; the pipeline they run is the ordinary one.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from millie.bags.store import BagReader
from millie.evaluation.cell_groups import (
    FEWEST_CELLS,
    MATURE,
    SUSPICIOUS,
    GroupFindings,
    conclusion,
    find_groups,
    group_verdict,
)
from millie.evaluation.colours import sources_of
from millie.evaluation.crossval import StudyResult, crossval, open_study
from millie.evaluation.sources import SourceFinding, leave_one_source_out, probe_source
from millie.files import write_text
from millie.inference.magnification import bag_over_stated, red_cells_um_px
from millie.learning.material import participants
from millie.learning.train import Progress, silent
from millie.statistics.intervals import Estimate, delong_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from millie.bags.store import Store
    from millie.config import Config
    from millie.learning.splits import Splits

    Floats = NDArray[np.float64]

CONTROLS = {
    "background": "The same pipeline on crops whose cell is painted over with a disc of 18 um, "
    "which hides its outline: only the surroundings (stain, light, camera, red cells) remain.",
    "bag_size": "The number of cells of a patient alone (logistic regression).",
    "red_cells": "How large red cells look beside the leukocytes, one number a patient (logistic "
    "regression): the film and the camera, or what a disease does to them.",
    "image_files": "Number, size, shape, scale and folder depth of the image files alone "
    "(logistic regression); no pixel is read.",
    "shuffled_labels": "The same pipeline with randomly permuted diagnoses: anything above chance "
    "is a leak between training and test.",
    "leave_one_source_out": "The same pipeline, tested on the patients of a source (site and "
    "scanner) by a model trained on the other sources.",
    "source_probe": "The source predicted from a patient's mean embedding (logistic regression).",
    "mature_cells": "Mature cells alone (by experts' labels, used for this control only), scored "
    f"by the same networks, in patients with {FEWEST_CELLS} of them; then each cell type alone.",
}

FILES = ("controls.json", "controls/**/*")
"""What the controls leave in the folder of the cross-validation, as patterns of names."""

SHORTCUTS = ("background", "bag_size", "red_cells", "image_files", "shuffled_labels")
"""Controls that see no cell: what they reach, the headline can be without biology."""

NO_RED_CELLS = (
    "No AUC: the size of red cells is not known of half of the patients (too few in view, fewer "
    "than three images, or cells cut by an earlier version)."
)

PICTURED = ("background", "red_cells", "image_files")
"""Controls that need pictures: a store of vectors does without them."""


@dataclass(frozen=True, slots=True)
class ControlResult:
    """What one control reached.

    Attributes:
        name: of :data:`CONTROLS`.
        auc: of the positive class (of the source, for the probe); None: cannot be measured.
        verdict: what that means for the headline.
        cells: mature, leukaemic and single types of cells alone; None: another control.
    """

    name: str
    auc: Estimate | None
    verdict: str
    cells: GroupFindings | None = None

    @property
    def loud(self) -> bool:
        """Whether it is shown to be better than chance."""
        return self.auc is not None and self.auc.low > 0.5

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        auc = {} if self.auc is None else {"auc": self.auc.to_dict()}
        described = {"description": CONTROLS[self.name], "verdict": self.verdict}
        cells = {} if self.cells is None else self.cells.to_dict()
        return {"name": self.name, **described, **auc, **cells}

    def line(self) -> str:
        """The control in words, for the console."""
        return f"control {self.name.replace('_', ' ')}: {self.verdict}"


def run_controls(
    store: Store,
    config: Config,
    out: Path,
    progress: Progress = silent,
    *,
    main: StudyResult,
    names: Sequence[str] = tuple(CONTROLS),
) -> list[ControlResult]:
    """Run the controls of a finished cross-validation and write ``controls.json``.

    Background and shuffled labels take as long as the cross-validation itself, leaving sources out
    a fold for each (all are resumed like it, under ``out/controls/``); the others take seconds.

    Args:
        store: the bags of the cross-validation.
        config: its configuration.
        out: its folder.
        progress: called by the cross-validations inside.
        main: its result.
        names: which controls.
    """
    headline = _estimate(main.metrics["headline"]["auc"])
    if store.encoder:
        names = [name for name in names if name not in PICTURED]
    run = _Runs(store, config, out, progress, main)
    results = []
    for name in names:
        if name in SHORTCUTS:
            auc = run.shortcut(name)
            told = verdict(name, auc, headline) if auc else NO_RED_CELLS
            results.append(ControlResult(name, auc, told))
        elif name == "mature_cells":
            cells = run.cell_groups()
            results.append(ControlResult(name, cells.auc(MATURE), group_verdict(cells), cells))
        else:
            found = run.source_control(name)
            told = source_verdict(name, found, headline)
            results.append(ControlResult(name, found.auc, told))
    content = {
        "verdict": overall(results),
        "controls": [result.to_dict() for result in results],
    }
    write_text(out / "controls.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    return results


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """The runs behind the controls of one study."""

    store: Store
    config: Config
    out: Path
    progress: Progress
    main: StudyResult

    def shortcut(self, name: str) -> Estimate | None:
        """AUC of a control that sees no cell; None: red cells are in view of too few patients."""
        store, config = self.store, self.config
        if name == "background":
            return _background(store, config, self.out, self.progress)
        if name == "shuffled_labels":
            return _shuffled(store, config, self.out, self.progress)
        features = {
            "bag_size": _bag_sizes, "red_cells": _red_cell_sizes, "image_files": _file_features
        }[name](store)  # fmt: skip
        return _by_features(features, store, self.main, config) if features else None

    def cell_groups(self) -> GroupFindings:
        """Groups of cell types alone; the folds have scored them."""
        metrics, confidence = self.main.metrics, self.config.evaluation.confidence
        positive = str(metrics["positive"])
        return find_groups(self.main.folds, metrics["classes"], positive, confidence)

    def source_control(self, name: str) -> SourceFinding:
        """A control on sources; nothing is computed where there is one source only."""
        who = participants(self.store)
        sources = {p: s for p, s in sources_of(self.store, sorted(who.labels)).items() if s}
        names = sorted(set(sources.values()))
        if len(names) < 2:
            only = f"one source only ({''.join(names) or 'unknown'}): cannot be measured"
            return SourceFinding(None, only)
        positive = str(self.main.metrics["positive"])
        study = open_study(self.store, who, self.config, positive, self.progress)
        if name == "source_probe":
            return probe_source(study, sources)
        folder = self.out / "controls" / "leave_one_source_out"
        return leave_one_source_out(study, sources, folder, self.progress)


def verdict(name: str, control: Estimate, headline: Estimate) -> str:
    """What a control says about the headline, in plain words."""
    told = f"AUC {control.value:.2f} ({control.low:.2f} to {control.high:.2f})"
    if control.low <= 0.5:
        return f"{told}: {_not_shown(control, 'to be better than chance')}."
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


def source_verdict(name: str, found: SourceFinding, headline: Estimate) -> str:
    """What a control on sources says about the headline, in plain words."""
    auc = found.auc
    if auc is None:
        return f"No AUC: {found.told}."
    told = f"AUC {auc.value:.2f} ({auc.low:.2f} to {auc.high:.2f})"
    if name == "source_probe":
        if auc.low <= 0.5:
            said = _not_shown(auc, "that the embeddings reveal the source")
            return f"{told}: {said} ({found.told})."
        return (
            f"{told}: the embeddings reveal the source ({found.told}), so the model can use "
            "whatever differs between sources."
        )
    if auc.low <= 0.5:
        means = "on sources that it was not trained on, the model is not shown to beat chance"
    elif auc.high < headline.value:
        means = f"below the headline (AUC {headline.value:.2f}): part of it depends on the source"
    else:
        means = f"consistent with the headline (AUC {headline.value:.2f})"
    return f"{told} within sources: {means} ({found.told})."


def _not_shown(auc: Estimate, what: str) -> str:
    few = ", but there are too few patients to rule it out" if auc.value >= SUSPICIOUS else ""
    return f"not shown {what}{few}"


def overall(results: Sequence[ControlResult]) -> str:
    """A few sentences on all controls."""
    loud = [r for r in results if r.loud and r.name in SHORTCUTS]
    by_name = {r.name: r for r in results}
    sentences = ["No control without cells is shown to be better than chance."]
    if loud:
        worst = max(r.auc.value for r in loud if r.auc is not None)
        named = ", ".join(
            f"{r.name.replace('_', ' ')} ({r.auc.value:.2f})" for r in loud if r.auc is not None
        )
        said = (
            f"Better than chance without the cells: {named}. The headline is biology only as far "
            f"as it exceeds {worst:.2f}, and only data from another source can show that."
        )
        sentences = [said]
    left_out, probed = by_name.get("leave_one_source_out"), by_name.get("source_probe")
    if left_out is not None and left_out.auc is None:
        sentences.append("Whether it holds at another source is not known.")
    if probed is not None and probed.loud:
        sentences.append("The embeddings reveal the source.")
    mature = by_name.get("mature_cells")
    if mature is not None and mature.cells is not None:
        sentences.append(conclusion(mature.cells))
    return " ".join(filter(None, sentences))


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


def _red_cell_sizes(store: Store) -> dict[str, list[float]]:
    """How large red cells look, in um: log of what they say over the stated scale.

    Where no patient has a stated one it is the scale by red cells itself. A patient of whom it is
    not known has the median; nobody has anything where that would be half of them.
    """
    stated: dict[str, float | None] = {}
    read: dict[str, float | None] = {}
    patients = participants(store).labels
    for bag in store.index():
        if bag.patient in patients:
            with BagReader(bag.path, verify=False) as reader:
                stated[bag.patient] = bag_over_stated(reader)
                read[bag.patient] = red_cells_um_px(reader)
    found = stated if any(stated.values()) else read
    known = [size for size in found.values() if size]
    if 2 * len(known) <= len(found):
        return {}
    middle = float(np.median(known))
    return {patient: [math.log(size or middle)] for patient, size in found.items()}


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
    features: Mapping[str, Sequence[float]], store: Store, main: StudyResult, config: Config
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
