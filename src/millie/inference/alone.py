"""What a model says of a single cell, which is not what it says of its patient.

Trained on whole bags, a network gives a neutrophil of a patient with APL much of the probability
of that patient: every cell carries the look of its film. Acute leukaemia is in the immature ones,
so what is said of a cell alone counts as far as the cell is immature. No call rests on it; the
order of cells on pages, exports, and the count beside a manual differential do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from millie.inference.calls import NO_SIGNAL, state_of
from millie.inference.immature import immature_cells
from millie.types import ACUTE_LEUKAEMIAS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from millie.models.bundle import Bundle


def cells_of(bundle: Bundle, probabilities: Tensor, features: Tensor) -> Tensor:
    """:func:`cells_alone` of a bundle: (N, C).

    Args:
        bundle: whose first network says which cells are immature.
        probabilities: (N, C) of bags of one cell each.
        features: (N, D) of these cells, by the first network's encoder.
    """
    immature = immature_cells(bundle.networks[0], bundle.manifest.encoder.name, features)
    negative = bundle.config.prediction.negative_labels
    return cells_alone(probabilities, immature, bundle.labels, negative)


def cells_alone(
    probabilities: Tensor,
    immature: Tensor | None,
    classes: Sequence[str],
    negative: Sequence[str],
) -> Tensor:
    """What a model says of each cell alone: (N, C), 0 to 1.

    P(cell i is one of leukaemia c) = P(i is immature) P(c | a bag of i alone). What this takes from
    the classes named ALL, AML or APL goes to those without disease in equal parts; where there
    are none, a row sums to less than 1. Other classes are left as they are.

    Args:
        probabilities: (N, C) of bags of one cell each (paper, eq. 2).
        immature: (N,), see :func:`~millie.inference.immature.immature_cells`; None: the model
            cannot tell, and nothing changes.
        classes: names of the C classes.
        negative: labels that mean no disease.
    """
    if immature is None:
        return probabilities
    acute = torch.tensor([name in ACUTE_LEUKAEMIAS for name in classes])
    healthy = torch.tensor([state_of(name, negative) == NO_SIGNAL for name in classes])
    share = immature.to(probabilities)[:, None]
    weighed = torch.where(acute, probabilities * share, probabilities)
    taken = (probabilities - weighed).sum(dim=1, keepdim=True)
    return weighed + taken * healthy / healthy.sum().clamp(min=1)
