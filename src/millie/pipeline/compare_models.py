"""Two versions of a model on the same patients: does the new one call as well, and what is it?

Owns who is compared, what is compared (the class of the threshold against all others) and the files
that tell it. Patients whose images trained either model are left out: on them the model that knows
them would win. Statistics are :mod:`millie.statistics.noninferiority`, the digits of a version
:mod:`millie.models.versions`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from millie import __version__
from millie.bags.store import BagReader, Store
from millie.errors import ConfigError
from millie.files import write_csv, write_text
from millie.models.bundle_folder import locate, read_settings
from millie.models.changes import Change, changes
from millie.models.versions import Digit, is_enough, next_version
from millie.pipeline.caller import Caller, loading, settings_for
from millie.pipeline.inputs import bags_of_store, without_contradictions
from millie.pipeline.segment_cohort import Progress, silent
from millie.statistics.noninferiority import Paired, paired_auc, paired_rate, pairs_needed
from millie.types import RESEARCH_USE_ONLY, Prediction, Problem

if TYPE_CHECKING:
    from millie.config import Config

AUC_MARGIN = 0.05
"""Loss of AUC that counts as none: the width that an AUC of some eighty patients has to a side."""
RATE_MARGIN = 0.1
"""Loss of sensitivity or specificity that counts as none; 35 patients of a class can show it."""

_TITLES = {"auc": "AUC", "sensitivity": "Sensitivity", "specificity": "Specificity"}


@dataclass(frozen=True, slots=True)
class PatientPair:
    """A patient with what both models say; ``trained`` names the models that its images trained."""

    patient: str
    label: str
    probabilities: tuple[float, float]
    called: tuple[bool, bool]
    states: tuple[str, str]
    trained: str


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """What ``millie models compare`` found.

    Attributes:
        old: name and version.
        new: likewise.
        positive: the class that is compared with all others.
        figures: ``auc``, ``sensitivity``, ``specificity``; empty where too few patients are left.
        patients: all that both models gave probabilities, in the order of their names.
        changes: every difference of the two models, the gravest first.
        needed: the least version that these differences need.
        enough: whether the new model's version is as high.
        warnings: what stands against believing the figures.
        problems: patients that could not be used.
    """

    old: str
    new: str
    positive: str
    figures: Mapping[str, Paired]
    patients: tuple[PatientPair, ...]
    changes: tuple[Change, ...]
    needed: str
    enough: bool
    warnings: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def verdict(self) -> str:
        """``non-inferior`` if each figure is; ``inferior`` if one is; else ``not shown``.

        ``non-inferior`` too where nothing that calls depend on has changed.
        """
        if self.same_calls:
            return "non-inferior"
        verdicts = {figure.verdict for figure in self.figures.values()}
        if verdicts == {"non-inferior"}:
            return "non-inferior"
        return "inferior" if "inferior" in verdicts else "not shown"

    @property
    def same_calls(self) -> bool:
        """Whether text alone has changed, and no patient got another probability or state."""
        pairs = (x for p in self.patients for x in (p.probabilities, p.states))
        return bool(self.patients) and self.digit < Digit.MINOR and all(a == b for a, b in pairs)

    @property
    def digit(self) -> Digit:
        """The part of the version that the changes need."""
        return max((change.digit for change in self.changes), default=Digit.NONE)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "schema": 1, "millie": __version__, "research_use_only": RESEARCH_USE_ONLY,
            "old": self.old, "new": self.new, "positive": self.positive, "verdict": self.verdict,
            "figures": {name: figure.to_dict() for name, figure in self.figures.items()},
            "digit": self.digit.name, "version_needed": self.needed, "version_enough": self.enough,
            "changes": [{"digit": c.digit.name, "what": c.what} for c in self.changes],
            "warnings": list(self.warnings),
            "problems": [p.message for p in self.problems],
        }  # fmt: skip

    def rows(self) -> list[tuple[str, ...]]:
        """Figure, old, new, difference, interval, margin, n, verdict; as text."""
        return [
            (_TITLES[name], f"{f.old:.3f}", f"{f.new:.3f}", f"{f.difference.value:+.3f}",
             f"{f.difference.low:+.3f} to {f.difference.high:+.3f}", f"-{f.margin:g}", str(f.n),
             f.verdict)
            for name, f in self.figures.items()
        ]  # fmt: skip

    def lines(self) -> list[str]:
        """The verdict, what it lacks, and what the version has to be."""
        found = [f"{self.new} against {self.old}: {self.verdict}"]
        if self.same_calls:
            found[0] += f"; {len(self.patients)} patients, the same calls to the last digit"
        for name, figure in self.figures.items():
            least = pairs_needed(figure.margin)
            short = figure.verdict == "not shown" and figure.n < least
            if name != "auc" and short and not self.same_calls:
                found.append(
                    f"{_TITLES[name]}: {figure.n} patients; this margin needs {least} or more, "
                    "even if the new model misses none that the old one called"
                )
        found += [f"  {change.digit.name}: {change.what}" for change in self.changes]
        if not self.changes:
            return [*found, "The models do not differ: no new version is needed."]
        state = "is enough" if self.enough else "is too low"
        found.append(
            f"This is a {self.digit.name} change: version {self.needed} or higher; "
            f"{self.new.rpartition(' ')[2]} {state}"
        )
        return found


COLUMNS = (
    "patient", "label", "old_probability", "new_probability", "old_called", "new_called",
    "old_state", "new_state", "trained",
)  # fmt: skip
"""Of ``patients.csv``: probabilities are of the class that is compared."""


def compare_models(
    old: str | Path,
    new: str | Path,
    store: Path,
    out: Path,
    *,
    new_store: Path | None = None,
    auc_margin: float = AUC_MARGIN,
    rate_margin: float = RATE_MARGIN,
    progress: Progress = silent,
) -> Comparison:
    """Call the labelled patients of a store by two models and compare, patient by patient.

    Sensitivity and specificity are those of the class of the threshold at each model's own
    operating point; gates take no part in them, and the states stand in the table.

    Args:
        old: name of a shipped bundle, or a folder.
        new: likewise.
        store: bags with labels; patients whose label one of the models does not have are left out.
        out: new folder for ``comparison.json`` and ``patients.csv``.
        new_store: the same patients cut for the new model; None: both read ``store``.
        auc_margin: largest loss of AUC that counts as none.
        rate_margin: likewise of sensitivity and specificity.
        progress: called after each patient.

    Raises:
        ConfigError: ``out`` exists, the models answer different questions, a margin is none, or a
            store holds crops of another size than a model expects.
        MissingFileError: no such model or store.
        BundleError: a model is damaged or needs another millie.
    """
    if out.exists():
        raise ConfigError(f"{out} exists; name a new folder for the comparison")
    for name, margin in (("AUC", auc_margin), ("rates", rate_margin)):
        if not 0 < margin < 1:
            raise ConfigError(f"margin of {name} {margin:g}: expected more than 0 and less than 1")
    stated = [read_settings(locate(model)) for model in (old, new)]
    positive = _question(*stated)
    sides = [_side(m, Store(s), progress) for m, s in ((old, store), (new, new_store or store))]
    pairs, left = _pairs(sides, set(stated[0][0].labels) & set(stated[1][0].labels), positive)
    measured = [pair for pair in pairs if not pair.trained]
    figures = _figures(measured, positive, auc_margin, rate_margin)
    found = changes(*stated)
    digit = max((change.digit for change in found), default=Digit.NONE)
    before, after = (manifest.version for manifest, _ in stated)
    result = Comparison(
        old=sides[0].caller.bundle.name,
        new=sides[1].caller.bundle.name,
        positive=positive,
        figures=figures,
        patients=tuple(pairs),
        changes=found,
        needed=next_version(before, digit),
        enough=is_enough(before, after, digit),
        warnings=(*left, *_warnings(sides, pairs, measured, figures)),
        problems=tuple(dict.fromkeys([*sides[0].problems, *sides[1].problems])),
    )
    _write(out, result, sides)
    return result


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """One of the two models with its store and what it said."""

    caller: Caller
    config: Config
    store: Store
    predictions: Mapping[str, Prediction]
    problems: Sequence[Problem]


def _question(old: tuple[Any, Config], new: tuple[Any, Config]) -> str:
    """The class that both models have a threshold for."""
    before, after = old[0], new[0]
    if before.positive != after.positive:
        raise ConfigError(
            f"{before.name} {before.version} asks for {before.positive}, {after.name} "
            f"{after.version} for {after.positive}: models with different questions cannot be "
            "compared; the new one is a MAJOR version or another model"
        )
    return str(after.positive)


def _side(model: str | Path, store: Store, progress: Progress) -> _Side:
    config = settings_for(model, None, ())
    try:
        bags, problems = bags_of_store(store, config)
    except ConfigError as error:
        error.add_note(
            "if the two models expect different crops, cut the same patients again for the new one "
            "and name that store with --new-store"
        )
        raise
    with loading(model, config, None, progress) as (caller, watched):
        loaded = caller()
        bags, shared = without_contradictions(store, bags)
        predictions, failed = loaded.predict(bags, config, watched)
    found = {prediction.patient: prediction for prediction in predictions}
    return _Side(loaded, config, store, found, (*problems, *shared, *failed))


def _pairs(
    sides: Sequence[_Side], labels: set[str], positive: str
) -> tuple[list[PatientPair], list[str]]:
    """Patients that both called, and how many others are left out for what reason."""
    own = [{bag.patient: bag.label or "" for bag in side.store.scan()[0]} for side in sides]
    pairs: list[PatientPair] = []
    reasons: Counter[str] = Counter()
    for patient in sorted({*own[0], *own[1]}):
        label = own[0].get(patient, "")
        if any(patient not in side.predictions for side in sides):
            reasons["not called by both models"] += 1
        elif label != own[1][patient]:
            reasons["with different labels in the two stores"] += 1
        elif label not in labels:
            reasons[f"with label '{label}', which is not one of both models" if label
                    else "without a label"] += 1  # fmt: skip
        else:
            pairs.append(_pair(patient, label, sides, positive))
    return pairs, [f"left out {reason}: {n}" for reason, n in sorted(reasons.items())]


def _pair(patient: str, label: str, sides: Sequence[_Side], positive: str) -> PatientPair:
    from millie.inference.operating import bundle_rule
    from millie.inference.trained_on import trained_on

    probabilities, called, states, trained = [], [], [], []
    for side, name in zip(sides, ("old", "new"), strict=True):
        said = side.predictions[patient]
        rule = bundle_rule(side.caller.bundle, side.config.prediction)
        probabilities.append(said.probabilities[positive])
        called.append(rule.called(said.probabilities) == positive)
        states.append(said.state)
        with BagReader(side.store.path_of(patient), verify=False) as bag:
            if trained_on(bag, side.caller.bundle.reference):
                trained.append(name)
    return PatientPair(
        patient, label, (probabilities[0], probabilities[1]), (called[0], called[1]),
        (states[0], states[1]), " ".join(trained),
    )  # fmt: skip


def _figures(
    pairs: Sequence[PatientPair], positive: str, auc_margin: float, rate_margin: float
) -> dict[str, Paired]:
    """Empty where a class has nobody."""
    truth = np.array([pair.label == positive for pair in pairs], bool)
    if truth.all() or not truth.any():
        return {}
    p = np.array([pair.probabilities for pair in pairs], np.float64)
    called = np.array([pair.called for pair in pairs], bool)
    return {
        "auc": paired_auc(truth, p[:, 0], p[:, 1], auc_margin),
        "sensitivity": paired_rate(called[truth, 0], called[truth, 1], rate_margin),
        "specificity": paired_rate(~called[~truth, 0], ~called[~truth, 1], rate_margin),
    }


def _warnings(
    sides: Sequence[_Side],
    pairs: Sequence[PatientPair],
    measured: Sequence[PatientPair],
    figures: Mapping[str, Paired],
) -> list[str]:
    from millie.inference.trained_on import IMAGES

    found = []
    for side, name in zip(sides, ("old", "new"), strict=True):
        model = side.caller.bundle.name
        if IMAGES not in side.caller.bundle.reference:
            found.append(
                f"{model} keeps no list of the images that it was trained on: make sure that none "
                "of these patients is among them"
            )
        if known := [pair for pair in pairs if name in pair.trained.split()]:
            found.append(
                f"{len(known)} of {len(pairs)} patients trained {model} (the first: "
                f"{known[0].patient}): left out of all figures"
            )
    if not figures:
        found.append(
            f"{len(measured)} patients are left, of one class or none: nothing can be compared; "
            "give a store of patients that neither model was trained on"
        )
    return found


def _write(out: Path, result: Comparison, sides: Sequence[_Side]) -> None:
    out.mkdir(parents=True)
    models = {
        name: {"model": side.caller.bundle.name, "sha256": side.caller.bundle.sha256,
               "requires_millie": side.caller.bundle.manifest.requires_millie,
               "store": side.store.root.name}
        for name, side in zip(("old", "new"), sides, strict=True)
    }  # fmt: skip
    write_csv(
        out / "patients.csv", COLUMNS,
        ((p.patient, p.label, *p.probabilities, *p.called, *p.states, p.trained)
         for p in result.patients),
    )  # fmt: skip
    content = {**result.to_dict(), "models": models}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(out / "comparison.json", text + "\n")
