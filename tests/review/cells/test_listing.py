from __future__ import annotations

import pytest

from millie.review.cells.listing import entropy


def test_uncertainty_is_nought_when_sure_and_one_when_all_classes_and_none_are_alike() -> None:
    assert entropy([0.0, 1.0, 0.0]) == 0.0
    assert entropy([0.2] * 4) == pytest.approx(1.0)
    assert 0 < entropy([0.9, 0.1]) < entropy([0.6, 0.4]) < 1
    assert entropy([1.0]) == 0.0
    assert entropy([0.01, 0.01]) < entropy([0.2, 0.2]) < 1
    assert entropy([0.5 - 1e-6] * 2) == pytest.approx(entropy([0.5] * 2), abs=1e-4)
