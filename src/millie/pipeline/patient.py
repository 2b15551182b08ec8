"""From a patient's images to the patient's bag: read, find leukocytes, cut crops, store.

One top-level function per patient, run by an engine. It owns the order of these steps within one
patient and the record of everything that could not be used; the steps themselves live in
``readers``, ``segmentation`` and ``bags``.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from millie.bags.copies import KnownCells
from millie.bags.fingerprints import fingerprint
from millie.bags.store import BagMeta, BagReader, CellCrop, Store, write_bag
from millie.config import Config
from millie.errors import DataError, ImageError, MissingError, NoCellsError, ScaleError
from millie.files import code_digest
from millie.pipeline.drawn import drawn_cells
from millie.pipeline.image_notes import (
    FIELD_AFTER_ALL,
    doubtful_scales,
    other_scale,
    why_empty,
    why_left_out,
)
from millie.pipeline.slide_progress import telling
from millie.pipeline.slide_tally import SlideTally
from millie.readers.content import copy_note, note, pixels_sha256
from millie.readers.fields import read_fields
from millie.readers.images import image_kind
from millie.segmentation import (
    SampleStatistics,
    central_region,
    cut_crop,
    cut_mask,
    sample_statistics,
    segment,
)
from millie.types import (
    Cell,
    CellRegion,
    Detection,
    Field,
    Finding,
    ImageKind,
    ImageSource,
    Patient,
    PixelSize,
    Problem,
    SourceRecord,
)

# Images read ahead to learn scale and stain of the sample; bounds what is decoded at a time.
_LOOK_AHEAD_IMAGES = 16
_LOOK_AHEAD_PIXELS = 40_000_000


_CUTTING_CODE = (
    "pipeline/patient.py", "pipeline/drawn.py", "pipeline/slide_tally.py", "types.py", "readers",
    "segmentation", "bags/copies.py", "bags/fingerprints.py",
)  # fmt: skip
"""What decides which pixels become a cell, weights included."""


@dataclass(frozen=True, slots=True)
class PatientTask:
    """Payload of one unit.

    Attributes:
        patient: whose images.
        store: folder that the bag is written to.
        config: settings.
        home: folder in which the bag is to lie, from which paths in it lead to the images; None:
            the bag holds no paths.
    """

    patient: Patient
    store: Path
    config: Config
    home: Path | None = None

    def digest(self) -> str:
        """SHA-256 (hex) of all that makes the bag: equal digest, equal bag, not made again.

        Settings, the patient's facts, the files' names, sizes and times, and the code that reads
        and cuts: after an upgrade that finds other cells the bags are cut again.
        """
        images = [
            (s.name, s.kind, s.pixel_size, s.cell_label, _stamp(s.path),
             s.outlines and (s.outlines, _stamp(s.outlines)))
            for s in self.patient.images
        ]  # fmt: skip
        patient = asdict(replace(self.patient, images=()))
        settings = self.config.digest("reading", "segmentation", "crops")
        facts = [code_digest(*_CUTTING_CODE), settings, patient, images]
        return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


@dataclass(slots=True)
class _Tally:
    """What one patient's run has seen so far."""

    slides: SlideTally
    problems: list[Problem] = field(default_factory=list)
    sources: list[SourceRecord] = field(default_factory=list)
    n_cells: int = 0


def segment_patient(task: PatientTask) -> dict[str, Any]:
    """Make one patient's bag, unless a finished one with the same digest is there.

    Returns:
        ``n_cells``, ``n_images``, ``seconds`` and ``problems`` (a list of dicts), or
        ``skipped`` with the problems found the first time.

    Raises:
        NoCellsError: no image gave a cell; the message lists why.
    """
    started = time.perf_counter()
    store, digest = Store(task.store), task.digest()
    if store.is_done(task.patient.id, digest):
        return {"skipped": True, **_summary_of(store, task.patient.id)}
    tally = _Tally(SlideTally(task.config.reading))
    with telling(task.store) as tell:
        cells = _cells(task, tally, tell)
        first = next(cells, None)
        if first is None:
            raise NoCellsError(why_empty(task.patient, tally.problems))
        crops = task.config.crops
        meta = BagMeta(
            size_px=crops.size_px,
            size_um=crops.size_um,
            um_px=crops.size_um / crops.size_px if crops.size_um else None,
            digest=digest,
        )
        write_bag(
            store.path_of(task.patient.id),
            task.patient,
            chain([first], cells),
            tally.sources,
            meta,
            tally.problems,
        )
    return {
        "n_cells": tally.n_cells,
        "n_images": len(tally.sources),
        "seconds": round(time.perf_counter() - started, 3),
        "problems": [asdict(p) for p in tally.problems],
    }


