"""The wheel: all of the package, nothing else, and not larger than it has to be."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from millie import __version__

from .conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES = 12_000_000
MOST_BUNDLE_BYTES = 15_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as pip would build it, without the network."""
    wheels = pytest.importorskip("hatchling.builders.wheel", reason="needs hatchling (extra dev)")
    folder = tmp_path_factory.mktemp("dist")
    (path,) = wheels.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    assert path.endswith(f"millie-{__version__}-py3-none-any.whl")
    return folder / path.rpartition("/")[2]


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as file:
        assert file.testzip() is None
        return file.namelist()


def tracked() -> set[str]:
    """Files of the package in version control, or that are about to be."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src/millie"]
    found = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True)  # noqa: S603
    if found.returncode:
        pytest.skip("no git checkout")
    lines = found.stdout.splitlines()
    return {line.removeprefix("src/") for line in lines if (ROOT / line).is_file()}


def test_it_holds_every_file_of_the_package_and_nothing_foreign(names: list[str]) -> None:
    about = f"millie-{__version__}.dist-info/"
    inside = {name for name in names if not name.startswith(about)}
    assert inside == tracked()
    assert {name.removeprefix(about) for name in names} - inside >= {
        "METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["py.typed", "__init__.pyi", "bundles/apl-blood/weights.safetensors",
     "bundles/acute-leukaemia/bundle.json", "models/blood_cell.safetensors",
     "segmentation/leukocytes.safetensors", "profiles/paper.toml",
     "outputs/templates/patient.html.j2", "outputs/templates/style.css"],
)  # fmt: skip
def test_data_of_the_package_are_in_it(names: list[str], name: str) -> None:
    assert f"millie/{name}" in names


def test_it_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < MOST_BYTES
    with zipfile.ZipFile(wheel) as file:
        bundles = [i.file_size for i in file.infolist() if i.filename.startswith("millie/bundles/")]
    assert 0 < sum(bundles) <= MOST_BUNDLE_BYTES


def test_what_was_packed_is_what_lies_here(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        record = file.read(f"millie-{__version__}.dist-info/RECORD").decode()
    rows = dict(line.split(",")[:2] for line in record.splitlines())
    weights = "millie/bundles/apl-blood/weights.safetensors"
    digest = hashlib.sha256((ROOT / "src" / weights).read_bytes()).digest()
    assert rows[weights] == "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
