"""A model that knows no health names a disease only where another one sees it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
import torch

from millie.config import Config, PredictionConfig
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
        self.labels = FOUR
        self.manifest = SimpleNamespace(name="four")
        self.held_out = np.zeros((0, 4)), np.zeros(0, np.int64)
        self.config = Config().with_settings(["prediction.min_disease_probability=0.85"])
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
    ("probabilities", "doubt", "ruled_out"),
    [
        ((0.04, 0.6, 0.3, 0.06), False, False),
        ((0.02, 0.13, 0.8, 0.05), False, False),
        ((0.1, 0.5, 0.3, 0.1), True, False),  # AML or APL 0.8, a disease is named from 0.85
        ((0.3, 0.3, 0.25, 0.15), True, False),
        ((0.05, 0.1, 0.05, 0.8), False, True),
        ((0.8, 0.1, 0.05, 0.05), False, True),
    ],
)
def test_the_diseases_must_be_seen_together(
    probabilities: tuple[float, ...], doubt: bool, ruled_out: bool
) -> None:
    found = screen(*probabilities).ask([torch.zeros(9, DIM)], ("AML", "APL"))
    assert (bool(found.doubt), bool(found.ruled_out)) == (doubt, ruled_out)


def test_the_reason_says_what_was_seen_instead() -> None:
    found = screen(0.05, 0.1, 0.05, 0.8).ask([torch.zeros(9, DIM)], ("AML", "APL"))
    (reason,) = found.ruled_out
    assert reason.text == (
        "four sees normal (0.80) rather than AML or APL; this model only tells APL from other AML"
    )
    assert "predict four" in reason.remedy
    (reason,) = screen(0.1, 0.5, 0.3, 0.1).ask([torch.zeros(9, DIM)], ("AML", "APL")).doubt
    assert reason.text == (
        "four is not certain of AML or APL: probability 0.80, at 0.80 when cells are drawn anew; "
        "0.85 and never below 0.50 needed to name one; this model only tells APL from other AML"
    )


def test_a_screened_sample_gets_no_name(
    make_bundle: MakeBundle, make_bag: MakeBag, runtime: FeatureRuntime
) -> None:
    bundle, reader = make_bundle("mean"), make_bag(60)
    free = predict_bag(bundle, reader, runtime, CONFIG, screen=screen(0.02, 0.48, 0.48, 0.02))
    held = predict_bag(bundle, reader, runtime, CONFIG, screen=screen(0.1, 0.1, 0.1, 0.7))
    assert held.probabilities == free.probabilities
    assert held.state in {"INDETERMINATE", "URGENT_INDETERMINATE"}
    assert any(reason.text.startswith("four sees normal") for reason in held.reasons)
    urgent = held.probabilities["APL"] >= bundle.manifest.threshold
    assert (held.state == "URGENT_INDETERMINATE") == urgent
