"""No package of the base install may be under GPL, AGPL or terms against commercial use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType


def test_the_base_install_brings_nothing_that_it_may_not(licences: ModuleType) -> None:
    found = licences.packages()
    names = {package.name for package in found}
    assert {"torch", "numpy", "openvino", "opencv-python-headless"} <= names
    assert not {"millie", "openslide-python", "psycopg", "pytest"} & names
    assert list(licences.problems(found)) == []


@pytest.mark.parametrize(
    "licence",
    ["MIT", "BSD License", "Apache-2.0 OR BSD-2-Clause", "MIT OR GPL-3.0-only",
     "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0", "MPL-2.0 AND MIT",
     "Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSL-1.0"],
)  # fmt: skip
def test_permissive_terms(licences: ModuleType, licence: str) -> None:
    assert licences.is_allowed(licence)


@pytest.mark.parametrize(
    "licence",
    ["", "Custom", "GPL-3.0-only", "MIT AND GPL-2.0-or-later", "AGPL-3.0", "LGPL-2.1-only",
     "GNU Affero General Public License v3", "GNU General Public License v2 (GPLv2)",
     "CC-BY-NC-4.0", "MIT AND Proprietary", "BSD License for non-commercial use", "SSPL-1.0",
     "GNU Lesser General Public License v3 (LGPLv3)", "Apache-2.0 AND Secret-1.0"],
)  # fmt: skip
def test_all_other_terms_are_named(licences: ModuleType, licence: str) -> None:
    found = licences.Package("other", "1.0", licence)
    assert list(licences.problems([found])) == [f"other 1.0: licence '{licence or 'not stated'}'"]


def test_a_library_that_nobody_looked_up_is_named(licences: ModuleType) -> None:
    found = licences.Package("other", "1.0", "MIT", unknown=("libx264",))
    assert list(licences.problems([found])) == ["other 1.0: libraries of unknown licence: libx264"]


def test_what_is_copyleft_in_a_wheel_is_listed(licences: ModuleType) -> None:
    """FFmpeg and GCC's run time: the exceptions, each by name."""
    carried = {name for package in licences.packages() for name, _ in package.libraries}
    assert carried <= licences.LIBRARIES.keys()
    for name, licence in licences.LIBRARIES.items():
        assert "LGPL" in licence or "GCC-exception" in licence, name
