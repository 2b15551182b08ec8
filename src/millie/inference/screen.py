"""Is the disease in question there at all? A second model, on the same vectors, answers first.

A model that has only learnt to tell diseases from each other names one of them for every sample,
a healthy one too. Where it stands on the same encoder as a model that also knows health, that one
is asked about the same cells, and must see one of these diseases before a name is given. This
module owns the question; which model answers is its caller's choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from millie.inference.calls import EVEN, NO_SIGNAL, how_sure, is_seen, state_of
from millie.inference.operating import supported_by
from millie.inference.reasons import Code, reason
from millie.inference.resampling import probability_ranges
from millie.inference.scope import listed, told_apart
from millie.statistics.conformal import in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from millie.config import PredictionConfig
    from millie.models.bundle import Bundle
    from millie.types import Reason


def can_screen(screen: Bundle, bundle: Bundle, config: PredictionConfig) -> bool:
    """Whether one model can answer for another: same vectors, health known, all its diseases."""
    same = (
        screen.manifest.encoder == bundle.manifest.encoder
        and not bundle.manifest.encoder.trained
        and screen.config.crops == bundle.config.crops
        and screen.config.model.background == bundle.config.model.background
    )
    healthy = {label: state_of(label, config.negative_labels) == NO_SIGNAL
               for label in (*screen.labels, *bundle.labels)}  # fmt: skip
    return (
        same
        and any(healthy[label] for label in screen.labels)
        and not any(healthy[label] for label in bundle.labels)
        and set(bundle.labels) < set(screen.labels)
    )


class Answer(NamedTuple):
    """Why no disease of the other model may be named; both empty if one may.

    Attributes:
        doubt: it is not seen for certain.
        ruled_out: something else is seen.
    """

    doubt: tuple[Reason, ...]
    ruled_out: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Screen:
    """A model that knows more diseases, and health, beside the one that is asked.

    Attributes:
        bundle: the model, see :func:`can_screen`.
    """

    bundle: Bundle

    @torch.no_grad()
    def ask(self, features: Sequence[Tensor], labels: Sequence[str]) -> Answer:
        """Whether any of the labels may be named.

        Args:
            features: (N, D) by the shared encoder; the first is used.
            labels: of the model that is asked.
        """
        bundle, cells = self.bundle, features[0]
        logits = torch.stack([n.bag_logits(cells[None])[0] for n in bundle.networks])
        point = dict(zip(bundle.labels, bundle.probabilities(logits).tolist(), strict=True))
        ranges = probability_ranges(bundle.networks, [cells], bundle.probabilities, point)
        others = [label for label in bundle.labels if label not in labels]
        needed = bundle.config.prediction.min_disease_probability
        if is_seen(point, ranges, others, needed):
            return Answer((), ())
        name, sure = bundle.manifest.name, supported_by(*bundle.held_out)
        asked, only = listed(labels, "or"), f"this model only tells {told_apart(labels)}"
        if sum(ranges[label][0] for label in others) > EVEN:
            likeliest = max(others, key=lambda label: point[label])
            seen = f"{likeliest} ({in_words(point[likeliest], sure)})"
            text = f"{name} sees {seen} rather than {asked}; {only}"
            return Answer((), (reason(Code.NOT_THIS_DISEASE, text, screen=name),))
        told = how_sure(point, ranges, others, needed, sure)
        text = f"{name} is not certain of {asked}: {told}; {only}"
        return Answer((reason(Code.DISEASE_NOT_CONFIRMED, text, screen=name),), ())
