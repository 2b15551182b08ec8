"""Patient flow: who was there, who was left out and why, who was tested.

Owns the steps from cohort to result and their counts (STARD: flow diagram). Patients that never got
a bag are known from the problems that the store has kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from millie.files import Value
from millie.outputs.study.bag_facts import StoreFacts
from millie.outputs.study.records import Study

_ERROR_WORDS = {
    "NoCellsError": "no leukocytes found",
    "ImageError": "unreadable images",
    "ImageTooLargeError": "images too large",
    "ScaleError": "scale unknown or implausible",
    "ManifestError": "error in the manifest or data set",
    "StoreError": "damaged bag file",
    "MissingFileError": "missing files",
}
"""Errors that leave a patient without a bag; any other is shown by its name."""


@dataclass(frozen=True, slots=True)
class FlowStep:
    """A box of the diagram.

    Attributes:
        title: what the remaining patients have.
        n: patients that remain.
        by_class: of them by diagnosis, where it is known.
        left_out: those lost before this box, by reason.
    """

    title: str
    n: int
    by_class: dict[str, int]
    left_out: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class PatientFlow:
    """The diagram and what was counted besides.

    Attributes:
        steps: from cohort to result.
        counts: images, cells and flags, by name.
    """

    steps: tuple[FlowStep, ...]
    counts: dict[str, int]


def patient_flow(study: Study, facts: StoreFacts) -> PatientFlow:
    """Count patients step by step."""
    bags = {bag.patient: bag for bag in facts.bags}
    lost = {
        p.patient: _ERROR_WORDS.get(p.error, p.error)
        for p in facts.problems
        if p.patient and p.fatal and p.patient not in bags
    }
    tested = {p.patient: p.label for p in study.patients}
    labelled = [bag for bag in facts.bags if bag.label]
    usable = [bag for bag in labelled if bag.n_cells]
    not_tested = Counter("not in the study results" for bag in usable if bag.patient not in tested)
    steps = (
        FlowStep("in the cohort", len(bags) + len(lost), _classes(b.label for b in facts.bags)),
        FlowStep(
            "with readable images and leukocytes", len(bags),
            _classes(b.label for b in facts.bags), _reasons(Counter(lost.values())),
        ),
        FlowStep(
            "with a reference diagnosis", len(labelled), _classes(b.label for b in labelled),
            _reasons(Counter("no reference diagnosis" for b in facts.bags if not b.label)),
        ),
        FlowStep(
            "with at least one cell", len(usable), _classes(b.label for b in usable),
            _reasons(Counter("no cells" for b in labelled if not b.n_cells)),
        ),
        FlowStep("tested, once in each repeat", len(tested), _classes(tested.values()),
                 _reasons(not_tested)),
    )  # fmt: skip
    return PatientFlow(steps, _counts(study, facts))


def flow_rows(flow: PatientFlow) -> list[Sequence[Value]]:
    """Rows of ``patient_flow.csv``: step, patients, by class, left out and why."""
    return [
        (
            step.title,
            step.n,
            "; ".join(f"{name}: {n}" for name, n in step.by_class.items()),
            sum(n for _, n in step.left_out),
            "; ".join(f"{reason}: {n}" for reason, n in step.left_out),
        )
        for step in flow.steps
    ]


FLOW_HEADER = ("step", "patients", "by_class", "left_out", "reasons")


def _counts(study: Study, facts: StoreFacts) -> dict[str, int]:
    used = facts.of(p.patient for p in study.patients)
    unusable = [p for bag in used for p in bag.problems if not p.note]
    unusable += [p for p in facts.problems if p.source and not p.note]
    return {
        "images with cells": sum(len(bag.digests) for bag in used),
        "images not used": len({(p.patient, p.source) for p in unusable}),
        "cells": sum(bag.n_cells for bag in used),
        "of these, smudge cells": sum(bag.n_smudge for bag in used),
        "of these, not outlined": sum(bag.n_no_outline for bag in used),
    }


def _classes(labels: Iterable[str | None]) -> dict[str, int]:
    counted = Counter(label or "no diagnosis" for label in labels)
    return dict(sorted(counted.items()))


def _reasons(counted: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
