"""Colours of one source given to the others, fold by fold, from the training part alone.

A source is a site with its scanner. Each patient's crops are measured once; the statistics of a
source in a fold are those of its training patients joined, so no test patient has a say in what is
done to it. Crops are changed when they are read, and the cache of features is keyed by the change.
Owns who belongs to which source and ``colours.json``; the arithmetic is
:mod:`millie.segmentation.colour`'s.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from millie.bags.store import BagReader
from millie.files import write_text
from millie.learning.train import Progress, silent
from millie.segmentation.colour import ColourStatistics, fit, join, transfer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from millie.bags.loading import Recolour
    from millie.bags.store import BagSummary, Store
    from millie.learning.ensemble import Material
    from millie.learning.material import Opener
    from millie.learning.splits import Splits

CELLS_MEASURED = 20
"""Cells of a patient whose colours are measured, evenly over the bag: enough for three means and
three deviations of a source, and no patient outweighs the others."""

FILE = "colours.json"


def source_of(bag: BagSummary) -> str:
    """Where a patient's images come from: site and scanner, as far as known; else empty."""
    return ", ".join(part for part in (bag.site, bag.scanner) if part)


def sources_of(store: Store, patients: Sequence[str]) -> dict[str, str]:
    """The source of each of these patients."""
    wanted = set(patients)
    return {bag.patient: source_of(bag) for bag in store.index() if bag.patient in wanted}


@dataclass(frozen=True, slots=True)
class FoldColours:
    """What a training part says about colours.

    Attributes:
        target: the source whose colours all get.
        statistics: of each source that has training patients.
    """

    target: str
    statistics: Mapping[str, ColourStatistics]

    def change(self, source: str) -> tuple[str, Recolour] | None:
        """Digest and change of a source's crops; None: they stay as they are.

        The target's own crops stay, and so do those of a source without training patients, about
        whose colours nothing may be known.
        """
        if source == self.target or source not in self.statistics:
            return None
        own, wanted = self.statistics[source], self.statistics[self.target]
        text = json.dumps([asdict(own), asdict(wanted)], sort_keys=True)

        def recolour(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
            n, height, width, channels = images.shape
            tall = np.ascontiguousarray(images).reshape(n * height, width, channels)
            return transfer(tall, own, wanted).reshape(images.shape) if n else images

        return hashlib.sha256(text.encode()).hexdigest(), recolour


class ColourTransfer:
    """The colours of a store's sources, measured when they are first wanted.

    Args:
        store: the bags.
        patients: of the study; patients of unknown source stay as they are.

    Attributes:
        sources: source by patient.
    """

    def __init__(self, store: Store, patients: Sequence[str]) -> None:
        self._store = store
        self._measured: dict[str, ColourStatistics] = {}
        self.sources = {p: s for p, s in sources_of(store, patients).items() if s}

    @property
    def names(self) -> list[str]:
        """The sources, the one with most patients first; equal ones by name."""
        counts = Counter(self.sources.values())
        return sorted(counts, key=lambda name: (-counts[name], name))

    def fit(self, part: Sequence[str]) -> FoldColours:
        """Measure the sources on a training part alone.

        The target is the largest source of the study that has training patients: the same in all
        folds unless one leaves it out.
        """
        own: dict[str, list[str]] = {name: [] for name in self.names}
        for patient in part:
            if patient in self.sources:
                own[self.sources[patient]].append(patient)
        statistics = {
            name: join(self._measure(p) for p in sorted(patients))
            for name, patients in own.items()
            if patients
        }
        return FoldColours(next(iter(statistics), ""), statistics)

    def changes(
        self, colours: FoldColours, patients: Sequence[str]
    ) -> dict[str, tuple[str, Recolour]]:
        """The change of each patient's crops that is not left as it is."""
        by_source = {name: colours.change(name) for name in self.names}
        found = {p: by_source[self.sources[p]] for p in patients if p in self.sources}
        return {patient: change for patient, change in found.items() if change is not None}

    def write(self, splits: Splits, out: Path) -> None:
        """Write the statistics of every fold, for the report and for whoever checks them."""
        folds: list[dict[str, Any]] = []
        for fold in splits.assignments:
            colours = self.fit((*fold.train, *fold.validation))
            of_sources = {name: s.to_dict() for name, s in colours.statistics.items()}
            folds.append(
                {
                    "repeat": fold.repeat,
                    "fold": fold.fold,
                    "target": colours.target,
                    "statistics": of_sources,
                }
            )
        content = {
            "space": "l alpha beta, log10 (Reinhard et al. 2001)",
            "cells_measured": CELLS_MEASURED,
            "sources": self.sources,
            "folds": folds,
        }
        write_text(out / FILE, json.dumps(content, indent=1) + "\n")

    def _measure(self, patient: str) -> ColourStatistics:
        if patient not in self._measured:
            with BagReader(self._store.path_of(patient), verify=False) as reader:
                count = min(CELLS_MEASURED, reader.n_cells)
                chosen = np.linspace(0, reader.n_cells - 1, count).astype(int)
                self._measured[patient] = fit(reader.image(int(i)) for i in chosen)
        return self._measured[patient]


class RecolouredCells:
    """The cells of a study in the colours that a training part gives them.

    Args:
        opener: of cells.
        transfer: of the same store.
        patients: of the study.
        progress: called after each patient.
    """

    def __init__(
        self,
        opener: Opener,
        transfer: ColourTransfer,
        patients: Sequence[str],
        progress: Progress = silent,
    ) -> None:
        self.transfer = transfer
        self._opener, self._patients, self._progress = opener, patients, progress

    def __call__(self, part: Sequence[str]) -> Material:
        """Cells of all patients; the statistics are those of ``part`` alone."""
        changes = self.transfer.changes(self.transfer.fit(part), self._patients)
        return self._opener.open(self._patients, self._progress, changes)
