"""Each rule by the shortest series that breaks it, and by one that just does not."""

from __future__ import annotations

import pytest

from millie.statistics.control_chart import RULES, westgard


@pytest.mark.parametrize(
    ("rule", "breaks", "holds"),
    [
        ("1-2s", [2.1], [2.0]),
        ("1-3s", [0, -3.1], [0, -3.0]),
        ("2-2s", [2.1, 2.2], [2.1, -2.2]),
        ("R-4s", [2.1, -2.1], [2.5, -1.9]),
        ("4-1s", [1.1] * 4, [1.1, 1.1, 0.9, 1.1]),
        ("10-x", [-0.1] * 10, [-0.1] * 9 + [0.1]),
    ],
)
def test_rules(rule: str, breaks: list[float], holds: list[float]) -> None:
    assert (len(breaks) - 1, rule) in [(one.index, one.rule) for one in westgard(breaks)]
    assert rule not in {one.rule for one in westgard(holds)}


def test_every_rule_is_explained_and_only_one_is_a_warning() -> None:
    found = westgard([3.5, 3.5, -3.5, *([1.5] * 10)])
    assert {one.rule for one in found} == set(RULES)
    assert {one.rule for one in found if not one.rejects} == {"1-2s"}


def test_a_quiet_series_breaks_none() -> None:
    assert westgard([0.5, -0.5, 1.5, -1.5] * 5) == []