def _cells(
    task: PatientTask, tally: _Tally, tell: Callable[[int, int], None]
) -> Iterator[CellCrop]:
    """Yield the patient's crops image by image; sources and problems go to the tally."""
    fields = _readable(task, tally)
    ahead, pixels = [], 0
    for one in fields:
        ahead.append(one)
        pixels += one.image.shape[0] * one.image.shape[1]
        if len(ahead) >= _LOOK_AHEAD_IMAGES or pixels >= _LOOK_AHEAD_PIXELS:
            break
    sample = sample_statistics(((f.image, f.pixel_size) for f in ahead), task.config.segmentation)
    known = KnownCells()
    for one in chain(ahead, fields):
        if tally.slides.enough(one):
            continue
        try:
            found = list(_cells_of_field(one, task, sample, tally))
        except DataError as error:
            tally.problems.append(_problem(task.patient, one.source, error))
            continue
        own = _without_copies(found, known, task.patient, one.source.name, tally)
        tally.n_cells += len(own)
        tally.slides.add(one, len(own))
        tell(*tally.slides.steps())
        yield from own
    tally.problems += tally.slides.problems(task.patient.id)
    tally.problems += other_scale(task.patient.id, sample.over_stated)
    tally.problems += doubtful_scales(task.patient, tally.sources, task.config.segmentation.um_px)


def _without_copies(
    found: Sequence[CellCrop], known: KnownCells, patient: Patient, image: str, tally: _Tally
) -> list[CellCrop]:
    """The cells of an image that no image before it shows; the others go to the tally."""
    own: list[CellCrop] = []
    again: Counter[str] = Counter()
    for crop in found:
        one = fingerprint(crop.image, crop.mask)
        if twin := known.copied(one):
            again[twin] += 1
        else:
            known.add(one, image)
            own.append(replace(crop, known_by=one))
    for twin, n in again.items():
        text = (
            f"{n} of its {len(found)} cells are in {twin} too"
            if twin != image
            else (f"{n} of its {len(found)} cells are in it twice")
        )
        if len(found) == 1:
            text = f"shows the same cell as {twin}"
        tally.problems.append(note(patient.id, image, f"{text}: counted once", Finding.DUPLICATE))
    return own


def _readable(task: PatientTask, tally: _Tally) -> Iterator[Field]:
    """The images that can be read; a copy of one before it is not counted again."""
    first: dict[str, str] = {}
    for source in task.patient.images:
        for one in _fields_of(source, task, tally):
            kept = first.setdefault(pixels_sha256(one.image), source.name)
            if kept == source.name:
                tally.problems += [
                    note(task.patient.id, source.name, text, Finding.NOT_UNDERSTOOD)
                    for text in one.notes
                ]
                yield one
            else:
                tally.problems.append(copy_note(task.patient.id, source.name, kept))


def _fields_of(source: ImageSource, task: PatientTask, tally: _Tally) -> Iterator[Field]:
    """An image, or fields of a whole slide until its cells are enough."""
    um_px = task.config.segmentation.um_px
    assumed = PixelSize(um_px) if um_px else None
    try:
        with closing(read_fields(source, task.config.reading, assumed)) as fields:
            for one in fields:
                if tally.slides.enough(one):
                    return
                yield one
    except (DataError, MissingError) as error:
        tally.problems.append(_problem(task.patient, source, error))


def _cells_of_field(
    one: Field, task: PatientTask, sample: SampleStatistics, tally: _Tally
) -> Iterator[CellCrop]:
    config, name = task.config, one.source.name
    detection = segment(one.image, one.pixel_size, config.segmentation, sample)
    if one.source.outlines:
        detection, notes = drawn_cells(detection, one, one.source.outlines, config.reading)
        tally.problems += [note(task.patient.id, name, t, Finding.NOT_UNDERSTOOD) for t in notes]
    kind = image_kind(one, config.reading)
    if _is_field_after_all(one, kind, detection, config):
        kind = ImageKind.FIELD
        tally.problems.append(note(task.patient.id, name, FIELD_AFTER_ALL, Finding.OVERVIEW))
    if kind is not ImageKind.CELL and "refused" in detection.diagnostics:
        reason = str(detection.diagnostics["refused"])
        if one.place is not None:
            tally.slides.refuse(one, reason)
            return
        raise ImageError(
            f"{name}: not searched for cells ({reason}); leave it out if it does not show a "
            "stained film, otherwise take the image again"
        )
    regions = _regions(detection, kind, one)
    wanted = [region for region in regions if _is_wanted(region.cell, config)]
    if one.place is not None and not wanted:
        return  # of the hundreds of fields of a slide those without cells are only counted
    if kind is ImageKind.CELL and not wanted:
        why = f"left out: {why_left_out(regions[0].cell, detection, one)}"
        tally.problems.append(note(task.patient.id, name, why, Finding.EXCLUDED))
    side_px = _crop_side_px(detection.pixel_size, kind, config, one)
    index = len(tally.sources)
    um_px = detection.pixel_size.um_px if detection.pixel_size else None
    height, width = one.image.shape[:2]
    tally.sources.append(
        SourceRecord(
            name=name,
            sha256=one.sha256,
            kind=kind,
            um_px=um_px,
            height_px=height,
            width_px=width,
            path=_way_to(one.source.path, task.home),
            diagnostics={
                **detection.diagnostics,
                "background_rgb": list(detection.background_rgb),
            },
            place=one.place,
        )
    )
    size_px = config.crops.size_px
    for region in wanted:
        centre = (region.cell.x_px, region.cell.y_px)
        yield CellCrop(
            cell=replace(_placed(region.cell, one), source=index, label=one.source.cell_label),
            image=cut_crop(one.image, centre, side_px, size_px, detection.background_rgb),
            mask=cut_mask(region, one.image.shape[:2], centre, side_px, size_px),
        )


