"""Every model says in one sentence what it can tell and what it cannot."""

from __future__ import annotations

import pytest

from millie.config import PredictionConfig
from millie.inference.scope import scope


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (
            ("AML", "APL"),
            "tells APL from other AML; it cannot say normal or ALL, nor",
        ),
        (
            ("ALL", "AML", "APL", "normal"),
            "tells normal, ALL, AML and APL apart; it cannot",
        ),
        (
            ("CML", "benign"),
            "tells benign and CML apart; it cannot say ALL, AML or APL, nor",
        ),
    ],
)
def test_classes_and_what_is_never_answered(labels: tuple[str, ...], sentence: str) -> None:
    expected = f"This model {sentence} name any other disease."
    assert scope(labels, PredictionConfig().negative_labels) == expected
