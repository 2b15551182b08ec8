"""Index to reporting guidelines: which items a study report fills, and which its author must.

Owns the table of items (``checklists.csv``: number, topic in our own words, the section of the
report that answers it) and the decision whether a given report has that section. It is a help for
filling in the official forms, not a replacement of them.

Source: CLAIM 2024 update, Tejani et al., Radiology: Artificial Intelligence 6:e240300 (2024), 44
items; TRIPOD+AI, Collins et al., BMJ 385:e078378 (2024), 27 items in 52 parts; STARD-AI,
Sounderajah et al., Nature Medicine 31:3283 (2025), 40 items in 48 parts.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

from millie.files import Value

SECTIONS = {
    "headline": "Summary, at the top",
    "protocol": "Methods",
    "overlap": "Overlap check",
    "flow": "Patient flow",
    "characteristics": "Patient characteristics",
    "confusion": "Patient-level results",
    "utility": "Clinical utility",
    "indeterminates": "Indeterminate results",
    "subgroups": "Subgroups",
    "robustness": "Robustness",
    "galleries": "Highest-scoring cells",
    "wrong": "Misclassified patients",
    "environment": "Environment and settings",
    "settings": "Environment and settings",
    "hashes": "Environment and settings",
}
"""Sections of the report that answer items, and their titles."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a guideline.

    Attributes:
        guideline: name and year.
        number: as printed there.
        topic: in our own words.
        section: of :data:`SECTIONS` that can answer it; empty: only the author can.
    """

    guideline: str
    number: str
    topic: str
    section: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An item and where it is answered; ``filled`` False: the author must supply it."""

    item: Item
    filled: bool

    @property
    def where(self) -> str:
        """For people."""
        if self.filled:
            return f"this report: {SECTIONS[self.item.section]}"
        if self.item.section:
            return f"author must supply (no section '{SECTIONS[self.item.section]}' in this report)"
        return "author must supply"


@dataclass(frozen=True, slots=True)
class Checklist:
    """The answers to one guideline."""

    guideline: str
    answers: tuple[Answer, ...]

    @property
    def n_filled(self) -> int:
        """Items that the report fills, at least in part."""
        return sum(answer.filled for answer in self.answers)


def items() -> tuple[Item, ...]:
    """Every item of every guideline, in printed order."""
    text = (resources.files("millie.outputs.study") / "checklists.csv").read_text(encoding="utf-8")
    return tuple(
        Item(row["guideline"], row["item"], row["topic"], row["section"])
        for row in csv.DictReader(io.StringIO(text))
    )


def checklists(present: Iterable[str]) -> tuple[Checklist, ...]:
    """Answer every guideline for a report.

    Args:
        present: the sections that the report has, of :data:`SECTIONS`.
    """
    there = set(present)
    by_guideline: dict[str, list[Answer]] = {}
    for item in items():
        by_guideline.setdefault(item.guideline, []).append(Answer(item, item.section in there))
    return tuple(Checklist(name, tuple(answers)) for name, answers in by_guideline.items())


CHECKLIST_HEADER = ("guideline", "item", "topic", "where")


def checklist_rows(found: Sequence[Checklist]) -> list[Sequence[Value]]:
    """Rows of ``checklists.csv``."""
    return [
        (answer.item.guideline, answer.item.number, answer.item.topic, answer.where)
        for checklist in found
        for answer in checklist.answers
    ]
