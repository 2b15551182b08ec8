"""The card of a model in Markdown: what it is, from whom, what it reaches, what it is not for.

Owns the wording and the order. Every number comes from the training's provenance, from the bag
store or from a study of the same settings; what is in none of them is said to be unknown. Headings
follow Mitchell et al., Model cards for model reporting, FAT* (2019).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millie.bags.store import Store
from millie.config import PredictionConfig
from millie.outputs.page import count, visible
from millie.outputs.study.bag_facts import BagFacts, StoreFacts, read_store
from millie.outputs.study.characteristics import characteristics
from millie.outputs.study.controls import Control, read_controls
from millie.outputs.study.overlap_proof import prove
from millie.outputs.study.records import Measure, Study, read_study
from millie.outputs.study.subgroups import subgroups
from millie.types import RESEARCH_USE_ONLY


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the training says about the model.

    Attributes:
        name: of the model.
        classes: in the order of the probabilities.
        positive: class of the threshold.
        threshold: calibrated probability from which it is called.
        temperature: of the calibration.
        networks: in the ensemble.
        encoder: name of it, ``aggregator`` that of the fusion.
        provenance: as in the bundle's manifest: ``cohort``, ``n_patients``, ``n_by_class``,
            digests, versions.
        encoder_licence: of the encoder's weights, and what they were trained on.
        limits: what the operating point assures.
        vectors: name of the encoder elsewhere whose vectors it takes; empty: it takes images.
    """

    name: str
    classes: Sequence[str]
    positive: str
    threshold: float
    temperature: float
    networks: int
    encoder: str
    aggregator: str
    provenance: Mapping[str, Any]
    encoder_licence: str = ""
    limits: str = ""
    vectors: str = ""


def model_card(
    facts: CardFacts, store: Path | None = None, study: Path | None = None, notes: str = ""
) -> str:
    """Write the card.

    Args:
        facts: of the training.
        store: bag store of the training patients; None: nothing is said about who they are.
        study: a cross-validation of the same settings on the same store; None: no figures.
        notes: Markdown on what the store does not say of itself: who the patients are, limits.

    Raises:
        MissingFileError: the study lacks a file.
        DataError: the study is damaged.
    """
    known = read_store(Store(store)) if store is not None and store.is_dir() else None
    measured = read_study(study) if study is not None else None
    parts = [
        f"# {_text(facts.name)}",
        RESEARCH_USE_ONLY,
        _purpose(facts),
        _training(facts, known),
    ]
    if notes.strip():
        parts.append(f"## Notes\n\n{notes.strip()}")
    if measured is None:
        parts.append(
            "## Performance\n\nNot stated. Measure it with `millie crossval` at the same settings, "
            "and on data from another source."
        )
    else:
        parts += [_performance(measured), _limits(measured, store, known)]
    parts.append(_origin(facts))
    return "\n\n".join(parts) + "\n"


def _purpose(facts: CardFacts) -> str:
    names = ", ".join(_text(name) for name in facts.classes)
    normal = set(PredictionConfig().negative_labels) & {name.lower() for name in facts.classes}
    without = (
        "" if normal else " It was not trained on healthy blood and never reports `NO_SIGNAL`."
    )
    return (
        "## Intended use\n\n"
        f"Distinguishes {names} from {_given(facts)} of one patient's leukocytes and shows the "
        f"cells behind the call. {_code(facts.positive)} is called at a calibrated probability of "
        f"{facts.threshold:.3f} or above. A call is a suggestion and needs expert review."
        f"{without}\n\n"
        + (f"{facts.limits}\n\n" if facts.limits else "")
        + "Not for: diagnosis, treatment decisions, other diseases, or stains, scales and specimen "
        "types that it was not trained on."
    )


def _given(facts: CardFacts) -> str:
    """What the model takes."""
    return f"vectors by {_code(facts.vectors)}" if facts.vectors else "images"


_OF_VECTORS = (
    "- The vectors were computed elsewhere. What their encoder was trained on, and whether on "
    "these patients, is not known here. Focus, exposure, stain and scale of their images are "
    "checked neither in training nor in prediction, so `NO_SIGNAL` is never reported: send such "
    "patients to a person. Vectors of another encoder, version or preprocessing give calls that "
    "mean nothing; only the distance from the training patients can notice them."
)


def _training(facts: CardFacts, known: StoreFacts | None) -> str:
    p = facts.provenance
    counts = ", ".join(f"{n} {_text(label)}" for label, n in p["n_by_class"].items())
    cohort = f"- {p['n_patients']} patients ({counts}) of {_code(p['cohort'])}"
    encoder = facts.vectors or facts.encoder
    kind = f"- Encoder {_code(encoder)}, fusion {_code(facts.aggregator)}"
    networks = f"{facts.networks} network{'s' * (facts.networks != 1)}, probabilities averaged"
    lines = [
        f"{cohort}; the head was trained on diagnoses alone, without cell labels.",
        f"{kind}, {networks}, temperature {facts.temperature:.2f}.",
    ]
    if facts.encoder_licence:
        lines.append(f"- Weights of the encoder: {_text(facts.encoder_licence)}.")
    if facts.vectors:
        lines.append(_OF_VECTORS)
    if known is not None:
        used = [bag for bag in known.bags if bag.label in facts.classes and bag.n_cells]
        lines.append(
            f"- {sum(len(bag.digests) for bag in used):,} images, "
            f"{sum(bag.n_cells for bag in used):,} cells."
        )
        lines += [f"- {title}: {text}." for title, text in _who(known, used)]
    return "## Training data\n\n" + "\n".join(lines)


