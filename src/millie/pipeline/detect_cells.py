"""Leukocytes in image files, without patients: what ``millie detect`` does.

Owns which files are read, that one bad file does not stop the others, and the pictures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from millie.config import Config
from millie.errors import DataError, ImageError, MissingError
from millie.files import is_visible
from millie.outputs.result_folder import check_kind
from millie.pipeline.pseudonyms import check_no_names, pseudonymised
from millie.pipeline.results import DetectResult
from millie.pipeline.segment_cohort import Progress
from millie.readers.content import note, problem
from millie.readers.images import find_images, read_image, unread_pictures
from millie.readers.spelling import exists
from millie.readers.stray import without_strays
from millie.segmentation import detect as find_cells
from millie.types import Cell, Cohort, Finding, ImageSource, Patient, Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from millie.types import Field, PixelSize


def detect_in_files(
    images: Sequence[Path],
    out: Path | None,
    config: Config,
    overlay: Path | None,
    progress: Progress,
    pseudonyms: Path | None = None,
) -> DetectResult:
    """Find leukocytes; the arguments are those of :func:`millie.detect`.

    Raises:
        ImageError: not one of the files is a usable image.
        ConfigError: something else would be overwritten.
    """
    from millie.outputs.detections import check_table, write_detection_overlay, write_detections

    if out:
        check_table(out)
    if overlay:
        check_kind(overlay, "other")
    images, problems = without_strays(images)
    problems += _unread(images)
    images = list(_files(images, overlay))
    if pseudonyms:
        sources, problems = _renamed(images, problems, pseudonyms, out, overlay)
    else:
        sources = [ImageSource(path, str(path)) for path in images]
    if not images:
        raise ImageError(
            "no image (JPEG, PNG, TIFF, BMP) in what was named; name images or folders"
        )
    rows: list[tuple[str, Cell]] = []
    alone = len({Path(source.name).name for source in sources}) == len(sources)
    waiting: deque[Field] = deque()
    done = 0
    progress("detect", 0, len(images))
    for found in find_cells(_decoded(sources, config, waiting, problems), config.segmentation):
        one = waiting.popleft()
        name = one.source.name
        if refused := found.diagnostics.get("refused"):
            problems.append(Problem("", name, Finding.REFUSED, f"no cells looked for: {refused}"))
        rows += [(name, region.cell) for region in found.regions]
        if overlay:
            um_px = found.pixel_size.um_px if found.pixel_size else None
            drawn = Path(name).name if alone else name
            write_detection_overlay(overlay, drawn, one.image, found.regions, um_px)
        done += 1
        progress("detect", done, len(images))
    if not done:
        raise ImageError(f"no usable image: {problems[0].message}")
    if out:
        write_detections(out, rows)
    return DetectResult(out, tuple(rows), done, tuple(problems))


def _files(images: Sequence[Path], overlay: Path | None) -> Iterator[Path]:
    """The named files, and those in named folders but for pictures drawn by an earlier run."""
    for path in images:
        if exists(path) and path.is_dir():
            yield from (p for p in find_images(path) if not overlay or overlay not in p.parents)
        else:
            yield path


def _renamed(
    images: Sequence[Path],
    problems: Sequence[Problem],
    table: Path,
    out: Path | None,
    overlay: Path | None,
) -> tuple[list[ImageSource], list[Problem]]:
    """The images and what was found of others, under pseudonyms; names are whole paths here."""
    places = [place for place in (out, overlay) if place]
    if overlay:
        pictures = (path for path in overlay.glob("*") if path.suffix != ".csv")
        check_no_names(overlay, (path for path in pictures if is_visible(path.name)))
    named = tuple(ImageSource(path, str(path.absolute())) for path in images)
    cohort = Cohort("", (Patient("", None, named),), tuple(problems))
    renamed = pseudonymised(cohort, table, places)
    return list(renamed.patients[0].images), list(renamed.problems)


def _unread(images: Sequence[Path]) -> list[Problem]:
    """Pictures in named folders whose format is not read."""
    return [
        problem("", str(folder / name), error)
        for folder in images
        if exists(folder) and folder.is_dir()
        for name, error in unread_pictures(folder)
    ]


def _decoded(
    sources: Sequence[ImageSource], config: Config, waiting: deque[Field], problems: list[Problem]
) -> Iterator[tuple[NDArray[np.uint8], PixelSize | None]]:
    """Pixels and scale of each usable image, in order; the field itself goes to ``waiting``."""
    for source in sources:
        name = source.name
        try:
            one = read_image(source, config.reading)
        except (DataError, MissingError) as error:
            message = str(error).replace(str(source.path), name)
            problems.append(Problem("", name, type(error).__name__, message, fatal=True))
            continue
        problems += [note("", name, text, Finding.NOT_UNDERSTOOD) for text in one.notes]
        waiting.append(one)
        yield one.image, one.pixel_size
