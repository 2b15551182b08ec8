"""Leukocytes in image files, without patients: what ``millie detect`` does.

Owns which files are read, that one bad file does not stop the others, and the pictures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from millie.config import Config
from millie.errors import DataError, ImageError, MissingError
from millie.files import is_visible
from millie.outputs.result_folder import check_kind
from millie.pipeline.image_notes import other_scale
from millie.pipeline.pseudonyms import check_no_names, pseudonymised
from millie.pipeline.results import DetectResult
from millie.pipeline.segment_cohort import Progress
from millie.pipeline.slide_tally import SlideTally
from millie.readers.content import note, problem
from millie.readers.dicom import is_directory, once_a_slide
from millie.readers.fields import read_fields
from millie.readers.images import find_images, unread_pictures
from millie.readers.spelling import exists
from millie.readers.stray import left_aside, without_strays
from millie.segmentation import detect as find_cells
from millie.types import (
    Cell,
    Cohort,
    Finding,
    ImageSource,
    Patient,
    PixelSize,
    Problem,
    field_title,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from millie.types import Detection, Field

_NO_IMAGE = "no image (JPEG, PNG, TIFF, BMP, whole slide) in what was named; name images or folders"


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
    images = list(_files(images, overlay, problems))
    if pseudonyms:
        sources, problems = _renamed(images, problems, pseudonyms, out, overlay)
    else:
        sources = [ImageSource(path, str(path)) for path in images]
    if not images:
        why = next((one.message for one in problems if one.fatal), None)
        raise ImageError(why or _NO_IMAGE)
    rows: list[tuple[str, Cell]] = []
    alone = len({Path(source.name).name for source in sources}) == len(sources)
    search = _Search(sources, config, problems, progress)
    over_stated: float | None = None
    for one, found in search.fields():
        name = one.source.name
        over_stated = found.diagnostics.get("over_stated", over_stated)
        rows += [(name, _placed(region.cell, one)) for region in found.regions]
        if overlay and (found.regions or one.place is None):
            um_px = found.pixel_size.um_px if found.pixel_size else None
            drawn = Path(name).name if alone else name
            title = field_title(drawn, one.place) if one.place else drawn
            write_detection_overlay(overlay, title, one.image, found.regions, um_px)
    problems += search.slides.problems("")
    problems += other_scale("", over_stated)
    if not search.used:
        raise ImageError(f"no usable image: {problems[0].message}")
    if out:
        write_detections(out, rows)
    return DetectResult(out, tuple(rows), len(search.used), tuple(problems))


class _Search:
    """Images read and searched one after another; what cannot be used goes to ``problems``.

    Attributes:
        used: files of which something was searched.
        slides: how much of whole slides was read.
    """

    def __init__(
        self,
        sources: Sequence[ImageSource],
        config: Config,
        problems: list[Problem],
        progress: Progress,
    ) -> None:
        self.used: set[Path] = set()
        self.slides = SlideTally(config.reading)
        self._sources = sources
        self._config = config
        self._problems = problems
        self._progress = progress
        self._waiting: deque[Field] = deque()
        self._ahead = 0

    def fields(self) -> Iterator[tuple[Field, Detection]]:
        """Each image, or field of a slide, with the cells that count in it."""
        done = 0
        self._progress("detect", 0, len(self._sources))
        for found in find_cells(self._decoded(), self._config.segmentation):
            one = self._waiting.popleft()
            self.used.add(one.source.path)
            if self.slides.enough(one):  # it was read before that was known
                continue
            yield one, self._judged(one, found)
            done += 1
            self._progress("detect", done, max(done, len(self._sources) + self._ahead))
        if self._ahead:  # of slides that had enough cells before all planned fields were cut
            self._progress("detect", done, done)

    def _judged(self, one: Field, found: Detection) -> Detection:
        refused = str(found.diagnostics.get("refused", ""))
        if one.place is None:
            if refused:
                text = f"no cells looked for: {refused}"
                self._problems.append(Problem("", one.source.name, Finding.REFUSED, text))
            return found
        own = tuple(r for r in found.regions if one.place.owns(_placed(r.cell, one)))
        self.slides.add(one, len(own))
        if refused:
            self.slides.refuse(one, refused)
        return replace(found, regions=own)

    def _decoded(self) -> Iterator[tuple[NDArray[np.uint8], PixelSize | None]]:
        """Pixels and scale of each usable field, in order; the field itself waits."""
        um_px = self._config.segmentation.um_px
        assumed = PixelSize(um_px) if um_px else None
        for source in self._sources:
            name = source.name
            try:
                with closing(read_fields(source, self._config.reading, assumed)) as fields:
                    for number, one in enumerate(fields):
                        if self.slides.enough(one):
                            break
                        if number == 0 and one.place:
                            self._ahead += one.place.n_fields - 1
                        self._problems += [
                            note("", name, text, Finding.NOT_UNDERSTOOD) for text in one.notes
                        ]
                        self._waiting.append(one)
                        yield one.image, one.pixel_size
            except (DataError, MissingError) as error:
                message = str(error).replace(str(source.path), name)
                self._problems.append(Problem("", name, type(error).__name__, message, fatal=True))


def _placed(cell: Cell, one: Field) -> Cell:
    """A cell of a field in pixels of the full-resolution image."""
    return cell if one.place is None else one.place.on_slide(cell)


def _files(images: Sequence[Path], overlay: Path | None, problems: list[Problem]) -> Iterator[Path]:
    """The named files, and those in named folders but for pictures drawn by an earlier run.

    Folders that cannot be searched, and pictures whose format is not read, go to ``problems``.
    """
    for path in images:
        if not (exists(path) and (path.is_dir() or is_directory(path))):
            yield path
            continue
        folder = path if path.is_dir() else path.parent
        try:
            unread, found = unread_pictures(folder), find_images(folder)
        except DataError as error:
            problems.append(replace(problem("", str(path), error), fatal=True))
            continue
        problems += [problem("", str(folder / name), error) for name, error in unread]
        problems += [
            replace(one, source=str(folder / one.source)) for one in left_aside("", folder)
        ]
        yield from once_a_slide([p for p in found if not overlay or overlay not in p.parents])


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
