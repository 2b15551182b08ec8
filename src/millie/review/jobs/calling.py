"""One job: from a sample's images, or from the kept cells of an analysis, to a run on disk.

Owns the temporary folder in which the images get the names that reports show, and the bag without
the cells that a person took out. What is read, cut and called is the pipeline's.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from millie import pipeline
from millie.bags.bag_writer import CellCrop, write_bag
from millie.bags.store import BagReader, Store
from millie.errors import MissingFileError, NoCellsError
from millie.outputs.patient.tables import read_predictions
from millie.outputs.report import write_prediction_run
from millie.outputs.result_folder import new_results
from millie.pipeline.caller import KeptModel, settings_for
from millie.review.models import Job, JobStatus
from millie.types import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from millie.pipeline import Progress
    from millie.review.data_folder import DataFolder
    from millie.review.models import Analysis, Sample

_AT_A_TIME = 64
"""Cells that are held in memory while a bag is copied."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be made, and where.

    Attributes:
        data: the data folder.
        job: the job.
        bundle: name or folder of the model.
        kept: where the model stays loaded for the next job.
    """

    data: DataFolder
    job: Job
    bundle: str
    kept: KeptModel

    @property
    def sample(self) -> Sample:
        """Whose images."""
        return self.job.sample

    @property
    def place(self) -> Path:
        """Folder of the analysis; the same for each attempt, so that a killed one is resumed."""
        number = self.sample.analyses.count() + 1
        return self.data.samples / self.sample.pseudonym / str(number)

    @property
    def calls(self) -> Path:
        """Folder of the run."""
        return self.place / "calls"


def call(work: Work, progress: Progress) -> Path:
    """Make the run that a job asks for.

    Returns:
        Its folder; a sample without cells gives a run with the state ``FAILED``.

    Raises:
        BundleError, MissingFileError: the model, or an image in the data folder, is damaged or
            missing.
        BusyError: another process is at this job.
        OSError: the disk is full, or forbids to write.
    """
    with images_of(work) as images:
        if work.job.based_on is None:
            return _from_images(work, images, progress)
        store = _without(work, work.job.based_on, work.job.excluded, images)
        pipeline.predict(work.bundle, store, work.calls, progress=progress, kept=work.kept)
        return work.calls


def _from_images(work: Work, images: Path, progress: Progress) -> Path:
    um_px = work.sample.um_px
    words = [f"segmentation.um_px={um_px}"] if um_px else []
    try:
        pipeline.predict(
            work.bundle, images, work.calls, settings=words, progress=progress, kept=work.kept
        )
    except NoCellsError as error:
        _failed_run(work, words, str(error))
    return work.calls


def _failed_run(work: Work, words: Sequence[str], why: str) -> None:
    """A run that says of its one patient that nothing could be analysed, and why."""
    chosen = settings_for(work.bundle, None, words)
    card = work.kept.caller(work.bundle, chosen).card(chosen)
    name = work.sample.pseudonym
    problem = Problem(name, "", "NoCellsError", why, fatal=True)
    with new_results(work.calls) as results:
        store = Store(results.new / "store")
        store.describe(name, chosen, (), [problem])
        write_prediction_run(results.new, card, [], store, [problem], home=work.calls)
        results.publish()


@contextmanager
def images_of(work: Work) -> Iterator[Path]:
    """The sample's images under the names that reports show, in a folder that is then removed.

    Raises:
        MissingFileError: an image is no longer in the data folder.
    """
    outer = _folders(work.data) / str(work.job.pk)
    shutil.rmtree(outer, ignore_errors=True)  # of a killed attempt
    folder = outer / work.sample.pseudonym
    folder.mkdir(mode=0o700, parents=True)
    try:
        for image in work.sample.images.all():
            source = work.data.images / image.sha256
            if not source.is_file():
                raise MissingFileError(
                    f"{image.name} ({image.sha256[:12]}...) is missing from the data folder: "
                    "restore it from a backup, or submit the sample again"
                )
            _link(source, folder / image.name)
        yield folder
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def sweep(data: DataFolder) -> None:
    """Remove the temporary folders of jobs that nobody is at.

    A worker outlives a server that is killed, and ends its job: that one's folder stays.
    """
    running = Job.objects.filter(status=JobStatus.RUNNING).values_list("pk", flat=True)
    at_work = {str(pk) for pk in running}
    for path in _folders(data).glob("*"):
        if path.name not in at_work:
            shutil.rmtree(path, ignore_errors=True)


def _folders(data: DataFolder) -> Path:
    return data.root / "work"


def _link(source: Path, target: Path) -> None:
    with suppress(OSError):  # a file system without hard links
        os.link(source, target)
        return
    shutil.copyfile(source, target)


def _without(work: Work, analysis: Analysis, excluded: Sequence[int], images: Path) -> Path:
    """A store with the analysis' bag, less some cells.

    Raises:
        DataError, MissingFileError: the analysis on disk is damaged or gone.
    """
    run = read_predictions(work.data.root / analysis.folder)
    old, out = Store(run.store), set(excluded)
    new = Store(work.place / "store")
    with BagReader(old.path_of(work.sample.pseudonym)) as bag:
        sources = [
            # From the new bag to the images, so that the report can draw on them.
            replace(s, path=Path(os.path.relpath(images.parent / s.name, new.root)).as_posix())
            for s in bag.sources
        ]
        write_bag(new.path_of(bag.patient_id), bag.patient, _kept(bag, out), sources, bag.meta)
    about = old.description
    new.describe(about.name, about.config, about.labels, about.problems)
    return new.root


def _kept(bag: BagReader, excluded: set[int]) -> Iterator[CellCrop]:
    cells = bag.cells
    for start in range(0, bag.n_cells, _AT_A_TIME):
        stop = min(start + _AT_A_TIME, bag.n_cells)
        images, masks = bag.images(start, stop), bag.masks(start, stop)
        for index in range(start, stop):
            if index not in excluded:
                yield CellCrop(cells[index], images[index - start], masks[index - start])
