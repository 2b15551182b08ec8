"""What is said of single cells: a mature cell is no leukaemia's, other classes stay as they are."""

from __future__ import annotations

import pytest
import torch

from millie.inference.alone import cells_alone

BAGS_OF_ONE = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64)
IMMATURE = torch.tensor([0.9, 0.2], dtype=torch.float64)
NEGATIVE = ("normal", "healthy")


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("APL", "AML", "normal"), [[0.45, 0.27, 0.28], [0.02, 0.02, 0.96]]),
        (("APL", "ALL", "AML"), [[0.45, 0.27, 0.18], [0.02, 0.02, 0.16]]),
        (("AML", "CLL", "MDS"), [[0.45, 0.3, 0.2], [0.02, 0.1, 0.8]]),
        (("AML", "normal", "healthy"), [[0.45, 0.325, 0.225], [0.02, 0.14, 0.84]]),
    ],
)
def test_a_leukaemia_counts_as_far_as_the_cell_is_immature(
    classes: tuple[str, ...], expected: list[list[float]]
) -> None:
    found = cells_alone(BAGS_OF_ONE, IMMATURE, classes, NEGATIVE)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_a_model_that_cannot_tell_changes_nothing() -> None:
    found = cells_alone(BAGS_OF_ONE, None, ("APL", "AML", "normal"), NEGATIVE)
    assert torch.equal(found, BAGS_OF_ONE)
