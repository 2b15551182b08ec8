"""The nouns of the method and their axes.

Conventions: images outside models are uint8 RGB of shape (H, W, 3); inside models float32
(N, 3, H, W). Axis letters: B bags, N cells of a bag, D features, C channels, H rows, W columns.
Points are (x, y) in pixels of the full-resolution image, arrays are (row, column). Units stand in
names. This module owns no behaviour beyond validation and conversion of units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from millie.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

RESEARCH_USE_ONLY = "For research use only. Not for use in diagnostic procedures."

ACUTE_LEUKAEMIAS = ("ALL", "AML", "APL")
"""Labels whose cells are blasts and promyelocytes, and what a reader may expect a model to name
beside normal. Cells of chronic leukaemias are mature."""


class ImageKind(StrEnum):
    """What an image file shows."""

    FIELD = "field"
    """A field of view with any number of leukocytes."""
    CELL = "cell"
    """A crop around one leukocyte."""
    SLIDE = "slide"
    """A whole slide."""


@dataclass(frozen=True, slots=True, order=True)
class PixelSize:
    """Physical size of one square pixel.

    Args:
        um_px: micrometres per pixel, 0.01 to 5.

    Raises:
        ConfigError: if the value is not finite or outside that range.
    """

    um_px: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.um_px) and 0.01 <= self.um_px <= 5.0):
            raise ConfigError(
                f"pixel size of {self.um_px} um/px: expected 0.01 to 5 "
                "(a 100x objective gives about 0.05 to 0.12, a 40x about 0.25)"
            )

    def to_px(self, length_um: float) -> float:
        """Convert micrometres to pixels."""
        return length_um / self.um_px

    def to_um(self, length_px: float) -> float:
        """Convert pixels to micrometres."""
        return length_px * self.um_px


@dataclass(frozen=True, slots=True)
class ImageSource:
    """One image file of a patient, as named by the cohort.

    Attributes:
        path: where the file lies.
        name: the file relative to the cohort's root, below its patient's folder, or as the user
            named it, with ``/``; this is what every output shows. Unique within a patient.
        kind: field, cell or slide; None: decided from the image by the pipeline.
        pixel_size: from the manifest or the data set's documentation; None: unknown.
        cell_label: expert's type of a single-cell crop. Evaluation only, never for training.
        outlines: GeoJSON file with the outlines of its cells, drawn or corrected elsewhere; None:
            cells are found by segmentation.
    """

    path: Path
    name: str
    kind: ImageKind | None = None
    pixel_size: PixelSize | None = None
    cell_label: str | None = None
    outlines: Path | None = None


@dataclass(frozen=True, slots=True)
class Patient:
    """One patient: the unit of labels, of splits and of predictions.

    Attributes:
        id: pseudonym, unique in the cohort.
        label: diagnosis, or None when unknown (prediction).
        images: the patient's files in a fixed order.
        split: name of a given part (``train``, ``test``...), or empty.
    """

    id: str
    label: str | None
    images: tuple[ImageSource, ...]
    site: str = ""
    stain: str = ""
    scanner: str = ""
    split: str = ""
    age: float | None = None
    sex: str = ""


class Finding(StrEnum):
    """What a problem is about where no error class says it, so that many of a kind can be counted.

    Stands in :attr:`Problem.error`; the words are stored and shown.
    """

    NOTE = "Note"
    """A note of its own kind; never summed up with others."""
    DUPLICATE = "Duplicate"
    """An image of which another one shows the same cells."""
    SAME_CELL = "SameCell"
    """A picture of a cell that lies under two patients."""
    CELL_TYPES_DIFFER = "CellTypesDiffer"
    """One cell that was filed under several cell types."""
    OVERVIEW = "Overview"
    """A field of view among single cells, or as small as one."""
    SAME_SCALE = "SameScale"
    """A field among single-cell images that was read at their scale."""
    OTHER_SCALE = "OtherScale"
    """A patient whose images state a scale that their red cells contradict."""
    NO_SCALE = "NoScale"
    """An image whose scale the set does not give."""
    NOT_UNDERSTOOD = "NotUnderstood"
    """An image that states a scale or colours which could not be used."""
    EXCLUDED = "Excluded"
    """A single-cell image that gives no cell; the message says why."""
    ONE_PATIENT = "OnePatient"
    """A folder of sub-folders, read as one patient."""
    TEST_SPLIT = "TestSplit"
    """A patient kept for the test."""
    NOT_TRAINED = "NotTrained"
    """A patient that cannot be trained on: no diagnosis, or no cells."""
    SHARED = "SharedImage"
    """A file that occurs under several patients."""
    UNLISTED = "Unlisted"
    """A file or folder that the table of diagnoses or classes does not name."""
    STRAY = "Stray"
    """A file beside the images that is none."""
    REFUSED = "Refused"
    """An image in which no cells were looked for."""
    SEEN_BEFORE = "SeenBefore"
    """A patient that an earlier run of the same model had."""
    TRAINED_ON = "TrainedOn"
    """A patient that the model was trained on."""
    SLIDE = "Slide"
    """How much of a whole slide was read."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that was found wrong, named and counted instead of dropped in silence.

    Attributes:
        patient: the patient concerned, or empty.
        source: the file concerned, or empty.
        error: class name of the error (``ImageError``, ...), or a :class:`Finding`.
        message: what, got, expected, remedy.
        fatal: True if the patient has no result because of it.
        note: True if nothing was lost (a duplicate counted once): told, but no failure.
    """

    patient: str
    source: str
    error: str
    message: str
    fatal: bool = False
    note: bool = False

    @property
    def text(self) -> str:
        """The message without the names at its start, for where they stand beside it."""
        text = self.message
        for known in (self.source, self.patient):
            text = text.removeprefix(f"{known}: ") if known else text
        return text


@dataclass(frozen=True, slots=True)
class Cohort:
    """Patients with their diagnoses, and what was wrong with the rest."""

    name: str
    patients: tuple[Patient, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The diagnoses that occur, sorted."""
        return tuple(sorted({p.label for p in self.patients if p.label is not None}))


