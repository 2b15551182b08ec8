from __future__ import annotations

import pytest

from millie.review.cells.listing import entropy


def test_uncertainty_is_nought_when_sure_and_one_when_all_classes_are_alike() -> None:
    assert entropy([0.0, 1.0, 0.0]) == 0.0
    assert entropy([0.25] * 4) == pytest.approx(1.0)
    assert 0 < entropy([0.9, 0.1]) < entropy([0.6, 0.4]) < 1
    assert entropy([1.0]) == 0.0
    assert entropy([0.01, 0.01]) < entropy([0.4, 0.4]) <= 1  # the rest is none of them
    assert entropy([1 / 3 - 1e-6, 1 / 3, 1 / 3]) == pytest.approx(1.0)
