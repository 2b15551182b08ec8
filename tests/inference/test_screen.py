"""A model that knows no health names a disease only where another one sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import torch

from millie.config import PredictionConfig
from millie.inference.predict import predict_bag
from millie.inference.screen import Screen, can_screen

if TYPE_CHECKING:
    from collections.abc import Callable

    from millie.bags.store import BagReader
    from millie.inference.runtime import FeatureRuntime
    from millie.models.bundle import Bundle

    MakeBundle = Callable[..., Bundle]
    MakeBag = Callable[..., BagReader]

CONFIG, DIM = PredictionConfig(), 48
FOUR = ("ALL", "AML", "APL", "normal")


def test_who_may_answer_for_whom(make_bundle: MakeBundle) -> None:
    four, two = make_bundle("mean", FOUR), make_bundle("mean", ("AML", "APL"))
    assert can_screen(four, two, CONFIG)
    assert not can_screen(two, four, CONFIG)
    assert not can_screen(four, four, CONFIG)
    assert not can_screen(four, make_bundle("mean", ("AML", "CML")), CONFIG)  # unknown to it
    assert not can_screen(make_bundle("mean", ("ALL", "AML", "APL")), two, CONFIG)  # no health


class Answers:
    """A model that always says the same, whatever the cells."""

    def __init__(self, *probabilities: float) -> None:
        self.name, self.labels = "four", FOUR
        self._logits = torch.tensor(probabilities).log()
        self.networks = [self]

    def bag_logits(self, cells: torch.Tensor) -> torch.Tensor:
        return self._logits.expand(len(cells), -1)

    @staticmethod
    def probabilities(logits: torch.Tensor) -> torch.Tensor:
        return logits.double().softmax(dim=-1).mean(dim=0)


def screen(*probabilities: float) -> Screen:
    return Screen(cast("Bundle", Answers(*probabilities)))


@pytest.mark.parametrize(
    ("probabilities", "seen"),
    [
        ((0.1, 0.5, 0.3, 0.1), True),
        ((0.1, 0.1, 0.75, 0.05), True),
        ((0.05, 0.1, 0.05, 0.8), False),
        ((0.8, 0.1, 0.05, 0.05), False),
        ((0.3, 0.2, 0.2, 0.3), False),
    ],
)
def test_the_diseases_must_be_seen_together(probabilities: tuple[float, ...], seen: bool) -> None:
    found = screen(*probabilities).why_not([torch.zeros(9, DIM)], ("AML", "APL"))
    assert (not found) == seen


def test_the_reason_says_what_was_seen_instead() -> None:
    (reason,) = screen(0.05, 0.1, 0.05, 0.8).why_not([torch.zeros(9, DIM)], ("AML", "APL"))
    assert reason == (
        "four does not see AML or APL for certain (normal 0.80): this model only tells AML from APL"
    )


def test_a_screened_sample_gets_no_name(
    make_bundle: MakeBundle, make_bag: MakeBag, runtime: FeatureRuntime
) -> None:
    bundle, reader = make_bundle("mean"), make_bag(60)
    free = predict_bag(bundle, reader, runtime, CONFIG, screen=screen(0.1, 0.4, 0.4, 0.1))
    held = predict_bag(bundle, reader, runtime, CONFIG, screen=screen(0.1, 0.1, 0.1, 0.7))
    assert held.probabilities == free.probabilities
    assert held.state in {"INDETERMINATE", "URGENT_INDETERMINATE"}
    assert held.reasons[0].startswith("four does not see AML or APL")
    assert held.reasons[1:] == free.reasons
