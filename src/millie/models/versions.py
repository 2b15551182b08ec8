"""What the version of a model says, and which millie may use it.

A model's version is MAJOR.MINOR.PATCH. MAJOR: other labels, another preparation of the images or
another intended use, so that its calls mean something else. MINOR: other weights or limits, so that
a patient's call may differ. PATCH: other text alone. Owns that rule and the range of millie's own
versions (``requires_millie``, PEP 440) that a model was made for; reads no files.
"""

from __future__ import annotations

from enum import IntEnum

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from millie import __version__
from millie.errors import BundleError

FIRST = "1.0.0"
"""Version of a model that has no predecessor."""

PATTERN = r"^(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})$"
"""MAJOR.MINOR.PATCH, no leading zeros."""


class Digit(IntEnum):
    """The part of a version that a change needs; NONE: nothing has changed."""

    NONE = 0
    PATCH = 1
    MINOR = 2
    MAJOR = 3


def requirement_for(version: str = __version__) -> str:
    """The versions of millie that may use a model made by ``version``.

    Within them cells are found, cut and encoded alike. Before 1.0 the second number changes where
    that may change, later the first one.

    Example:
        >>> requirement_for("0.2.1"), requirement_for("1.4.0")
        ('>=0.2,<0.3', '>=1.4,<2')
    """
    made = Version(version)
    upper = f"0.{made.minor + 1}" if made.major == 0 else str(made.major + 1)
    return f">={made.major}.{made.minor},<{upper}"


def parsed(requirement: str) -> SpecifierSet:
    """A range of versions.

    Raises:
        ValueError: it is empty or no PEP 440 specifier.
    """
    try:
        found = SpecifierSet(requirement)
    except InvalidSpecifier as error:
        raise ValueError(
            f"'{requirement}' is no range of versions, expected one such as '>=0.2,<0.3'"
        ) from error
    if not len(found):
        raise ValueError("empty, expected a range of versions such as '>=0.2,<0.3'")
    return found


def check_requirement(requirement: object, origin: str, version: str = __version__) -> None:
    """Refuse a model that was made for other versions of millie.

    Args:
        requirement: ``requires_millie`` as it was read; what is no range is left to the manifest.
        origin: named in the error.
        version: of the millie that would use it.

    Raises:
        BundleError: ``version`` lies outside the range.
    """
    try:
        allowed = parsed(requirement) if isinstance(requirement, str) else None
    except ValueError:
        return
    if allowed is not None and not allowed.contains(version, prereleases=True):
        raise BundleError(
            f"{origin}: this model needs millie {requirement}, and this is millie {version}, which "
            "may find and encode cells differently: install a version of millie within that range, "
            "or use a version of the model made for this one (for your own model: train it again)"
        )


def next_version(version: str, digit: Digit) -> str:
    """The least version that a change of this digit needs after ``version``."""
    major, minor, patch = map(int, version.split("."))
    return {
        Digit.NONE: version,
        Digit.PATCH: f"{major}.{minor}.{patch + 1}",
        Digit.MINOR: f"{major}.{minor + 1}.0",
        Digit.MAJOR: f"{major + 1}.0.0",
    }[digit]


def is_enough(old: str, new: str, digit: Digit) -> bool:
    """Whether ``new`` is as far above ``old`` as a change of this digit needs."""
    return Version(new) >= Version(next_version(old, digit))