def _who(known: StoreFacts, used: Sequence[BagFacts]) -> Iterable[tuple[str, str]]:
    """What is known of age, sex, sites and scanners, and for how many patients."""
    ages = sorted(bag.age for bag in used if bag.age is not None)
    if ages:
        middle = ages[len(ages) // 2]
        yield "Age", f"{ages[0]:g} to {ages[-1]:g} years, median {middle:g}, known for {len(ages)}"
    for title in ("sex", "site", "stain", "scanner"):
        words = [getattr(bag, title).strip() for bag in used]
        there = sorted({word for word in words if word})
        if there:
            counts = ", ".join(f"{_text(word)} {words.count(word)}" for word in there)
            yield title.capitalize(), f"{counts}, known for {sum(map(bool, words))}"
    left = len(known.bags) - len(used)
    if left:
        patients = count(left, "patient")
        yield "Excluded", f"{patients} without a diagnosis of these classes or without cells"


def _performance(study: Study) -> str:
    counts = ", ".join(f"{n} {_text(label)}" for label, n in study.n_by_class.items())
    table = ["| measure | value | interval | method |", "|---|---|---|---|"]
    table += [_row(measure) for measure in study.headline]
    protocol = " ".join(study.protocol)
    return (
        "## Performance\n\n"
        f"Cross-validation with these settings on {len(study.patients)} patients ({counts}). The "
        "model in this folder was trained on all of them and has not itself been tested.\n\n"
        + "\n".join(table)
        + f"\n\n{_text(protocol)}"
    )


def _row(measure: Measure) -> str:
    interval = "–"
    if measure.low is not None and measure.high is not None:
        interval = f"{measure.low:.3f} to {measure.high:.3f}"
    return f"| {measure.title} | {measure.value:.3f} | {interval} | {_text(measure.method)} |"


def _limits(study: Study, store: Path | None, known: StoreFacts | None) -> str:
    """Controls, wrong calls and subgroups, in words."""
    controls, verdict = read_controls(study)
    lines = [
        f"- Controls for confounding: {_text(verdict)}"
        if verdict
        else "- Controls for confounding were not run: camera, stain or number of cells may "
        "explain the results."
    ]
    for control in controls:
        lines += [f"  - {_text(control.name)}: AUC {m.value:.3f}" for m in control.measures[:1]]
        lines += _cell_groups(control)
    missed = [p for p in study.patients if p.label == study.positive and p.call != p.label]
    having = sum(p.label == study.positive for p in study.patients)
    lines.append(f"- Missed {_text(study.positive)}: {len(missed)} of {having} patients.")
    if known is not None and store is not None:
        bags = known.of(p.patient for p in study.patients)
        proof = prove(study.folder, Store(store), bags)
        shared = "no overlap found" if proof.clean else "overlap found, see the study report"
        lines.append(f"- Files and cell images in training and test data: {shared}.")
        groups = subgroups(study, bags)
        lines += [
            f"- {g.kind} {_text(g.name)}: sensitivity {g.sensitivity.text}, specificity "
            f"{g.specificity.text}."
            for g in groups
        ]
        if not groups:
            lines.append(
                "- Subgroups by sex, age, site, stain or scanner: not known for these data."
            )
        if len(characteristics(study, bags)) > 1 and len({bag.site for bag in bags}) < 2:
            lines.append("- One site: performance on images from elsewhere is unknown.")
    return "## Limitations\n\n" + "\n".join(lines)


def _cell_groups(control: Control) -> Iterable[str]:
    """A line a group of cells that was scored alone."""
    for group in control.groups:
        if "auc" in group.measures:
            n = count(sum(group.n_by_class.values()), "patient")
            yield f"    - {_text(group.name)} alone: AUC {group.measures['auc'].value:.3f}, {n}"


def _origin(facts: CardFacts) -> str:
    p = facts.provenance
    keys = ("millie", "torch", "platform", "seed", "config_sha256", "cells_sha256")
    rows = "\n".join(f"- {key}: {_code(p[key])}" for key in keys if key in p)
    return f"## Origin\n\n{rows}"


def _text(value: object) -> str:
    """One line that Markdown leaves as it is."""
    plain = " ".join(str(visible(str(value))).split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in plain)


def _code(value: object) -> str:
    """One line as it is, set as code."""
    return "`" + " ".join(str(visible(str(value))).replace("`", "'").split()) + "`"
