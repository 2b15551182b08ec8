"""What is measured of a sample's cells and images, without learning.

Owns the measures; limits and what follows from them are :mod:`millie.inference.gates`. Crops tell
focus, colours and size, cells their flags, sources the background, and the bag what was left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from millie.types import Finding, ImageKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from millie.bags.store import BagReader
    from millie.types import Cell, Problem, SourceRecord

_WHITE, _BLACK = 254, 1  # intensities from which and up to which a sensor's range is used up
_NUCLEUS = 2  # value of masks, see :mod:`millie.segmentation.crops`
_UNKNOWN = float("nan")


@dataclass(frozen=True, slots=True)
class SampleQuality:
    """What the gates look at. What cannot be measured is NaN.

    Attributes:
        n_cells: cells in the bag.
        n_usable: of them with a quality above 0.
        smudge_fraction: share of smudge cells, 0 to 1.
        sharpness: median over cells of the variance of the Laplacian by the variance of the green
            channel; falls with blur, does not depend on the strength of the stain.
        cell_fraction: median share of the crop that the cell covers, 0 to 1; quarters when the
            magnification is half of what it is taken for.
        distance: of the bag's mean features from the training patients, see
            :func:`millie.inference.gates.reference_distance`; None: the bundle has no reference.
        sharpness_low: first quartile of the same sharpness: falls where part of the cells is
            blurred.
        background: median over images of the brightness of the empty background, 0 to 1.
        stain: median over cells of the optical density of the nucleus in green light, over that of
            the background; 0.3 halves the light.
        saturation: median over cells of the difference between their strongest and weakest channel,
            0 (grey) to 1.
        clipped_fraction: mean over cells of the share of pixels in which a channel is used up
            (white or black), 0 to 1.
        border_fraction: share of cells cut by the edge of their image.
        touching_fraction: share of cells that touch another leukocyte.
        unoutlined_fraction: share of cells of which no outline was found.
        cells_per_field: mean number of cells in a field of view.
        copies: images that repeat others, wholly or in part.
        unused_files: files that could not be used: damaged, unreadable, refused.
        pictures: False: the cells came as vectors, and nothing that needs pictures was measured.
    """

    n_cells: int
    n_usable: int
    smudge_fraction: float
    sharpness: float
    cell_fraction: float
    distance: float | None = None
    sharpness_low: float = _UNKNOWN
    background: float = _UNKNOWN
    stain: float = _UNKNOWN
    saturation: float = _UNKNOWN
    clipped_fraction: float = _UNKNOWN
    border_fraction: float = _UNKNOWN
    touching_fraction: float = _UNKNOWN
    unoutlined_fraction: float = _UNKNOWN
    cells_per_field: float = _UNKNOWN
    copies: int = 0
    unused_files: int = 0
    pictures: bool = True


class QualityMeter:
    """Measures a bag that streams past.

    Args:
        cells: of the bag.
        sources: of the bag.
        problems: of the bag.
        pictures: False: the cells are vectors, so that no flag of theirs says anything.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        sources: Sequence[SourceRecord] = (),
        problems: Sequence[Problem] = (),
        *,
        pictures: bool = True,
    ) -> None:
        self._cells, self._sources, self._problems = cells, sources, problems
        self._pictures = pictures
        self._seen: dict[str, list[NDArray[np.float64]]] = {
            name: [] for name in ("sharpness", "cover", "stain", "saturation", "clipped")
        }
        self._next = 0

    @classmethod
    def of(cls, reader: BagReader) -> QualityMeter:
        """For the bag of a reader."""
        return cls(
            reader.cells, reader.sources, reader.meta.problems, pictures=not reader.holds_vectors
        )

    def add(self, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> None:
        """Take the next crops (n, S, S, 3) and their masks (n, S, S)."""
        cells = self._cells[self._next : self._next + len(images)]
        self._next += len(images)
        greens = [_background(self._sources, cell)[1] for cell in cells]
        rows = [_colours(*one) for one in zip(images, masks, greens, strict=True)]
        colours = np.array(rows, np.float64).reshape(-1, 3)
        found = {
            "sharpness": crop_sharpness(images),
            "cover": (masks > 0).mean(axis=(1, 2)),
            "stain": colours[:, 0], "saturation": colours[:, 1], "clipped": colours[:, 2],
        }  # fmt: skip
        for name, values in found.items():
            self._seen[name].append(values)

    def result(self, distance: float | None = None) -> SampleQuality:
        """The bag's quality, once all cells have passed.

        Args:
            distance: of its mean features from the training patients, if known.
        """
        copies = sum(p.error == Finding.DUPLICATE for p in self._problems)
        unused = sum(not p.note for p in self._problems)
        n_usable = sum(cell.quality > 0 for cell in self._cells)
        if not self._pictures:
            return SampleQuality(
                len(self._cells), n_usable, _UNKNOWN, _UNKNOWN, _UNKNOWN, distance,
                copies=copies, unused_files=unused, pictures=False,
            )  # fmt: skip
        seen = {name: _finite(np.concatenate([np.zeros(0), *v])) for name, v in self._seen.items()}
        cover = seen["cover"]
        backgrounds = np.array([np.mean(_rgb(source)) for source in self._sources]) / 255
        return SampleQuality(
            n_cells=len(self._cells),
            n_usable=n_usable,
            smudge_fraction=sum(cell.smudge for cell in self._cells) / max(len(self._cells), 1),
            sharpness=_quantile(seen["sharpness"], 0.5),
            cell_fraction=_quantile(cover[cover > 0], 0.5),
            distance=distance,
            sharpness_low=_quantile(seen["sharpness"], 0.25),
            background=_quantile(_finite(backgrounds), 0.5),
            stain=_quantile(seen["stain"], 0.5),
            saturation=_quantile(seen["saturation"], 0.5),
            clipped_fraction=_mean(seen["clipped"]),
            border_fraction=_mean([cell.at_border for cell in self._cells]),
            touching_fraction=_mean([cell.in_clump for cell in self._cells]),
            unoutlined_fraction=_mean([cell.quality == 0 for cell in self._cells]),
            cells_per_field=self._cells_per_field(),
            copies=copies,
            unused_files=unused,
        )

    def _cells_per_field(self) -> float:
        fields = {i for i, s in enumerate(self._sources) if s.kind is not ImageKind.CELL}
        if not fields:
            return _UNKNOWN
        return sum(cell.source in fields for cell in self._cells) / len(fields)


def measure_bag(reader: BagReader, batch_size: int = 64) -> SampleQuality:
    """The quality of a bag by itself, without features; for the limits of a new bundle."""
    meter = QualityMeter.of(reader)
    for start in range(0, 0 if reader.holds_vectors else reader.n_cells, batch_size):
        stop = start + batch_size
        meter.add(reader.images(start, stop), reader.masks(start, stop))
    return meter.result()


def crop_sharpness(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Variance of the Laplacian by the variance of the green channel, for each of (n, S, S, 3)."""
    green = images[..., 1].astype(np.float32)
    centre = green[:, 1:-1, 1:-1]
    laplacian = (
        green[:, :-2, 1:-1] + green[:, 2:, 1:-1] + green[:, 1:-1, :-2] + green[:, 1:-1, 2:]
    ) - 4 * centre
    variance = centre.var(axis=(1, 2), dtype=np.float64)
    detail = laplacian.var(axis=(1, 2), dtype=np.float64)
    ratio: NDArray[np.float64] = np.zeros_like(detail)
    np.divide(detail, variance, out=ratio, where=variance > 0)
    return ratio


def _colours(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], background_green: float
) -> tuple[float, float, float]:
    """Stain of the nucleus, saturation and clipped share of one cell; NaN without an outline."""
    cell = image[mask > 0]
    if not len(cell):
        return _UNKNOWN, _UNKNOWN, _UNKNOWN
    strongest, weakest = cell.max(axis=1), cell.min(axis=1)
    clipped = float(((strongest >= _WHITE) | (weakest <= _BLACK)).mean())
    saturation = float((strongest - weakest).mean()) / 255
    nucleus = image[mask == _NUCLEUS]
    if not len(nucleus):
        return _UNKNOWN, saturation, clipped
    # one is added as nothing is lighter than black: Beer-Lambert needs light
    stain = np.log10((background_green + 1) / (float(np.median(nucleus[:, 1])) + 1))
    return float(stain), saturation, clipped


def _background(sources: Sequence[SourceRecord], cell: Cell) -> NDArray[np.float64]:
    return _rgb(sources[cell.source]) if cell.source < len(sources) else np.full(3, _UNKNOWN)


def _rgb(source: SourceRecord) -> NDArray[np.float64]:
    """Colour of the empty background (3,), as segmentation found it; NaN where it did not."""
    return np.asarray(source.diagnostics.get("background_rgb", [_UNKNOWN] * 3), np.float64)


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]


def _quantile(values: NDArray[np.float64], q: float) -> float:
    return float(np.quantile(values, q)) if len(values) else _UNKNOWN


def _mean(values: Sequence[bool] | NDArray[np.float64]) -> float:
    return float(np.mean(values)) if len(values) else _UNKNOWN
