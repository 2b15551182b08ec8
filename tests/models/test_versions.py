"""The version of a model, and the versions of millie that may use it."""

from __future__ import annotations

import re

import pytest

from millie import __version__
from millie.errors import BundleError
from millie.models.versions import (
    PATTERN,
    Digit,
    check_requirement,
    is_enough,
    next_version,
    parsed,
    requirement_for,
)


@pytest.mark.parametrize("version", ["1.0.0", "0.3.12", "10.20.30"])
def test_three_numbers_are_a_version(version: str) -> None:
    assert re.fullmatch(PATTERN, version)


@pytest.mark.parametrize(
    "version", ["1", "1.0", "01.0.0", "1.0.0rc1", "v1.0.0", "1.0.٣", "1.0.0\n"]
)
def test_anything_else_is_none(version: str) -> None:
    assert not re.fullmatch(PATTERN, version)


@pytest.mark.parametrize(
    ("made", "fits", "other"),
    [
        ("0.1.0", ["0.1.0", "0.1.7"], ["0.0.9", "0.2.0", "1.0.0"]),
        ("0.2.3", ["0.2.0", "0.2.9", "0.2.4.dev1"], ["0.1.9", "0.3.0"]),
        ("1.4.2", ["1.4.0", "1.9.0"], ["1.3.9", "2.0.0"]),
    ],
)
def test_a_model_may_be_used_until_cells_may_be_found_otherwise(
    made: str, fits: list[str], other: list[str]
) -> None:
    requirement = requirement_for(made)
    for version in fits:
        check_requirement(requirement, "m", version)
    for version in other:
        with pytest.raises(BundleError, match=f"this is millie {version}, which may find"):
            check_requirement(requirement, "m", version)


def test_what_is_trained_here_can_be_used_here() -> None:
    check_requirement(requirement_for(), "m")
    with pytest.raises(BundleError, match=rf"needs millie >=77, and this is millie {__version__}"):
        check_requirement(">=77", "m")


@pytest.mark.parametrize("text", ["", " ", "0.1", "newer", ">=", "~0.1"])
def test_what_is_no_range_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"range of versions.* such as '>=0.2,<0.3'"):
        parsed(text)


@pytest.mark.parametrize(
    ("digit", "expected"),
    [(Digit.NONE, "1.2.3"), (Digit.PATCH, "1.2.4"), (Digit.MINOR, "1.3.0"), (Digit.MAJOR, "2.0.0")],
)
def test_a_change_moves_its_digit_and_clears_the_lower_ones(digit: Digit, expected: str) -> None:
    assert next_version("1.2.3", digit) == expected


def test_a_version_may_go_farther_than_it_has_to_and_never_less() -> None:
    assert is_enough("1.9.9", "1.10.0", Digit.MINOR)
    assert is_enough("1.9.9", "2.0.0", Digit.PATCH)
    assert not is_enough("1.9.9", "1.9.10", Digit.MINOR)
    assert not is_enough("1.9.9", "1.10.0", Digit.MAJOR)
