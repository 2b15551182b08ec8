"""Who the patients of a study are: age, sex, site, stain, scanner and cells, by diagnosis.

Owns the table of characteristics and says how many values are missing. In a cross-validation every
patient trains and is tested, so that the parts differ by chance alone; the table is of the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from millie.files import Value
from millie.outputs.study.bag_facts import BagFacts
from millie.outputs.study.records import Study

_NUMBERS: dict[str, Callable[[BagFacts], float | None]] = {
    "age, years": lambda bag: bag.age,
    "image files": lambda bag: float(len(bag.digests)),
    "cells": lambda bag: float(bag.n_cells),
}
_NAMES: dict[str, Callable[[BagFacts], str]] = {
    "sex": lambda bag: bag.sex,
    "site": lambda bag: bag.site,
    "stain": lambda bag: bag.stain,
    "scanner": lambda bag: bag.scanner,
}


@dataclass(frozen=True, slots=True)
class Characteristic:
    """A row of the table: what, and its value for each class."""

    name: str
    values: tuple[str, ...]


def characteristics(study: Study, bags: Sequence[BagFacts]) -> tuple[Characteristic, ...]:
    """Rows for all that is known of at least one patient; columns in the order of the classes."""
    known = {bag.patient: bag for bag in bags}
    groups = [
        [known[p.patient] for p in study.patients if p.label == name and p.patient in known]
        for name in study.classes
    ]
    rows = [Characteristic("patients", tuple(str(len(group)) for group in groups))]
    for name, number_of in _NUMBERS.items():
        columns = [[number_of(bag) for bag in group] for group in groups]
        if any(value is not None for column in columns for value in column):
            rows.append(Characteristic(name, tuple(map(_summary, columns))))
    for name, word_of in _NAMES.items():
        words = [[word_of(bag).strip() for bag in group] for group in groups]
        if any(word for column in words for word in column):
            rows.append(Characteristic(name, tuple(map(_tally, words))))
    return tuple(rows)


def characteristic_rows(
    study: Study, rows: Sequence[Characteristic]
) -> tuple[list[str], list[Sequence[Value]]]:
    """Header and rows of ``characteristics.csv``."""
    return ["characteristic", *study.classes], [(row.name, *row.values) for row in rows]


def _summary(values: Sequence[float | None]) -> str:
    """Median (lowest to highest), and how many are missing."""
    there = np.array([value for value in values if value is not None])
    missing = len(values) - len(there)
    lost = f"; {missing} missing" if missing else ""
    if not len(there):
        return f"–{lost}"
    return f"{np.median(there):g} ({there.min():g} to {there.max():g}){lost}"


def _tally(words: Sequence[str]) -> str:
    counted = Counter(word or "unknown" for word in words)
    return ", ".join(f"{word}: {n}" for word, n in sorted(counted.items())) or "–"
