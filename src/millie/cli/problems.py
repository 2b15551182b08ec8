"""Problems and notes for people: a few of one kind are named, many are counted.

Owns the sentence for each kind and how many are named. How lines are printed is ``console``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from millie import errors
from millie.cli.lines import Line
from millie.types import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from millie.types import Problem

_FEW = 3
"""So many of one kind are named one by one; of more, so many failures are given as examples."""
_MOST = 20
"""So many are named of a kind that has no sentence."""

_NOTES: Mapping[str, str] = {
    Finding.DUPLICATE: "{} images repeat others, wholly or in part: every cell counted once",
    Finding.SAME_CELL: "{} times a patient shares cells with another",
    Finding.CELL_TYPES_DIFFER: "{} cells are filed under several cell types: cell label left blank",
    Finding.OVERVIEW: "{} images are fields of view: not read as single cells",
    Finding.SAME_SCALE: "{} fields among single-cell images were read at the scale set for all",
    Finding.OTHER_SCALE: "{} patients' images state a scale that their red cells contradict: check "
    "um_px",
    Finding.NO_SCALE: "{} images are of a size that the data set does not have: scale left unknown",
    Finding.NOT_UNDERSTOOD: "{} images state no scale or colours that could be used",
    Finding.SLIDE: "{} whole slides were read in part",
    Finding.EXCLUDED: "{} single-cell images {}",
    Finding.ONE_PATIENT: "{} folders hold sub-folders of images, or several slides: each folder "
    "read as one patient (if each sub-folder is a patient, give FOLDER/*)",
    Finding.STRAY: "{} files that are no images were left aside",
    Finding.SEEN_BEFORE: "{} patients were in an earlier run of the same model: counted once",
    Finding.TRAINED_ON: "{} patients are among those that the model was trained on: their calls "
    "say nothing about new patients",
    Finding.TEST_SPLIT: "{} patients of split 'test': not used for training",
}
_FAILURES: Mapping[str, str] = {
    "ImageError": "{} images could not be read",
    "ImageTooLargeError": "{} images exceed the size limits: not decoded",
    "MissingPackageError": "{} files need a package that is not installed",
    "ScaleError": "{} images have no known scale",
    "MissingFileError": "{} files were not found",
    "NoCellsError": "{} patients have no leukocytes in their images",
    "StoreError": "{} bag files could not be used",
    "WorkerDied": "{} patients were lost because their worker process was killed",
    Finding.SHARED: "{} images occur under several patients: left out of each",
    Finding.SAME_CELL: "{} times a patient shares cells with one of another diagnosis",
    Finding.UNLISTED: "{} files or folders are not part of the data set as published: left out",
    Finding.NOT_TRAINED: "{} patients have no diagnosis or no cells: not used for training",
    Finding.REFUSED: "{} images were not searched for cells",
}


@dataclass(frozen=True, slots=True)
class Listing:
    """What to print of the notes or of the failures.

    Attributes:
        lines: in order.
        complete: False if some are counted and not named.
    """

    lines: tuple[Line, ...]
    complete: bool


def notes(problems: Sequence[Problem], *, every: bool = False) -> Listing:
    """The notes among problems; ``every`` names each."""
    return _listing([p for p in problems if p.note], _NOTES, 0, every=every)


def failures(problems: Sequence[Problem], *, every: bool = False) -> Listing:
    """The problems that are more than notes; ``every`` names each."""
    return _listing([p for p in problems if not p.note], _FAILURES, _FEW, every=every)


def _listing(
    problems: Sequence[Problem], sentences: Mapping[str, str], examples: int, *, every: bool
) -> Listing:
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for p in problems:
        reason = p.message if p.error == Finding.EXCLUDED else ""
        kinds.setdefault((p.error, reason), []).append(p)
    lines: list[Line] = []
    complete = True
    for (kind, reason), same in kinds.items():
        few = _FEW if kind in sentences else _MOST
        if every or len(same) <= few:
            lines += [line for p in same for line in _named(p, 1)]
            continue
        complete = False
        if kind in sentences:
            some = same[:examples]
            end = ", for example" if some else ""
            lines.append(Line(sentences[kind].format(f"{len(same):,}", reason) + end, 1))
            lines += [line for p in some for line in _named(p, 2)]
        else:
            lines += [line for p in same[:few] for line in _named(p, 1)]
            lines.append(Line(f"and {len(same) - few:,} more", 1))
    return Listing(tuple(lines), complete)


def _named(problem: Problem, depth: int) -> Iterator[Line]:
    """Whom it concerns, and below it what happened."""
    message = problem.text
    ours = problem.error in set(Finding) or hasattr(errors, problem.error)
    text = message if ours and message else f"{problem.error}: {message}".rstrip(": ")
    where = "  ".join(filter(None, (problem.patient, problem.source)))
    if where:
        yield Line(where, depth, whole=True)
    yield Line(text, depth + 1 if where else depth)
