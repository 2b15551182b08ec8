"""The page of one patient: the call, its evidence, the fields and all cells.

Owns what stands on the page and in which order. Reads the run's record, the patient's bag and the
overlays; decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from millie.outputs.figure_files import svg_uri
from millie.outputs.figures import histogram_figure
from millie.outputs.gallery import Album, CellPicture, jpeg_uri
from millie.outputs.overlays import overlay_names
from millie.outputs.page import count, percent, render
from millie.outputs.patient.evidence import Evidence, fusion_note, weigh
from millie.outputs.patient.quality import quality_rows
from millie.outputs.patient.records import ModelFacts, PatientResult, PredictionRun
from millie.outputs.patient.remarks import Remark
from millie.outputs.patient.states import words_for
from millie.types import Finding, ImageKind, Problem, Winner

GALLERY_CELLS = 300
_GALLERY_PX = 120
_STRIP_PX = 224
_FIELD_PX = (1000, 700)
"""Longest side: a click leads to the overlay itself."""
_PAGE_BYTES = 4_500_000
"""Of all pictures on a page together; the strip comes first, then the gallery, then fields."""
_GALLERY_BYTES = 2_400_000


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of quality control: a name, a value, whether a person should check it, and why."""

    name: str
    value: str
    check: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class EvidenceCell:
    """A cell in the strip or the gallery, with its mark and its own probability of a class."""

    picture: CellPicture
    mark: str
    supports: bool
    score: float
    winner: Winner | None = None


@dataclass(frozen=True, slots=True)
class FieldPicture:
    """A field with boxes; picture and link to the overlay are empty where only a name is given."""

    name: str
    n_cells: int
    marks: tuple[str, ...]
    um_px: float | None
    uri: str = ""
    href: str = ""


def evidence_order(scores: NDArray[np.float32], focus: int) -> list[int]:
    """Indices of all cells, those most like the class in focus first; ties in bag order.

    Args:
        scores: (N, C) probabilities of each cell alone.
        focus: index of the class.
    """
    order: list[int] = np.argsort(-scores[:, focus], kind="stable").tolist()
    return order


def patient_page(
    run: PredictionRun,
    result: PatientResult,
    album: Album,
    scores: NDArray[np.float32],
    *,
    facts: Sequence[Fact],
    remarks: Sequence[Remark],
    overlays: Path,
) -> str:
    """Make the HTML page of one patient.

    Args:
        run: the run, for model and problems.
        result: the patient's call.
        album: the patient's cells.
        scores: (N, C) probabilities of each cell alone.
        facts: see :func:`quality_facts`.
        remarks: see :func:`~millie.outputs.patient.remarks.remarks_on`.
        overlays: folder of the patient's overlays; may be missing.
    """
    evidence = weigh(result, run.model)
    own, other = (
        scores[:, run.model.labels.index(label)]
        for label in (evidence.focus, evidence.contrast or evidence.focus)
    )
    order = evidence_order(scores, run.model.labels.index(evidence.focus))
    cells_for = _strip(album, evidence.cells_for, evidence, own, supports=True)
    cells_against = _strip(album, evidence.cells_against, evidence, other, supports=False)
    room = _PAGE_BYTES - _bytes_of([*cells_for, *cells_against])
    pictures = not album.bag.holds_vectors
    shown = _gallery(album, order, evidence, own, min(room, _GALLERY_BYTES)) if pictures else []
    room -= _bytes_of(shown)
    return render(
        "patient.html.j2",
        patient=result.patient,
        result=result,
        words=words_for(result.state),
        model=run.model,
        created=run.created,
        evidence=evidence,
        cells_for=cells_for,
        cells_against=cells_against,
        fusion_note=fusion_note(run.model),
        more_for=_rest(evidence.cells_for),
        facts=facts,
        remarks=remarks,
        types=_types_of(result, run.model),
        typed=sum(result.cell_types.values()),
        limits={label: run.model.limits_of(label) for label in result.probabilities},
        quality=quality_rows(result.quality),
        pictures=pictures,
        fields=_fields(album, evidence, overlays, room) if pictures else [],
        gallery=shown,
        not_shown=len(order) - len(shown),
        lowest=float(own[order[len(shown) - 1]]) if shown else 0.0,
        spread=[float(p) for p in np.quantile(own, (0.0, 0.5, 1.0))],
        histogram=svg_uri(
            histogram_figure(
                own.astype(np.float64), f"probability of {evidence.focus}, single cells"
            )
        ),
        bar_um=shown[0].picture.bar_um if shown else None,
        sources=album.sources,
        problems=run.problems_of(result.patient),
    )


