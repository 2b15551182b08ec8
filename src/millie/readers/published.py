"""What a published data set is: its facts, its folder tree, its pitfalls, and its adapter.

Owns the check of a folder against the published tree (too deep, too shallow, a label file missing
or renamed, with the expected tree beside the one found), the comparison with published counts, and
the text that explains a set. It knows no set; each has its own module and is listed in datasets.py.
"""

from __future__ import annotations

import difflib
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from millie.errors import ManifestError
from millie.files import is_visible
from millie.readers.content import note
from millie.types import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from millie.types import Cohort

_SHOWN = 8  # entries of a folder that a message lists
_SEARCHED = 200  # sub-folders looked into when the root is too shallow
_LINE = 96


@dataclass(frozen=True, slots=True)
class CellAnnotation:
    """An expert's mark on one cell of a field. For evaluation only, never for training.

    Attributes:
        x_px: centre of the cell, pixels of the full-resolution image from its left edge.
        y_px: the same from its top edge.
        label: type of the cell.
        box_px: left, top, width and height, or None where only the centre was marked.
    """

    x_px: float
    y_px: float
    label: str
    box_px: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """The folder tree of a set, and how it is recognised.

    Attributes:
        name: of the set.
        tree: the published tree, drawn for people.
        anchors: entries of the root that make it this set; a folder ends with ``/``.
        any_anchor: True if one of them is enough (class folders), False if all must be there.
        foreign: entries that another set of like build has, this one never.
    """

    name: str
    tree: str
    anchors: tuple[str, ...]
    any_anchor: bool = False
    foreign: tuple[str, ...] = ()

    def fits(self, folder: Path) -> bool:
        """Whether a folder is a root of this set."""
        if any(_is_entry(folder, entry) for entry in self.foreign):
            return False
        found = (_is_entry(folder, anchor) for anchor in self.anchors)
        return any(found) if self.any_anchor else all(found)

    def check(self, root: Path) -> Path:
        """Return the resolved root, if it is one.

        Raises:
            ManifestError: it is not; the message says what to give instead, where that can be
                told, and shows the expected tree beside the one found.
        """
        root = root.resolve()
        if self.fits(root):
            return root
        above = next((p for p in root.parents if self.fits(p)), None)
        below = next((p for p in _folders_below(root) if self.fits(p)), None)
        if above is not None:
            advice = f"one or more levels too deep: give --root {above}"
        elif below is not None:
            advice = f"one or more levels too high: give --root {below}"
        else:
            advice = self._missing(root)
        raise ManifestError(f"{root} is not the set {self.name}; {advice}\n{self.trees(root)}")

    def _missing(self, root: Path) -> str:
        strange = [entry for entry in self.foreign if _is_entry(root, entry)]
        if strange:
            return f"{strange[0]} belongs to another set: check where the data came from"
        absent = [anchor for anchor in self.anchors if not _is_entry(root, anchor)]
        if self.any_anchor:
            return f"it has none of {', '.join(self.anchors)}: download the set from its source"
        renamed = [text for anchor in absent if (text := _renamed(root, anchor))]
        named = " and ".join(anchor.rstrip("/") for anchor in absent)
        why = "; ".join(renamed) or "download the set from its source"
        return f"{named} missing: {why}"

    def trees(self, root: Path) -> str:
        """The expected tree and the one found, for a message."""
        if not root.is_dir():
            return f"expected:\n{self.tree}\nfound: no such folder"
        entries = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
        shown = [f"├── {name}" for name in entries[:_SHOWN]]
        more = [f"└── ... and {len(entries) - _SHOWN} more"] if len(entries) > _SHOWN else []
        found = "\n".join([f"{root}/", *(shown or ["(empty)"]), *more])
        return f"expected:\n{self.tree}\nfound:\n{found}"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A published set of images with diagnoses or cell types.

    Attributes:
        name: as typed on the command line.
        summary: one line.
        description: what it shows and how large it is.
        source: where to get it.
        terms: under which conditions.
        patients: what counts as a patient here.
        labels: the diagnoses that ``prepare`` gives.
        traps: what misleads a reader or a model, and what the adapter does about it.
        verified: how far the layout was checked against the set itself.
        layout: the folder tree that ``prepare`` expects.
        prepare: reads the folder of the set into a cohort; raises ManifestError, showing the
            expected tree beside the one found, if the folder is not that set.
        annotations: marks on cells of fields, by name of the image as in the cohort; None: none.
    """

    name: str
    summary: str
    description: str
    source: str
    terms: str
    patients: str
    labels: str
    traps: tuple[str, ...]
    verified: str
    layout: Layout
    prepare: Callable[[Path], Cohort]
    annotations: Callable[[Path], dict[str, tuple[CellAnnotation, ...]]] | None = None

    def explain(self) -> str:
        """Everything a user should know before using the set, as plain text."""
        marks = "" if self.annotations is None else "Cells marked by experts, for evaluation only."
        parts = (
            ("What it is", self.description),
            ("Where to get it", self.source),
            ("Terms", self.terms),
            ("Patients", self.patients),
            ("Labels", self.labels),
            ("Cell marks", marks),
            ("Layout verified", self.verified),
        )
        lines = [f"{self.name}: {self.summary}"]
        for title, text in parts:
            if text:
                lines += ["", title, _indented(text)]
        lines += ["", "Pitfalls", *(_indented(trap, "- ") for trap in self.traps)]
        lines += ["", "Folder tree", textwrap.indent(self.layout.tree, "  ")]
        return "\n".join(lines)


def _indented(text: str, bullet: str = "") -> str:
    return textwrap.fill(
        text,
        _LINE,
        initial_indent="  " + bullet,
        subsequent_indent="  " + " " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )


def count_notes(got: Mapping[str, int], published: Mapping[str, int], of: str) -> Iterator[Problem]:
    """Note counts that differ from the published ones: a subset is no failure.

    Args:
        got: what is there, by name.
        published: what should be there.
        of: what is counted, as ``images``.
    """
    counts = Counter(dict(got))
    total, expected = sum(counts[name] for name in published), sum(published.values())
    if total != expected:
        fewer = f"{total} of the {expected} published {of}: a subset"
        more = f"{total} {of}, more than the {expected} published"
        yield note("", "", fewer if total < expected else more)
    wrong = [f"{counts[n]} {n} ({p})" for n, p in published.items() if counts[n] != p]
    if wrong:
        yield note("", "", f"{of} here (published): {', '.join(wrong)}")


def _is_entry(folder: Path, anchor: str) -> bool:
    path = folder / anchor.rstrip("/")
    return path.is_dir() if anchor.endswith("/") else path.is_file()


def _folders_below(root: Path) -> Iterator[Path]:
    """Sub-folders of the first and second level, sorted, not too many of them."""
    first = _folders(root)
    yield from first
    for folder in first:
        yield from _folders(folder)


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = sorted(p for p in folder.iterdir() if p.is_dir() and is_visible(p.name))
    return found[:_SEARCHED]


def _renamed(root: Path, anchor: str) -> str:
    """A guess which file was meant, or an empty text."""
    names = [p.name for p in root.iterdir() if p.is_file()] if root.is_dir() else []
    alike = {name.lower(): name for name in names}
    near = difflib.get_close_matches(anchor.lower(), alike, n=1, cutoff=0.6)
    return f"if {alike[near[0]]} is that file, rename it to {anchor}" if near else ""
