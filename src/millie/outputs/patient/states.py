"""The states a prediction can end in: rank of urgency, and words for people.

Owns wording and rank only; which state a patient gets is decided by the prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

FAILED = "FAILED"
"""Written where a patient has no result at all."""
SUSPECT_SUFFIX = "_SUSPECT"


@dataclass(frozen=True, slots=True)
class StateWords:
    """How a state is shown.

    Attributes:
        rank: place in the worklist, 0 the most urgent.
        style: CSS class and icon: suspect, urgent, disease, indeterminate, nosignal or failed.
        title: the call in a few words.
        meaning: one sentence that says what it is and is not.
    """

    rank: int
    style: str
    title: str
    meaning: str


_FIXED = {
    "URGENT_INDETERMINATE": StateWords(
        1,
        "urgent",
        "Indeterminate: urgent",
        "No call, and an urgent diagnosis is not excluded. "
        "Review this sample before all other samples without a call.",
    ),
    "INDETERMINATE": StateWords(
        3,
        "indeterminate",
        "Indeterminate",
        "No call, for the reasons below. This is neither a positive nor a negative result.",
    ),
    "NO_SIGNAL": StateWords(
        4,
        "nosignal",
        "No signal",
        "The analysed cells do not suggest any disease that this model recognises. "
        "This does not exclude disease.",
    ),
    FAILED: StateWords(
        5,
        "failed",
        "Failed: no result",
        "This patient could not be analysed. Treat as not examined.",
    ),
}


def words_for(state: str) -> StateWords:
    """Words, icon and rank for a state; any other word is taken for a bundle's own class."""
    if state in _FIXED:
        return _FIXED[state]
    if state.endswith(SUSPECT_SUFFIX):
        disease = state.removesuffix(SUSPECT_SUFFIX)
        return StateWords(
            0,
            "suspect",
            f"Suspected {disease}",
            f"The analysed cells suggest {disease}. Review this sample immediately.",
        )
    return StateWords(
        2,
        "disease",
        state,
        f"The analysed cells suggest {state}, one of the classes that this model recognises.",
    )


def is_urgent(state: str) -> bool:
    """Whether the state goes before all others in the worklist."""
    return words_for(state).rank <= 1
