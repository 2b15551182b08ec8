"""The data of an experiment: found under one folder, read by its adapters, joined into one cohort.

Owns where a data set may lie (the folder itself, a sub-folder of the set's name or one that begins
with it), the classes of the experiment, and the words on what is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from millie.errors import ManifestError, MissingFileError
from millie.readers.datasets import DATASETS
from millie.readers.published import Dataset
from millie.reproduce.experiments import Experiment, Part
from millie.types import Cohort, Patient, Problem

_LISTED = 12


@dataclass(frozen=True, slots=True)
class Missing:
    """A data set that is not there, and how to get it."""

    dataset: str
    message: str


@dataclass(frozen=True, slots=True)
class Gathered:
    """What is there of an experiment.

    Attributes:
        cohort: patients with the experiment's classes.
        roots: folder of each data set that was found.
        missing: the sets that were not.
    """

    cohort: Cohort
    roots: dict[str, Path]
    missing: tuple[Missing, ...]

    def counts(self) -> dict[str, int]:
        """Patients of each class."""
        return dict(sorted(Counter(p.label or "" for p in self.cohort.patients).items()))


def find(dataset: Dataset, data: Path) -> Path | Missing:
    """The root of a data set under a folder, or why there is none.

    A sub-folder that bears the set's name but not its layout is named with the expected tree beside
    the one found.
    """
    named = [data / dataset.name, *_beginning_with(dataset.name, data)]
    for folder in (*named, data):
        if folder.is_dir() and dataset.layout.fits(folder):
            return folder
    for folder in named:
        if folder.is_dir():
            try:
                return dataset.layout.check(folder)
            except ManifestError as error:
                place = f"put this folder, named {dataset.name}, into {data}: "
                return Missing(dataset.name, str(error).replace("give --root ", place))
    where = f"put it into {data / dataset.name}. Source: {dataset.source}"
    return Missing(dataset.name, f"{dataset.name} ({dataset.summary}) not found: {where}")


def gather(experiment: Experiment, data: Path) -> Gathered:
    """Read all that is there of an experiment's data.

    Raises:
        MissingFileError: the folder does not exist, or fewer than two classes are there; the
            message names every missing set.
    """
    if not data.is_dir():
        raise MissingFileError(f"{data} is not a folder; give the one that holds the data sets")
    patients: list[Patient] = []
    problems: list[Problem] = []
    roots, missing = {}, []
    for part in experiment.parts:
        found = find(DATASETS[part.dataset], data)
        if isinstance(found, Missing):
            missing.append(found)
            continue
        roots[part.dataset] = found
        cohort = DATASETS[part.dataset].prepare(found)
        patients += _chosen(cohort.patients, part, alone=len(experiment.parts) == 1)
        problems += cohort.problems
    joined = Cohort(experiment.name, tuple(patients), tuple(problems))
    if len(joined.labels) < 2:
        there = f"only {', '.join(joined.labels)}" if joined.labels else "no data set"
        told = "\n".join(absent.message for absent in missing)
        raise MissingFileError(
            f"{experiment.name} ({experiment.title}): {there} found, at least two classes are "
            f"needed\n{told}\nContent of {data}: {_listed(data)}"
        )
    return Gathered(joined, roots, tuple(missing))


def shortfalls(experiment: Experiment, gathered: Gathered) -> tuple[str, ...]:
    """In words, where the patients that are there are not those that the paper counts."""
    found = [f"without {absent.dataset}, which was not found" for absent in gathered.missing]
    counts = gathered.counts()
    printed: Counter[str] = Counter()
    for part in experiment.parts:
        printed.update(dict(part.counts))
    wrong = [
        f"{counts.get(name, 0)} {name} ({n} in the paper)"
        for name, n in printed.items()
        if counts.get(name, 0) != n
    ]
    return (*found, *(["patients: " + ", ".join(wrong)] if wrong else []))


def _chosen(patients: Iterable[Patient], part: Part, *, alone: bool) -> list[Patient]:
    """Patients of the experiment's classes; the data set is their site where none is known."""
    return [
        replace(
            patient,
            id=patient.id if alone else f"{part.dataset}-{patient.id}",
            label=part.labels[patient.label],
            site=patient.site or part.dataset,
        )
        for patient in patients
        if patient.label is not None and patient.label in part.labels
    ]


def _listed(folder: Path) -> str:
    """What lies in a folder, in a line."""
    entries = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = f" and {len(entries) - _LISTED} more" if len(entries) > _LISTED else ""
    return ", ".join(entries[:_LISTED]) + more if entries else "nothing"


def _beginning_with(name: str, data: Path) -> Sequence[Path]:
    return sorted(p for p in data.glob(f"{name}*") if p.is_dir() and p.name != name)