def _types_of(result: PatientResult, model: ModelFacts) -> list[Fact]:
    """How many cells look most like each type, in the order of the model's types."""
    total = max(1, sum(result.cell_types.values()))
    found = [name for name in model.cell_types if result.cell_types.get(name)]
    counts = [result.cell_types[name] for name in found]
    return [
        Fact(name.capitalize(), f"{n:,} ({percent(n / total)})")
        for name, n in zip(found, counts, strict=True)
    ]


def failed_page(run: PredictionRun, result: PatientResult) -> str:
    """Make the page of a patient without a result: what went wrong, and what to do."""
    return render(
        "failed.html.j2",
        patient=result.patient,
        result=result,
        words=words_for(result.state),
        model=run.model,
        created=run.created,
        problems=run.problems_of(result.patient),
    )


def quality_facts(
    album: Album,
    result: PatientResult,
    problems: Sequence[Problem],
    remarks: Sequence[Remark] = (),
) -> list[Fact]:
    """What a reader needs to judge the sample: cells, images, scale, flags, unusable files.

    Cells that lie under another patient too are to be checked: one of the two may be mixed up.

    Args:
        album: the patient's cells.
        result: the patient's call.
        problems: of the patient.
        remarks: see :func:`~millie.outputs.patient.remarks.remarks_on`.
    """
    remarked = {remark.about for remark in remarks}
    lost = [p for p in problems if not p.note]
    shared = sum(p.error == Finding.SAME_CELL for p in problems)
    facts = [Fact("Cells analysed", f"{result.n_cells:,}")]
    facts += _vector_facts(album) if album.bag.holds_vectors else _image_facts(album, remarked)
    if shared:
        note = "a mix-up? listed below"
        facts.append(Fact("Patients with the same cells", f"{shared:,}", check=True, note=note))
    if "evidence" in remarked:
        facts.append(Fact("Strongest evidence", "cells that look mature", check=True))
    if any(p.error == Finding.TRAINED_ON for p in problems):
        note = "says nothing about new patients"
        facts.append(Fact("Model trained on this patient", "yes", check=True, note=note))
    note = "listed below" if lost else ""
    return [*facts, Fact("Files not used", f"{len(lost):,}", check=bool(lost), note=note)]


def _vector_facts(album: Album) -> list[Fact]:
    """Of cells that came without pictures."""
    note = "the cells came as vectors, without pictures"
    return [
        Fact("Files of vectors", f"{len(album.sources):,}"),
        Fact("Focus, exposure, stain, scale", "not checked", check=True, note=note),
    ]


def _image_facts(album: Album, remarked: AbstractSet[str]) -> list[Fact]:
    n = max(1, len(album.cells))
    kinds = Counter(source.kind for source in album.sources)
    images = [count(kinds[k], noun) for k, noun in _KIND_WORDS if kinds[k]]
    facts = [Fact("Images", ", ".join(images)), _scale_fact(album)]
    for flag, measure, name, note in _FLAG_WORDS:
        flagged = sum(bool(getattr(cell, flag)) for cell in album.cells)
        share = f"{flagged:,} ({percent(flagged / n)})"
        facts.append(Fact(name, share, check=measure in remarked, note=note))
    vague = sum(cell.quality == 0 for cell in album.cells)
    if vague:
        share = f"{vague:,} ({percent(vague / n)})"
        note = "whole crop used"
        facts.append(Fact("Cells not outlined", share, check=True, note=note))
    return facts


