"""What a reader should check of a sample although no limit was passed: cells, and what they are.

The gates keep a sample from a call; a remark keeps none. Owns from which share on cells that touch,
are cut or are smudged are remarked on, and when the evidence itself is to be looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from millie.outputs.patient.evidence import weigh
from millie.outputs.patient.records import ModelFacts, PatientResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from millie.types import Prediction

NOTABLE = 1 / 3
"""Share of the cells from which on a flaw is remarked on."""
_MOST = 0.5
"""Share of the evidence shown, carried by mature cells, that is remarked on."""

_FLAWS = {
    "touching_fraction": "of the cells touch another one: their outlines are less certain",
    "border_fraction": "of the cells are cut off at the image edge",
    "smudge_fraction": "of the cells are smudged",
    "unoutlined_fraction": "of the cells have no outline: the whole crop was used",
}


@dataclass(frozen=True, slots=True)
class Remark:
    """Something to check.

    Attributes:
        about: name of the measure, or ``evidence``.
        text: what holds, with its number.
    """

    about: str
    text: str


def remarks_on(result: PatientResult, model: ModelFacts) -> tuple[Remark, ...]:
    """What to check of a patient, the cells first; nothing for a patient without a result."""
    if result.failed:
        return ()
    found = [
        Remark(measure.name, f"{measure.value:.0%} {_FLAWS[measure.name]}")
        for measure in result.quality
        if measure.name in _FLAWS and measure.value is not None and measure.value >= NOTABLE
    ]
    share = _mature_share(result, model)
    if share is not None and share > _MOST:
        text = (
            f"{share:.0%} of the evidence shown for {weigh(result, model).focus} lies in cells "
            "that look mature: see whether they are"
        )
        found.append(Remark("evidence", text))
    return tuple(found)


def remarks_of(
    predictions: Iterable[Prediction], card: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """Remarks in words, by patient, where there are any; ``card`` is the model's."""
    model = ModelFacts.from_card(card)
    found = {
        p.patient: tuple(r.text for r in remarks_on(PatientResult.from_prediction(p), model))
        for p in predictions
    }
    return {patient: texts for patient, texts in found.items() if texts}


def _mature_share(result: PatientResult, model: ModelFacts) -> float | None:
    """Share of the shown evidence in mature cells; None where no disease is in focus or known."""
    evidence = weigh(result, model)
    shown = sum(winner.contribution for winner in evidence.cells_for)
    if not shown or not model.mature_types or evidence.focus not in model.diseases:
        return None
    mature = (w.contribution for w in evidence.cells_for if w.looks_like in model.mature_types)
    return sum(mature) / shown
