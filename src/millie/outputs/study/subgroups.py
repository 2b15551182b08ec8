"""The same figures in parts of the cohort: by sex, age, site, stain and scanner, with their n.

Owns the groups and their figures. Groups are small: intervals, not values, are to be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from millie.files import Value
from millie.outputs.study.bag_facts import BagFacts
from millie.outputs.study.records import Study, StudyPatient
from millie.statistics.intervals import Estimate, delong_interval
from millie.statistics.metrics import both_classes
from millie.statistics.rates import Counts, Rate

AGE_LIMITS = (18, 40, 60)
"""Years: children, young and middle adults, and those above."""


@dataclass(frozen=True, slots=True)
class Subgroup:
    """One part of the cohort.

    Attributes:
        kind: what it is a part by.
        name: of the part.
        n_positive: patients of the positive class; ``n_negative`` all others.
        auc: of the positive class with its DeLong interval, or None where a class is missing.
        sensitivity: at the study's thresholds; also ``specificity``.
    """

    kind: str
    name: str
    n_positive: int
    n_negative: int
    auc: Estimate | None
    sensitivity: Rate
    specificity: Rate


_KINDS: dict[str, Callable[[BagFacts], str]] = {
    "sex": lambda bag: bag.sex.strip().lower(),
    "age": lambda bag: age_group(bag.age),
    "site": lambda bag: bag.site,
    "stain": lambda bag: bag.stain,
    "scanner": lambda bag: bag.scanner,
}


def age_group(age: float | None) -> str:
    """The group of an age in years; empty where it is unknown."""
    if age is None:
        return ""
    edges = [0, *AGE_LIMITS]
    low = max(edge for edge in edges if edge <= max(age, 0))
    above = [edge for edge in AGE_LIMITS if edge > low]
    return f"{low} to {above[0] - 1} years" if above else f"{low} years or over"


def subgroups(study: Study, bags: Sequence[BagFacts]) -> tuple[Subgroup, ...]:
    """Figures of every group of every kind that splits the cohort.

    Patients for whom a kind is unknown are a group of their own, so that each kind counts all. A
    kind that is unknown for all, or the same for all, has no groups.
    """
    facts = {bag.patient: bag for bag in bags}
    found = []
    for kind, group_of in _KINDS.items():
        members: dict[str, list[StudyPatient]] = {}
        for patient in study.patients:
            bag = facts.get(patient.patient)
            name = group_of(bag) if bag else ""
            members.setdefault(name or "unknown", []).append(patient)
        if len(members) > 1:
            found += [
                _figures(kind, name, members[name], study.positive) for name in sorted(members)
            ]
    return tuple(found)


def _figures(
    kind: str, name: str, patients: Sequence[StudyPatient], positive_class: str
) -> Subgroup:
    positive = np.array([p.label == positive_class for p in patients], bool)
    called = np.array([p.call == positive_class for p in patients], bool)
    score = np.array([p.probability for p in patients])
    counts = Counts.of(positive, called)
    auc = delong_interval(positive, score) if both_classes(positive) else None
    return Subgroup(
        kind, name, int(positive.sum()), int((~positive).sum()),
        auc, counts.sensitivity, counts.specificity,
    )  # fmt: skip


SUBGROUP_HEADER = (
    "by", "group", "n_positive", "n_negative", "auc", "auc_low", "auc_high", "sensitivity",
    "sensitivity_low", "sensitivity_high", "specificity", "specificity_low", "specificity_high",
)  # fmt: skip


def subgroup_rows(groups: Sequence[Subgroup]) -> list[Sequence[Value]]:
    """Rows of ``subgroups.csv``."""
    return [
        (
            g.kind, g.name, g.n_positive, g.n_negative,
            *((g.auc.value, g.auc.low, g.auc.high) if g.auc else (None, None, None)),
            g.sensitivity.value, g.sensitivity.low, g.sensitivity.high,
            g.specificity.value, g.specificity.low, g.specificity.high,
        )
        for g in groups
    ]  # fmt: skip
