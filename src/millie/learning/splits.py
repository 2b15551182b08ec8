"""Who is trained on and who is tested: splits by patient, stratified by diagnosis, saved.

Owns the assignment of patients to parts and the proof that no patient is in two of them. Knows no
images and no model; splits depend on ids, labels and a seed alone, never on the order of a listing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from millie.errors import ConfigError, ManifestError, MissingFileError, TrainingError
from millie.files import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Fold:
    """One assignment of all patients; the three parts are sorted and disjoint.

    Attributes:
        repeat: from 0.
        fold: from 0 within its repeat.
        train: patients whose cells set the weights.
        validation: cut from the training part; early stopping only.
        test: touched once, after every choice has been made.
    """

    repeat: int
    fold: int
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def name(self) -> str:
        """Short name for files and tables, for example ``r0-f2``."""
        return f"r{self.repeat}-f{self.fold}"


@dataclass(frozen=True, slots=True)
class Splits:
    """All folds of all repeats.

    Attributes:
        folds: number of folds in a repeat.
        repeats: number of repeats.
        seed: of the generator that dealt the patients.
        assignments: ordered by repeat, then fold.
    """

    folds: int
    repeats: int
    seed: int
    assignments: tuple[Fold, ...]

    def digest(self) -> str:
        """SHA-256 (hex) of the assignments."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")


def make_splits(
    labels: Mapping[str, str],
    folds: int,
    repeats: int,
    seed: int,
    validation_fraction: float = 0.0,
) -> Splits:
    """Deal patients into test folds, stratified by label; each repeat deals anew.

    Args:
        labels: diagnosis of each patient, by id. The order does not matter.
        folds: at least 2.
        repeats: at least 1.
        seed: equal seeds, equal splits.
        validation_fraction: share of each training part that is cut off for early stopping.

    Raises:
        TrainingError: fewer than two classes, or a class has fewer patients than folds.
        ConfigError: folds or repeats out of range.
    """
    if folds < 2 or repeats < 1:
        raise ConfigError(f"folds={folds}, repeats={repeats}: expected at least 2 and at least 1")
    check_classes(labels, at_least=folds, purpose=f"{folds} folds")
    assignments = []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        parts = deal(labels, folds, rng)
        for fold, test in enumerate(parts):
            rest = {p: labels[p] for p in sorted(labels) if p not in set(test)}
            train, validation = cut_validation(rest, validation_fraction, rng)
            assignments.append(Fold(repeat, fold, train, validation, test))
    splits = Splits(folds, repeats, seed, tuple(assignments))
    check_splits(splits)
    return splits


def check_classes(labels: Mapping[str, str], at_least: int, purpose: str) -> None:
    """Refuse a cohort that cannot be split.

    Raises:
        TrainingError: fewer than two classes, or a class has fewer than ``at_least`` patients.
    """
    counts = Counter(labels.values())
    if len(counts) < 2:
        raise TrainingError(
            f"all patients have the same class ({dict(counts)}): at least two are needed; "
            "check the label column of the manifest"
        )
    small = {name: n for name, n in sorted(counts.items()) if n < at_least}
    if small:
        raise TrainingError(
            f"too few patients for {purpose}: {small}; at least {at_least} of each class are "
            "needed. Add patients, leave the class out or, in crossval, use fewer folds"
        )


def deal(labels: Mapping[str, str], parts: int, rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Split patients into disjoint parts; sizes, and counts of each class, differ by at most 1.

    Classes are shuffled one after the other and dealt round robin, each going on where the last
    one stopped.
    """
    dealt: list[list[str]] = [[] for _ in range(parts)]
    position = 0
    for name in sorted(set(labels.values())):
        members = sorted(p for p, label in labels.items() if label == name)
        for index in rng.permutation(len(members)):
            dealt[position % parts].append(members[index])
            position += 1
    return [tuple(sorted(part)) for part in dealt]


def cut_validation(
    labels: Mapping[str, str], fraction: float, rng: np.random.Generator
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Cut a stratified validation part from training patients.

    Each class gives ``fraction`` of its patients, rounded, at least one and never all; a class
    with a single patient gives none.

    Returns:
        Training and validation ids, sorted; validation is empty if the fraction is 0.
    """
    validation: set[str] = set()
    for name in sorted(set(labels.values())):
        members = sorted(p for p, label in labels.items() if label == name)
        wanted = max(1, round(fraction * len(members))) if fraction > 0 else 0
        chosen = rng.permutation(len(members))[: min(wanted, len(members) - 1)]
        validation.update(members[i] for i in chosen)
    train = tuple(sorted(p for p in labels if p not in validation))
    return train, tuple(sorted(validation))


def check_splits(splits: Splits) -> None:
    """Prove that no patient is in two parts of a fold and each is tested once a repeat.

    Raises:
        ManifestError: naming the patients and the fold.
    """
    everyone = {p for a in splits.assignments for p in (*a.train, *a.validation, *a.test)}
    tested: Counter[tuple[int, str]] = Counter()
    for a in splits.assignments:
        counts = Counter([*a.train, *a.validation, *a.test])
        twice = sorted(p for p, n in counts.items() if n > 1)
        if twice:
            raise ManifestError(
                f"repeat {a.repeat}, fold {a.fold}: {', '.join(twice)} are in two parts; "
                "each patient must be in exactly one of train, validation and test"
            )
        tested.update((a.repeat, p) for p in a.test)
    for repeat in range(splits.repeats):
        wrong = sorted(p for p in everyone if tested[repeat, p] != 1)
        if wrong:
            raise ManifestError(
                f"repeat {repeat}: {', '.join(wrong[:10])} tested "
                f"{tested[repeat, wrong[0]]} times; expected once"
            )


def load_splits(path: Path) -> Splits:
    """Read saved splits and check them.

    Raises:
        MissingFileError: no such file.
        ManifestError: not JSON of this form, or a patient in two parts.
    """
    if not path.is_file():
        raise MissingFileError(f"no splits at {path}; `millie crossval` writes them")
    try:
        splits = _parse(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestError(
            f"{path} is not a file of splits ({type(error).__name__}: {error}); expected JSON with "
            "folds, repeats, seed and assignments. Delete it to have it written again"
        ) from error
    check_splits(splits)
    return splits


def _parse(data: dict[str, Any]) -> Splits:
    assignments = tuple(
        Fold(
            int(a["repeat"]),
            int(a["fold"]),
            tuple(map(str, a["train"])),
            tuple(map(str, a["validation"])),
            tuple(map(str, a["test"])),
        )
        for a in data["assignments"]
    )
    return Splits(int(data["folds"]), int(data["repeats"]), int(data["seed"]), assignments)


def part_labels(labels: Mapping[str, str], part: Sequence[str]) -> dict[str, str]:
    """Labels of the patients of one part, in the part's order."""
    return {patient: labels[patient] for patient in part}