_KIND_WORDS = (
    (ImageKind.FIELD, "field"),
    (ImageKind.CELL, "single-cell image"),
    (ImageKind.SLIDE, "slide"),
)
_FLAG_WORDS = (
    ("smudge", "smudge_fraction", "Smudge cells", "common in any leukaemia"),
    ("at_border", "border_fraction", "Cut off at image edge", ""),
    ("in_clump", "touching_fraction", "Touching another cell", ""),
)


def _scale_fact(album: Album) -> Fact:
    known = sorted({round(s.um_px, 3) for s in album.sources if s.um_px is not None})
    unknown = sum(s.um_px is None for s in album.sources)
    if not known:
        return Fact("Scale", "unknown", check=True, note="crops used at their original size")
    span = f"{known[0]:g}" if len(known) == 1 else f"{known[0]:g} to {known[-1]:g}"
    note = f"unknown for {count(unknown, 'image')}" if unknown else ""
    return Fact("Scale", f"{span} µm/px", check=bool(unknown), note=note)


def _strip(
    album: Album,
    winners: Sequence[Winner],
    evidence: Evidence,
    own: NDArray[np.float32],
    *,
    supports: bool,
) -> list[EvidenceCell]:
    return [
        EvidenceCell(
            album.picture(w.cell, _STRIP_PX),
            evidence.marks[w.cell].text,
            supports,
            float(own[w.cell]),
            w,
        )
        for w in winners
    ]


def _bytes_of(cells: Sequence[EvidenceCell]) -> int:
    return sum(len(cell.picture.uri) for cell in cells)


def _gallery(
    album: Album,
    order: Sequence[int],
    evidence: Evidence,
    own: NDArray[np.float32],
    room_bytes: int,
) -> list[EvidenceCell]:
    """The first cells of the order, as many as the page has room for."""
    found: list[EvidenceCell] = []
    for number in order[:GALLERY_CELLS]:
        mark = evidence.marks.get(number)
        picture = album.picture(number, _GALLERY_PX)
        room_bytes -= len(picture.uri)
        if room_bytes < 0:
            break
        text, supports = (mark.text, mark.supports) if mark else ("", False)
        found.append(EvidenceCell(picture, text, supports, float(own[number])))
    return found


def _rest(winners: Sequence[Winner]) -> float:
    """Share of the evidence carried by cells that are not among the winners shown."""
    return max(0.0, 1.0 - sum(winner.contribution for winner in winners))


def _fields(
    album: Album, evidence: Evidence, overlays: Path, room_bytes: int
) -> list[FieldPicture]:
    """Fields, those with the strongest evidence first; pictures as far as the page has room."""
    weight = dict.fromkeys(range(len(album.sources)), 0.0)
    for winner in evidence.cells_for:
        weight[album.cells[winner.cell].source] += winner.contribution
    names = overlay_names(album.sources)
    held = Counter(cell.source for cell in album.cells)
    left, found = room_bytes, []
    for index in sorted(names, key=lambda i: (-weight[i], i)):
        source = album.sources[index]
        uri = _field_uri(overlays / names[index], left)
        left -= len(uri)
        marks = tuple(
            mark.text
            for n, mark in evidence.marks.items()
            if album.cells[n].source == index and mark.supports
        )
        href = quote(f"../overlays/{overlays.name}/{names[index]}") if uri else ""
        found.append(FieldPicture(source.title, held[index], marks, source.um_px, uri, href))
    return found


def _field_uri(path: Path, room_bytes: int) -> str:
    """The overlay as large as there is room for, or nothing."""
    if not path.is_file():
        return ""
    with Image.open(path) as opened:
        whole = opened.convert("RGB")
    for side_px in _FIELD_PX:
        shown = whole.copy()
        shown.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
        uri = jpeg_uri(shown, quality=80)
        if len(uri) <= room_bytes:
            return uri
    return ""
