"""The catalogue of reasons: what keeps a sample from a call, and what would resolve it.

Codes are stable: scripts and hospital systems may rely on them. Texts carry the numbers of one
sample and are written where these are known; meaning and remedy stand here, and nowhere else.
``docs/safety.md`` has the same table for readers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from millie.types import Reason


class Code(StrEnum):
    """Why a sample goes to a person."""

    TOO_FEW_CELLS = "TOO_FEW_CELLS"
    TOO_FEW_CELLS_FOR_NO_SIGNAL = "TOO_FEW_CELLS_FOR_NO_SIGNAL"
    SMUDGE_CELLS = "SMUDGE_CELLS"
    OUT_OF_FOCUS = "OUT_OF_FOCUS"
    CLIPPED = "CLIPPED"
    STAIN_TOO_WEAK = "STAIN_TOO_WEAK"
    COLOURS_TOO_WEAK = "COLOURS_TOO_WEAK"
    CELLS_TOO_SMALL = "CELLS_TOO_SMALL"
    CELLS_TOO_LARGE = "CELLS_TOO_LARGE"
    SCALE_CONTRADICTED = "SCALE_CONTRADICTED"
    UNFAMILIAR_MAGNIFICATION = "UNFAMILIAR_MAGNIFICATION"
    OTHER_CAMERA_OR_STAIN = "OTHER_CAMERA_OR_STAIN"
    NOT_MEASURED = "NOT_MEASURED"
    NO_PICTURES = "NO_PICTURES"
    APL_NOT_EXCLUDED = "APL_NOT_EXCLUDED"
    POSITIVE_NOT_EXCLUDED = "POSITIVE_NOT_EXCLUDED"
    FEW_IMMATURE_CELLS = "FEW_IMMATURE_CELLS"
    LEUKAEMIA_NOT_CERTAIN = "LEUKAEMIA_NOT_CERTAIN"
    LEUKAEMIA_NOT_EXCLUDED = "LEUKAEMIA_NOT_EXCLUDED"
    DISEASE_NOT_SETTLED = "DISEASE_NOT_SETTLED"
    DISEASE_NOT_CONFIRMED = "DISEASE_NOT_CONFIRMED"
    NOT_THIS_DISEASE = "NOT_THIS_DISEASE"


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the catalogue.

    Attributes:
        meaning: what holds for every sample with this code, in one line.
        remedy: one sentence that says what would resolve it; ``{...}`` are facts of the sample.
    """

    meaning: str
    remedy: str


_MORE_CELLS = "Photograph at least {missing} more white blood cells of this patient."
_SCALE = "Check the scale of the images (um_px in the manifest) and the objective, then scan again."
_FOCUS = "Scan or photograph the film again in focus."
_EXPOSURE = "Set exposure and white balance on an empty part of the film, then photograph it again."
_APL = "Ask a haematologist now: APL cannot wait for other images."
_POSITIVE = "Ask a haematologist to read this film before all others without a call."
_NARROWER = "Photograph more white blood cells, or have the film read by a haematologist."
_OTHER_MODEL = "Run millie predict {screen} on this patient, or have the film read by a person."

CATALOGUE: dict[Code, Entry] = {
    Code.TOO_FEW_CELLS: Entry("fewer usable cells than any call needs", _MORE_CELLS),
    Code.TOO_FEW_CELLS_FOR_NO_SIGNAL: Entry(
        "enough cells to name a disease, too few to report none", _MORE_CELLS
    ),
    Code.SMUDGE_CELLS: Entry(
        "most cells are crushed",
        "Photograph areas with intact cells, or make a new film (albumin prevents smudging).",
    ),
    Code.OUT_OF_FOCUS: Entry("the cells are blurred", _FOCUS),
    Code.CLIPPED: Entry("colours of the cells are lost in pure white or black", _EXPOSURE),
    Code.STAIN_TOO_WEAK: Entry(
        "the nuclei hardly stand out from the background",
        "Check exposure and stain; stain the film again if the cells look pale in the microscope.",
    ),
    Code.COLOURS_TOO_WEAK: Entry(
        "the cells are nearly grey",
        "Photograph in colour, without filters, and export the images without changing colours.",
    ),
    Code.CELLS_TOO_SMALL: Entry("the cells fill less of a crop than they can", _SCALE),
    Code.CELLS_TOO_LARGE: Entry("the cells fill more of a crop than they can", _SCALE),
    Code.SCALE_CONTRADICTED: Entry(
        "the images state a scale, and their red cells say that it is another one",
        "Correct the scale (um_px in the manifest goes before the image file's own); where the "
        "manifest or a setting alone states it, it can be left out and is read from the cells.",
    ),
    Code.UNFAMILIAR_MAGNIFICATION: Entry(
        "the images state no scale, and by their cells it is not that of the training images",
        "State the scale if it is known (um_px in the manifest), or take the images through the "
        "objective and camera of the training images.",
    ),
    Code.OTHER_CAMERA_OR_STAIN: Entry(
        "the images are unlike those that the model was trained on",
        "Use a model trained on this laboratory's stain and camera, or have the film read by a "
        "person.",
    ),
    Code.NOT_MEASURED: Entry(
        "a quality that the model limits cannot be measured",
        "Send images in which cells can be outlined: in focus, in colour, one cell or more each.",
    ),
    Code.NO_PICTURES: Entry(
        "the cells came as vectors, so that nothing was checked that needs pictures of them",
        "Call the patient's images with a model for images, or have the film read by a person.",
    ),
    Code.APL_NOT_EXCLUDED: Entry("APL is neither called nor excluded", _APL),
    Code.POSITIVE_NOT_EXCLUDED: Entry(
        "the model's urgent class, where that is not APL, is neither called nor excluded", _POSITIVE
    ),
    Code.FEW_IMMATURE_CELLS: Entry(
        "a disease is likely or not excluded by its probability, but hardly any immature cells "
        "are seen",
        _NARROWER,
    ),
    Code.LEUKAEMIA_NOT_CERTAIN: Entry("a disease is likely but health is not excluded", _NARROWER),
    Code.LEUKAEMIA_NOT_EXCLUDED: Entry("health is likely but disease is not excluded", _NARROWER),
    Code.DISEASE_NOT_SETTLED: Entry(
        "a disease is certain, which one depends on the cells drawn", _NARROWER
    ),
    Code.DISEASE_NOT_CONFIRMED: Entry(
        "a model that knows health is not certain of any disease of this model", _OTHER_MODEL
    ),
    Code.NOT_THIS_DISEASE: Entry(
        "a model that knows health sees something else than this model's diseases", _OTHER_MODEL
    ),
}


def reason(code: Code, text: str, **facts: object) -> Reason:
    """A reason of one sample.

    Args:
        code: in the catalogue.
        text: what holds, with its numbers, for a clinician.
        facts: for the blanks of the remedy.

    Raises:
        KeyError: a blank of the remedy is not among the facts.
    """
    return Reason(code.value, text, CATALOGUE[code].remedy.format(**facts))