@dataclass(frozen=True, slots=True)
class Place:
    """Where on a whole slide a field was cut.

    Cells are kept in pixels of the slide at full resolution (level 0), drawn and cut in those of
    the field.

    Attributes:
        left_px: left edge of the field, pixels of level 0; also ``top_px``, ``width_px``,
            ``height_px``.
        step: pixels of level 0 along a pixel of the field, 1 or more.
        core: left, top, right and bottom in pixels of level 0. Fields overlap by a margin; a cell
            counts where its middle lies in the core, so that none is counted twice.
        n_fields: how many fields are to be cut of this slide at most.
    """

    left_px: int
    top_px: int
    width_px: int
    height_px: int
    step: float
    core: tuple[int, int, int, int]
    n_fields: int = 1

    def owns(self, cell: Cell) -> bool:
        """Whether a cell, in pixels of level 0, counts in this field."""
        left, top, right, bottom = self.core
        return left <= cell.x_px < right and top <= cell.y_px < bottom

    def on_slide(self, cell: Cell) -> Cell:
        """A cell of the field, in pixels of level 0."""
        step, half = self.step, (self.step - 1) / 2
        return replace(
            cell,
            x_px=self.left_px + cell.x_px * step + half,
            y_px=self.top_px + cell.y_px * step + half,
            left_px=self.left_px + round(cell.left_px * step),
            top_px=self.top_px + round(cell.top_px * step),
            width_px=round(cell.width_px * step),
            height_px=round(cell.height_px * step),
            area_px=cell.area_px * step**2,
        )

    def in_field(self, cell: Cell) -> Cell:
        """A cell in pixels of level 0, in those of the field."""
        step, half = self.step, (self.step - 1) / 2
        return replace(
            cell,
            x_px=(cell.x_px - half - self.left_px) / step,
            y_px=(cell.y_px - half - self.top_px) / step,
            left_px=round((cell.left_px - self.left_px) / step),
            top_px=round((cell.top_px - self.top_px) / step),
            width_px=round(cell.width_px / step),
            height_px=round(cell.height_px / step),
            area_px=cell.area_px / step**2,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A decoded image, or a part of a whole slide.

    Attributes:
        image: uint8 RGB (H, W, 3).
        source: the file it came from.
        pixel_size: from the manifest, else from the file's metadata, else None.
        sha256: hex digest of the file's bytes; of the pixels where it is a part of a slide.
        notes: what the file states and could not be used: scale, colours.
        place: where on a whole slide it was cut; None: it is the whole image.
    """

    image: NDArray[np.uint8]
    source: ImageSource
    pixel_size: PixelSize | None
    sha256: str
    notes: tuple[str, ...] = ()
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One leukocyte: where it lies and how far it can be trusted.

    Attributes:
        source: index of the image in the patient's list of sources.
        x_px: centroid, pixels of the full-resolution image (a slide's level 0) from its left edge.
        y_px: centroid, from its top edge.
        left_px: box; also ``top_px``, ``width_px``, ``height_px``.
        area_px: area of the cell in full-resolution pixels.
        area_um2: area in square micrometres, or None where the scale is unknown.
        quality: 0 (unusable) to 1 (clean); 1 where the method does not judge.
        at_border: the cell is cut by the edge of the image.
        in_clump: it touches another leukocyte.
        smudge: a smudge cell (these lie almost only in leukaemia samples: a shortcut).
        label: expert's type, evaluation only, or None.
    """

    source: int
    x_px: float
    y_px: float
    left_px: int
    top_px: int
    width_px: int
    height_px: int
    area_px: float
    area_um2: float | None = None
    quality: float = 1.0
    at_border: bool = False
    in_clump: bool = False
    smudge: bool = False
    label: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CellRegion:
    """A cell found in a field, with its masks.

    Attributes:
        cell: position, box and flags; ``cell.source`` is 0 until the cell enters a bag.
        cell_mask: bool (height_px, width_px) inside the cell's box; True is cell.
        nucleus_mask: same shape; True is nucleus.
    """

    cell: Cell
    cell_mask: NDArray[np.bool_]
    nucleus_mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """What segmentation found in one field.

    Attributes:
        regions: cells, ordered by (top, left) of their boxes.
        pixel_size: the scale that was used, from metadata or estimated; None: not needed.
        background_rgb: colour of the empty background (3 values, 0 to 255).
        diagnostics: where the scale is from, what was measured, and why an image was refused.
    """

    regions: tuple[CellRegion, ...]
    pixel_size: PixelSize | None
    background_rgb: tuple[int, int, int]
    diagnostics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """Provenance of an image in a bag: file, digest, scale, size, segmentation diagnostics.

    A field of a whole slide has the slide's name, and its ``place``; its cells are in pixels of the
    slide at full resolution. ``path`` leads from the bag's folder to the file, with ``/``; it is
    empty where outputs carry pseudonyms. It is never absolute.
    """

    name: str
    sha256: str
    kind: ImageKind
    um_px: float | None
    height_px: int
    width_px: int
    path: str = ""
    diagnostics: dict[str, Any] = field(default_factory=dict)
    place: Place | None = None

    @property
    def title(self) -> str:
        """Its name, with the corner of the field where it is one of a slide; unique in a bag."""
        return self.name if self.place is None else field_title(self.name, self.place)


def field_title(slide: str, place: Place) -> str:
    """What a field of a slide is called: the slide, and its upper left corner at level 0."""
    return f"{slide} at {place.left_px}, {place.top_px}"


@dataclass(frozen=True, slots=True)
class Winner:
    """A cell that gave the maximum of fused features, and how much it moved one class.

    Attributes:
        cell: index of the cell in its bag.
        contribution: share of the evidence for the class that this cell carries, 0 to 1.
        features: number of features for which the cell is the maximum.
        looks_like: type of cell that it looks most like; empty where the encoder knows no types.
    """

    cell: int
    contribution: float
    features: int
    looks_like: str = ""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a sample goes to a person instead of getting a call.

    Attributes:
        code: stable identifier, of the catalogue in :mod:`millie.inference.reasons`.
        text: what holds, with its numbers, for a clinician.
        remedy: one sentence that says what would resolve it.
    """

    code: str
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Measure:
    """A measured quality of a sample beside its limits.

    Attributes:
        name: of the quality, such as ``sharpness``.
        value: what was measured; None: it cannot be.
        low: least value that passes; None: no such limit.
        high: greatest value that passes; None: no such limit.
        passed: whether the value lies within the limits; True where there is none.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    passed: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The call for one patient. For research use only.

    Attributes:
        patient: pseudonym.
        state: ``NO_SIGNAL``, a disease label of the bundle (APL as ``APL_SUSPECT``),
            ``INDETERMINATE`` or ``URGENT_INDETERMINATE``.
        reasons: why no call was made; empty for a call.
        label: the class with the highest probability, whatever the state.
        probabilities: calibrated probability of each class, in the bundle's order; sums to 1.
        cell_probabilities: float32 (N, C), each cell scored alone by the same weights; where the
            model tells types, an acute leukaemia's as far as the cell is immature, so that a row
            may sum to less than 1 (:func:`millie.inference.alone.cells_alone`).
        winners: for each class the cells that made it, strongest first.
        n_cells: usable cells.
        model: name and version of the bundle.
        model_sha256: digest of the bundle's manifest.
        ranges: where each probability lies in nine of ten draws of the patient's cells, by class.
        quality: what was measured of the images and cells, in a fixed order.
        p_values: conformal p-value of each class: those above alpha form a set that holds the true
            class with probability 1 - alpha; empty where the bundle keeps no held-out patients.
        supported: the highest probability to be told, by the number of training patients.
        cell_types: (N,), the type that each cell looks most like to the encoder, which learnt types
            of normal cells from labels and blasts from diagnoses; of a smudged, cut or not outlined
            cell an empty word. Empty where the encoder knows no types.
    """

    patient: str
    state: str
    reasons: tuple[Reason, ...]
    label: str
    probabilities: dict[str, float]
    cell_probabilities: NDArray[np.float32]
    winners: dict[str, tuple[Winner, ...]]
    n_cells: int
    model: str
    model_sha256: str
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    quality: tuple[Measure, ...] = ()
    p_values: dict[str, float] = field(default_factory=dict)
    supported: float = 0.99
    cell_types: tuple[str, ...] = ()