def _is_field_after_all(one: Field, kind: ImageKind, detection: Detection, config: Config) -> bool:
    """Whether an image that is as small as a single-cell crop shows a field of view.

    By its red cells it is too large for a crop, or its leukocytes lie elsewhere than in its middle.
    What the cohort states is not doubted.
    """
    told = one.source.kind is not None or one.source.cell_label is not None
    if kind is not ImageKind.CELL or told or not detection.regions or not detection.pixel_size:
        return False
    shape = one.image.shape[:2]
    if detection.pixel_size.to_um(max(shape)) > config.reading.max_cell_side_um:
        return True
    return central_region(detection, shape) is None


def _is_wanted(cell: Cell, config: Config) -> bool:
    crops = config.crops
    return (crops.keep_smudge or not cell.smudge) and (crops.keep_unoutlined or cell.quality > 0)


def _regions(detection: Detection, kind: ImageKind, one: Field) -> tuple[CellRegion, ...]:
    """All cells of a field; for a single-cell crop the central one, or the whole crop."""
    if one.place is not None:
        return tuple(r for r in detection.regions if one.place.owns(_placed(r.cell, one)))
    if kind is not ImageKind.CELL:
        return detection.regions
    central = central_region(detection, one.image.shape[:2])
    return (central or _whole_crop(one),)


def _placed(cell: Cell, one: Field) -> Cell:
    """A cell of a field in pixels of the full-resolution image."""
    return cell if one.place is None else one.place.on_slide(cell)


def _whole_crop(one: Field) -> CellRegion:
    """A crop in which no cell could be outlined: quality 0, an empty mask."""
    height, width = one.image.shape[:2]
    empty = np.zeros((height, width), dtype=np.bool_)
    cell = Cell(
        source=0, x_px=(width - 1) / 2, y_px=(height - 1) / 2, left_px=0, top_px=0,
        width_px=width, height_px=height, area_px=0.0, quality=0.0,
    )  # fmt: skip
    return CellRegion(cell, empty, empty)


def _crop_side_px(
    pixel_size: PixelSize | None, kind: ImageKind, config: Config, one: Field
) -> float:
    """Side of the crop in pixels of this image."""
    crops = config.crops
    if crops.size_um == 0:
        return float(crops.size_px)
    if pixel_size is not None:
        return pixel_size.to_px(crops.size_um)
    if kind is ImageKind.CELL:
        # A crop made elsewhere shows its cell whole: taken as it is, recorded as scale unknown.
        return float(max(one.image.shape[:2]))
    raise ScaleError(
        f"{one.source.name}: the scale is unknown and could not be estimated from the red cells; "
        "give um/px in the manifest (um_px) or with --set segmentation.um_px=0.1"
    )


def _problem(patient: Patient, source: ImageSource, error: Exception) -> Problem:
    """The error without the place of the file: bags go to others, who need not know it."""
    message = str(error).replace(str(source.path), source.name)
    return Problem(patient.id, source.name, type(error).__name__, message)


def _way_to(image: Path, home: Path | None) -> str:
    """From a bag's folder to an image; empty where there is no way (another drive) or no folder."""
    if home is None:
        return ""
    with suppress(ValueError):
        return Path(os.path.relpath(image, home)).as_posix()
    return ""


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _summary_of(store: Store, patient_id: str) -> dict[str, Any]:
    with BagReader(store.path_of(patient_id), verify=False) as bag:
        problems = [asdict(p) for p in bag.meta.problems]
        return {"n_cells": bag.n_cells, "n_images": len(bag.sources), "problems": problems}
