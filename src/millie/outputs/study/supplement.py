"""What a reviewer asks for beyond the headline: flow, overlap, utility, subgroups, robustness.

Owns the gathering of these parts from a study's folder and its bag store. Without the store the
parts that need it are absent, and the checklists say so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from millie.bags.store import Store
from millie.config import PredictionConfig, load
from millie.errors import ConfigError
from millie.outputs.study.bag_facts import read_store
from millie.outputs.study.characteristics import Characteristic, characteristics
from millie.outputs.study.checklists import Checklist, checklists
from millie.outputs.study.figures import net_benefit, predictive
from millie.outputs.study.indeterminates import Indeterminates, indeterminates
from millie.outputs.study.overlap_proof import OverlapProof, prove
from millie.outputs.study.patient_flow import PatientFlow, patient_flow
from millie.outputs.study.records import Study
from millie.outputs.study.subgroups import Subgroup, subgroups
from millie.outputs.tables import read_json
from millie.statistics.decision_curve import useful_range
from millie.statistics.rates import PredictiveValues

PREVALENCES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Of the table of predictive values."""

_HASHED = (
    "config.toml", "splits.json", "predictions.csv", "cells.csv", "metrics.json", "controls.json",
    "robustness.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RobustnessCurve:
    """A figure of merit under a growing change of the images.

    Attributes:
        name: of the change.
        x_label: of its strength, with the unit.
        measure: what was measured.
        points: (strength, value, low, high).
    """

    name: str
    x_label: str
    measure: str
    points: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Supplement:
    """The parts; None or empty where the study's files do not allow one.

    Attributes:
        flow: patients from cohort to result.
        characteristics: who they are, a row a characteristic.
        overlap: the proof that nothing is shared between parts.
        useful: range of threshold probabilities in which the model is worth using.
        has_utility: whether there is a decision curve.
        predictive: predictive values at a few prevalences.
        indeterminates: figures under three ways of counting them.
        subgroups: figures of parts of the cohort.
        robustness: what changes of the images do, as ``robustness.json`` says.
        hashes: SHA-256 of the study's files and of its bags together.
        checklists: items of reporting guidelines and where they are answered.
    """

    flow: PatientFlow | None
    characteristics: tuple[Characteristic, ...]
    overlap: OverlapProof | None
    useful: tuple[float, float] | None
    has_utility: bool
    predictive: PredictiveValues | None
    indeterminates: Indeterminates
    subgroups: tuple[Subgroup, ...]
    robustness: tuple[RobustnessCurve, ...]
    hashes: tuple[tuple[str, str], ...]
    checklists: tuple[Checklist, ...]


def read_supplement(study: Study, store: Store | None) -> Supplement:
    """Gather all parts; the search for equal cells is kept in the study's folder.

    Raises:
        DataError: a file of the study is damaged.
    """
    facts = read_store(store) if store is not None else None
    bags = facts.of(p.patient for p in study.patients) if facts is not None else ()
    curve = net_benefit(study)
    flow = patient_flow(study, facts) if facts is not None else None
    groups = subgroups(study, bags)
    robust = read_robustness(study.folder)
    rows = characteristics(study, bags) if bags else ()
    overlap = prove(study.folder, store, bags) if store is not None and bags else None
    present = _present(study, flow, groups, robust, has_store=bool(bags))
    return Supplement(
        flow=flow,
        characteristics=rows,
        overlap=overlap,
        useful=useful_range(curve) if curve is not None else None,
        has_utility=curve is not None,
        predictive=predictive(study, np.array(PREVALENCES)) if curve is not None else None,
        indeterminates=indeterminates(study, _gates(study.folder / "config.toml")),
        subgroups=groups,
        robustness=robust,
        hashes=hashes(study.folder, [bag.sha256 for bag in bags]),
        checklists=checklists(present),
    )


def read_robustness(folder: Path) -> tuple[RobustnessCurve, ...]:
    """The curves in ``robustness.json``; empty without the file."""
    path = folder / "robustness.json"
    if not path.is_file():
        return ()
    return tuple(
        RobustnessCurve(
            str(entry["name"]),
            str(entry["x_label"]),
            str(entry["measure"]),
            tuple(_point(point) for point in entry["points"]),
        )
        for entry in read_json(path).get("curves", [])
    )


def _point(point: Mapping[str, Any]) -> tuple[float, float, float, float]:
    return float(point["x"]), float(point["value"]), float(point["low"]), float(point["high"])


def hashes(folder: Path, bags: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """SHA-256 of each file of the study that is there, and of all bags' digests together."""
    found = [
        (name, hashlib.sha256((folder / name).read_bytes()).hexdigest())
        for name in _HASHED
        if (folder / name).is_file()
    ]
    if bags:
        joined = hashlib.sha256("\n".join(sorted(bags)).encode()).hexdigest()
        found.append((f"{len(bags)} bags", joined))
    return tuple(found)


def _gates(path: Path) -> PredictionConfig:
    """The gates of the study's own settings; the defaults where they cannot be read."""
    if not path.is_file():
        return PredictionConfig()
    try:
        return load(path).prediction
    except ConfigError:
        return PredictionConfig()


def _present(
    study: Study,
    flow: PatientFlow | None,
    groups: Sequence[Subgroup],
    robust: Sequence[RobustnessCurve],
    *,
    has_store: bool,
) -> set[str]:
    """Sections that the page will have, as the checklists name them."""
    there = {
        "headline": bool(study.headline),
        "protocol": bool(study.protocol),
        "overlap": has_store and (study.folder / "splits.json").is_file(),
        "flow": flow is not None,
        "characteristics": has_store,
        "confusion": study.confusion is not None,
        "utility": len(study.n_by_class) > 1,
        "indeterminates": True,
        "subgroups": bool(groups),
        "robustness": bool(robust),
        "galleries": has_store and (study.folder / "cells.csv").is_file(),
        "wrong": True,
        "environment": bool(study.environment),
        "settings": (study.folder / "config.toml").is_file(),
        "hashes": True,
    }
    return {name for name, present in there.items() if present}
