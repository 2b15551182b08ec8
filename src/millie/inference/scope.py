"""What a model can tell and what it cannot, in one sentence for every page.

A model names one of its classes for any sample, so a reader must know which classes there are. Owns
the wording; which labels mean no disease is the configuration's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millie.inference.calls import NO_SIGNAL, state_of
from millie.types import ACUTE_LEUKAEMIAS

if TYPE_CHECKING:
    from collections.abc import Sequence


def told_apart(labels: Sequence[str]) -> str:
    """The classes that a model tells apart: ``APL from other AML``, ``normal, ALL and AML``."""
    if set(labels) == {"AML", "APL"}:
        return "APL from other AML"  # APL is one of the AMLs
    return f"{listed(labels, 'and')} apart"


def scope(labels: Sequence[str], negative: Sequence[str], vectors: str = "") -> str:
    """One sentence: the classes of a model, and what it never answers; a second for vectors.

    Args:
        labels: of the model.
        negative: labels that mean no disease.
        vectors: name of the encoder elsewhere whose vectors it takes; empty: it takes images.
    """
    healthy = [label for label in labels if state_of(label, negative) == NO_SIGNAL]
    own = [*healthy, *(label for label in labels if label not in healthy)]
    never = [*([] if healthy else ["normal"]), *(x for x in ACUTE_LEUKAEMIAS if x not in labels)]
    other = "name any other disease"
    ends = f"say {listed(never, 'or')}, nor {other}" if never else other
    told = f"This model tells {told_apart(own)}; it cannot {ends}."
    if not vectors:
        return told
    return (
        f"{told} It was given vectors of {vectors}: focus, exposure, stain and scale of the images "
        "were not checked, so it never reports NO_SIGNAL."
    )


def listed(names: Sequence[str], word: str) -> str:
    """``a, b and c`` with the word before the last one."""
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last
